//! `runsheet verify`.

use clap::Args;

use super::{Failure, Outcome, say};
use crate::{event::Event, journal, store::Home};

/// Checks the chain of hashes of a run's record, and its snapshot.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet verify last\n  runsheet verify last --head 3f9ac1…")]
pub(super) struct Verify {
    /// The run: an id, a unique beginning of one, or `last`.
    run: String,
    /// The head that was printed or sent when the run ended: shows that no tail was cut.
    #[arg(long)]
    head: Option<String>,
}

impl Verify {
    pub(super) fn run(&self) -> Outcome {
        let folder = Home::open().and_then(|home| home.find(&self.run)).map_err(Failure::usage)?;
        let bad = |says: String| Failure {
            code: 6,
            says,
            hint: Some("compare with a copy of the record; trust neither until you know why".into()),
        };
        let reading = journal::read(&folder.journal())?;
        if let Some(torn) = &reading.torn {
            return Err(bad(format!("the end of the record is torn or was changed: {torn}")));
        }
        let digest = folder.snapshot().map_err(bad)?.digest();
        let mut wanted = None;
        for record in &reading.records {
            match &record.event {
                Event::RunBegan { digest, .. } => wanted = Some(digest.clone()),
                Event::RunResumed { accepted: Some(digest), .. } => wanted = Some(digest.clone()),
                _ => {}
            }
        }
        if wanted.as_deref() != Some(digest.as_str()) {
            return Err(bad("the snapshot is not the one that the run was bound to".into()));
        }
        if let Some(head) = &self.head
            && !(head.len() >= 8 && reading.head.starts_with(head.as_str()))
        {
            return Err(bad(format!("the record's head is {}, not {head}: its tail was cut, or it is another record", reading.head)));
        }
        let ended = matches!(reading.records.last().map(|r| &r.event), Some(Event::RunEnded { .. }));
        let end = if ended { "it ends with a verdict" } else { "it does not end with a verdict: the run is not over, or its tail was cut" };
        say(&format!("good: {} events, head {}; {end}", reading.records.len(), reading.head));
        Ok(0)
    }
}
