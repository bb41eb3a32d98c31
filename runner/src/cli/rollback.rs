//! `runsheet rollback`.

use clap::Args;

use super::{Outcome, cancel, drive};
use crate::event::Request;

/// Undoes a run that is paused, dead or ended, or tries again what could not be undone.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet rollback last --reason \"restored the wrong day\"")]
pub(super) struct Rollback {
    /// The run: an id, a unique beginning of one, or `last`.
    run: String,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    manner: drive::Manner,
}

impl Rollback {
    pub(super) fn run(&self) -> Outcome {
        cancel::ask(&self.run, Request::Rollback, &self.reason, &self.manner)
    }
}
