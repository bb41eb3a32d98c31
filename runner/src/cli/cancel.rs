//! `runsheet cancel`.

use clap::Args;

use super::{Failure, Outcome, decide, drive, login, told};
use crate::{engine::Tell, event::Request, store::Home};

/// Stops a run: ends what runs, and undoes what was attempted.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet cancel last --reason \"wrong cluster\"")]
pub(super) struct Cancel {
    /// The run: an id, a unique beginning of one, or `last`.
    run: String,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    manner: drive::Manner,
}

impl Cancel {
    pub(super) fn run(&self) -> Outcome {
        ask(&self.run, Request::Cancel, &self.reason, &self.manner)
    }
}

/// Asks something of a run: of its runner if it lives, else by driving the run from here.
pub(super) fn ask(name: &str, request: Request, reason: &str, manner: &drive::Manner) -> Outcome {
    let told = told(name)?;
    let tell = Tell::Request { request, by: login(), reason: reason.to_owned() };
    if told.folder.is_held() {
        decide::hand_over(&told.folder, &tell)?;
        eprintln!("run {}: asked its runner; `runsheet show {}` tells how far it is", told.folder.id, told.folder.id);
        return Ok(0);
    }
    if drive::is_over(&told.run) && request == Request::Cancel {
        return Err(Failure::usage(format!("run {} has ended", told.folder.id)));
    }
    if told.run.past_pivot() && request == Request::Rollback {
        return Err(Failure::usage("a pivot has succeeded: from there on there is only forward"));
    }
    let home = Home::open().map_err(Failure::usage)?;
    drive::take_up(&home, told, vec![tell], None, manner)
}
