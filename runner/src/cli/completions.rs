//! `runsheet completions`.

use clap::{Args, CommandFactory};

use super::{Arguments, Outcome};

/// Prints completions for a shell.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet completions bash > /etc/bash_completion.d/runsheet")]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(&self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "runsheet", &mut script);
        super::say(&String::from_utf8_lossy(&script));
        Ok(0)
    }
}
