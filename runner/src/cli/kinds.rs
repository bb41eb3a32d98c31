//! `runsheet kinds`.

use clap::Args;

use super::{Failure, Format, Outcome, say};
use crate::{book::nearest, plan::KINDS};

/// Lists the kinds of steps, or shows one with its settings, outputs and examples.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet kinds\n  runsheet kinds file.copy")]
pub(super) struct Kinds {
    /// The kind.
    name: Option<String>,
    /// `text` for people, `json` for programs.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Kinds {
    pub(super) fn run(&self) -> Outcome {
        let Some(name) = &self.name else {
            let list: Vec<String> =
                steps::KINDS.iter().map(|kind| format!("{:18} {}", kind.name, steps::reference::summary(kind))).collect();
            match self.format {
                Format::Text => say(&list.join("\n")),
                Format::Json => {
                    say(&serde_json::to_string_pretty(&steps::KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>()).unwrap_or_default())
                }
            }
            return Ok(0);
        };
        let kind = steps::kind(name).ok_or_else(|| {
            let near =
                nearest(name, KINDS.keys().copied()).map_or("`runsheet kinds` lists them".to_owned(), |n| format!("did you mean `{n}`?"));
            Failure::usage(format!("there is no kind `{name}`")).hint(near)
        })?;
        match self.format {
            Format::Text => say(&steps::reference::page(kind)),
            Format::Json => {
                let shown = serde_json::json!({ "name": kind.name, "settings": (kind.settings)(), "outputs": (kind.output)(), "examples": kind.examples, "verifies": kind.verifies });
                say(&serde_json::to_string_pretty(&shown).unwrap_or_default());
            }
        }
        Ok(0)
    }
}
