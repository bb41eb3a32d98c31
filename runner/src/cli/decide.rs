//! `runsheet decide`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Failure, Outcome, login, told};
use crate::{
    engine::Tell,
    event::{Decision, Event},
    journal::Journal,
    store::RunFolder,
};

/// Records what a person decides about a step that failed, is unknown, or asks.
#[derive(Args)]
#[command(
    after_help = "Example:\n  runsheet decide last go approve --reason \"window agreed with sales\" --role ops-lead\n  runsheet decide last copy retry --reason \"disk replaced\""
)]
pub(super) struct Decide {
    /// The run: an id, a unique beginning of one, or `last`.
    run: String,
    /// The step, as `runsheet show` names it.
    step: String,
    /// What is decided.
    #[arg(value_enum)]
    decision: Word,
    /// Why; it stands in the record for ever.
    #[arg(long)]
    reason: String,
    /// Who decides; the login name when not said.
    #[arg(long)]
    by: Option<String>,
    /// In which role.
    #[arg(long)]
    role: Option<String>,
    /// What the step wants to have typed.
    #[arg(long)]
    confirm: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    /// Try again.
    Retry,
    /// Go on without it.
    Skip,
    /// It was done by hand.
    Done,
    /// Yes, to a gate.
    Approve,
    /// No.
    Reject,
}

impl Decide {
    pub(super) fn run(&self) -> Outcome {
        if self.reason.trim().is_empty() {
            return Err(Failure::usage("a decision needs a reason: --reason \"…\""));
        }
        let decision = match self.decision {
            Word::Retry => Decision::Retry,
            Word::Skip => Decision::Skip,
            Word::Done => Decision::Done,
            Word::Approve => Decision::Approve,
            Word::Reject => Decision::Reject,
        };
        let told = told(&self.run)?;
        let by = self.by.clone().unwrap_or_else(login);
        let id = told.run.unit(&self.step).ok_or_else(|| {
            let near = crate::book::nearest(&self.step, told.run.units.iter().map(|u| &*u.path));
            Failure::usage(format!(
                "there is no step `{}` in this run{}",
                self.step,
                near.map_or(String::new(), |n| format!("; did you mean `{n}`?"))
            ))
        })?;
        if let (Decision::Done, Some(wanted)) = (decision, told.run.units[id].question.as_ref().and_then(|(q, _)| q.confirm.clone()))
            && self.confirm.as_ref() != Some(&wanted)
        {
            return Err(Failure::usage(format!("`{}` wants `{wanted}` typed to confirm: --confirm \"{wanted}\"", self.step)));
        }
        let (step, role, reason) = (self.step.clone(), self.role.clone(), self.reason.clone());
        let Some(held) = told.folder.hold().map_err(|e| Failure::usage(e.to_string()))? else {
            hand_over(&told.folder, &Tell::Decide { step, decision, by, role, reason })?;
            eprintln!("recorded; the run goes on");
            return Ok(0);
        };
        told.run.may_decide(id, decision, &by, role.as_deref()).map_err(Failure::usage)?;
        let mut journal =
            Journal::resume(&told.folder.journal(), &told.reading).map_err(|e| Failure { code: 6, says: e.to_string(), hint: None })?;
        let record = journal.stamp(Event::Decided { step, decision, by, role, reason });
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| Failure::usage(e.to_string()))?;
        runtime.block_on(journal.write(vec![record]))?;
        drop((journal, held));
        eprintln!("recorded; go on with: runsheet resume {}", told.folder.id);
        Ok(0)
    }
}

/// Lays a request before the runner that holds the run, and waits for its answer.
pub(super) fn hand_over(folder: &RunFolder, tell: &Tell) -> Result<(), Failure> {
    let cannot = |e: std::io::Error| Failure::usage(format!("cannot reach the run's runner: {e}"));
    let stem = format!("{}-{}", crate::journal::now().as_microsecond(), std::process::id());
    let (beside, asked, answer) = (
        folder.inbox().join(format!("{stem}.new")),
        folder.inbox().join(format!("{stem}.json")),
        folder.inbox().join(format!("{stem}.answer")),
    );
    std::fs::write(&beside, serde_json::to_vec(tell).unwrap_or_default()).map_err(cannot)?;
    std::fs::rename(&beside, &asked).map_err(cannot)?;
    for _ in 0..200 {
        if let Ok(said) = std::fs::read_to_string(&answer) {
            let _ = std::fs::remove_file(&answer);
            return if said.is_empty() { Ok(()) } else { Err(Failure::usage(said)) };
        }
        if !folder.is_held() && asked.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = std::fs::remove_file(&asked);
    Err(Failure::usage("the run's runner did not answer").hint("look at it with `runsheet show`, and try again"))
}
