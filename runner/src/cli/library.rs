//! `runsheet library`.

use clap::Args;

use super::{Failure, Outcome, say};

/// Lists the playbooks of the library, or prints one.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet library\n  runsheet library sqlite/backup > mine.toml")]
pub(super) struct Library {
    /// The playbook.
    name: Option<String>,
}

impl Library {
    pub(super) fn run(&self) -> Outcome {
        match &self.name {
            None => {
                let title = |text: &str| {
                    toml::from_str::<toml::Table>(text).ok().and_then(|t| t.get("playbook")?.get("title")?.as_str().map(str::to_owned))
                };
                let list: Vec<String> =
                    playbooks::LIBRARY.iter().map(|(name, text)| format!("{name:32} {}", title(text).unwrap_or_default())).collect();
                say(&list.join("\n"));
                Ok(0)
            }
            Some(name) => match playbooks::LIBRARY.iter().find(|(known, _)| known == name) {
                Some((_, text)) => {
                    say(text);
                    Ok(0)
                }
                None => Err(Failure::usage(format!("the library has no playbook `{name}`")).hint("`runsheet library` lists them")),
            },
        }
    }
}
