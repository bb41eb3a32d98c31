//! `runsheet report`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Format, Outcome, say, told};
use crate::report::{json::shown, junit::junit, text::text};

/// Writes what happened in a run, for people, programs and continuous integration.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet report last\n  runsheet report last --junit drill.xml")]
pub(super) struct Report {
    /// The run: an id, a unique beginning of one, or `last`.
    run: String,
    /// `text` for people, `json` for programs.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Write JUnit XML to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl Report {
    pub(super) fn run(&self) -> Outcome {
        let told = told(&self.run)?;
        if let Some(file) = &self.junit {
            std::fs::write(file, junit(&told.run)).map_err(|e| Failure::usage(format!("cannot write {}: {e}", file.display())))?;
            eprintln!("written: {}", file.display());
            return Ok(0);
        }
        let alive = told.folder.is_held();
        let head = format!("{} events, head {}", told.reading.records.len(), told.reading.head);
        match self.format {
            Format::Text => say(&format!("{}\n  record        {head}", text(&told.run, alive).trim_end())),
            Format::Json => {
                let report = serde_json::json!({ "format": 1, "head": told.reading.head, "events": told.reading.records, "run": shown(&told.run, alive) });
                say(&serde_json::to_string_pretty(&report).unwrap_or_default());
            }
        }
        Ok(0)
    }
}
