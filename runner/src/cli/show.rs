//! `runsheet show`.

use clap::Args;

use super::{Format, Outcome, say, told};
use crate::report::{json::shown, text::text};

/// Shows a run: its steps, its verdict, what is left to do.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet show last\n  runsheet show last --format json")]
pub(super) struct Show {
    /// The run: an id, a unique beginning of one, or `last`.
    run: String,
    /// `text` for people, `json` for programs.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Show {
    pub(super) fn run(&self) -> Outcome {
        let told = told(&self.run)?;
        let alive = told.folder.is_held();
        match self.format {
            Format::Text => say(&text(&told.run, alive)),
            Format::Json => say(&serde_json::to_string_pretty(&shown(&told.run, alive)).unwrap_or_default()),
        }
        Ok(0)
    }
}
