//! `runsheet logs`.

use clap::Args;

use super::{Failure, Outcome, say, told};
use crate::report::{line, plain};

/// Shows what a run did line by line, or what the programs of one step put out.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet logs last\n  runsheet logs last backup")]
pub(super) struct Logs {
    /// The run: an id, a unique beginning of one, or `last`.
    run: String,
    /// The step, as `runsheet show` names it.
    step: Option<String>,
}

impl Logs {
    pub(super) fn run(&self) -> Outcome {
        let told = told(&self.run)?;
        let Some(step) = &self.step else {
            let lines: Vec<String> = told.reading.records.iter().filter_map(|record| line::line(record, &told.run)).collect();
            say(&lines.join("\n"));
            return Ok(0);
        };
        let id = told.run.unit(step).ok_or_else(|| Failure::usage(format!("there is no step `{step}` in this run")))?;
        let attempts = (1..=told.run.units[id].attempts).map(|n| n.to_string()).chain(["probe".into(), "undo".into()]);
        let mut any = false;
        for attempt in attempts {
            for stream in ["out", "err"] {
                let file = format!("{}.{stream}", told.folder.output(step, &attempt).display());
                if let Ok(bytes) = std::fs::read(&file) {
                    any = true;
                    eprintln!("── {step}, attempt {attempt}, std{stream}");
                    say(&plain(&String::from_utf8_lossy(&bytes)));
                }
            }
        }
        if !any {
            eprintln!("`{step}` put nothing out");
        }
        Ok(0)
    }
}
