//! `runsheet runs`.

use clap::Args;
use serde_json::json;

use super::{Failure, Format, Outcome, say, told_of};
use crate::{
    report::{json::state, plain_line},
    store::Home,
};

/// Lists runs, the newest last.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet runs --most 5")]
pub(super) struct Runs {
    /// How many at the most.
    #[arg(long, default_value_t = 20)]
    most: usize,
    /// `text` for people, `json` for programs.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Runs {
    pub(super) fn run(&self) -> Outcome {
        let home = Home::open().map_err(Failure::usage)?;
        let ids = home.all().map_err(Failure::usage)?;
        let (mut lines, mut rows) = (String::new(), Vec::new());
        for id in ids.iter().skip(ids.len().saturating_sub(self.most)) {
            let folder = home.find(id).map_err(Failure::usage)?;
            let alive = folder.is_held();
            match told_of(folder) {
                Ok(told) => {
                    let (state, title) = (state(&told.run, alive), plain_line(told.run.title()));
                    let outcome = told.run.verdict.as_ref().map(|v| json!(v.outcome).as_str().unwrap_or_default().to_owned());
                    let code = told.run.verdict.as_ref().map(|v| v.exit_code);
                    lines += &format!("{id}  {:10} {title}\n", outcome.as_deref().unwrap_or(state));
                    rows.push(json!({ "run": id, "state": state, "outcome": outcome, "exit_code": code, "title": told.run.title() }));
                }
                Err(failure) => {
                    lines += &format!("{id}  {:10} {}\n", "unreadable", plain_line(&failure.says));
                    rows.push(json!({ "run": id, "state": "unreadable", "error": failure.says }));
                }
            }
        }
        match self.format {
            Format::Json => say(&serde_json::to_string_pretty(&json!({ "format": 1, "runs": rows })).unwrap_or_default()),
            Format::Text if lines.is_empty() => eprintln!("there are no runs yet"),
            Format::Text => say(&lines),
        }
        Ok(0)
    }
}
