//! One attempt, probe or undo, from its start to what is recorded of it. Unaware of the journal and of other steps.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use minijinja::Value;
use serde_json::Value as Json;
use steps::{
    process::Captured,
    redact::Redactor,
    step::{Answer, AnyStep, Error},
    world::{Attempt, View, World},
};
use tokio::sync::watch;

use super::Progress;
use crate::{
    event::Ended,
    plan::RetryOn,
    run::{Id, Run, seconds},
};

/// How long a program may take to end after TERM.
const GRACE: Duration = Duration::from_secs(10);
/// How much longer a step may take to notice that it has to stop; then it is unknown.
const NOTICE: Duration = Duration::from_secs(15);

/// A step whose settings have been rendered and read, and what expressions among them see: never a secret.
pub(super) struct Rendered {
    pub(super) step: Box<dyn AnyStep>,
    pub(super) names: Names,
}

/// The values that expressions of a step's settings see.
pub(super) struct Names(pub(super) Value);

/// What is to be done.
pub(super) enum Work {
    Apply {
        step: Box<dyn AnyStep>,
        before: Json,
        attempt: u32,
        answers: Vec<Answer>,
        output: PathBuf,
        holds: Names,
    },
    Probe {
        step: Box<dyn AnyStep>,
        output: PathBuf,
        holds: Names,
    },
    /// Undone by the step's own kind when there is a `before`, else by a handler.
    Undo {
        step: Box<dyn AnyStep>,
        before: Option<Json>,
        output: PathBuf,
        holds: Names,
    },
}

/// What has ended.
pub(super) enum Done {
    Looked { id: Id, rendered: Rendered, before: Result<Json, Error> },
    Applied { id: Id, attempt: u32, how: Ended, captured: Vec<Captured> },
    Probed { id: Id, happened: Option<bool>, outputs: Option<Json> },
    Undone { id: Id, error: Option<String> },
}

/// What an attempt needs beside the step.
pub(super) struct Context {
    pub(super) id: Id,
    pub(super) view: View,
    pub(super) redactor: Arc<Redactor>,
    pub(super) progress: Progress,
    pub(super) stop: watch::Sender<bool>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) limit: Option<Duration>,
}

/// How work ended within its time.
enum Within<T> {
    Ended(Result<T, Error>),
    TimedOut,
    /// It did not stop when told to.
    Deaf,
}

pub(super) async fn perform(context: Context, work: Work) -> Done {
    let id = context.id;
    match work {
        Work::Apply { step, before, attempt, answers, output, holds } => {
            let world = context.world(output, answers, holds);
            let limit = context.limit;
            let how = match context.within(step.apply(&world, &before)).await {
                Within::Ended(Ok(mut outputs)) => {
                    context.redactor.value(&mut outputs);
                    Ended::Succeeded { outputs }
                }
                Within::Ended(Err(Error::Stopped)) => Ended::Cancelled,
                Within::Ended(Err(error)) => failed(&error, &context.redactor),
                Within::TimedOut => Ended::TimedOut { after_s: limit.unwrap_or_default().as_secs_f64() },
                Within::Deaf => Ended::Unknown,
            };
            let captured = world.attempt().captured.lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default();
            Done::Applied { id, attempt, how, captured }
        }
        Work::Probe { step, output, holds } => {
            let world = context.world(output, Vec::new(), holds);
            let asked = async {
                let before = step.look(&world).await?;
                step.apply(&world, &before).await
            };
            match context.within(asked).await {
                Within::Ended(Ok(mut outputs)) => {
                    context.redactor.value(&mut outputs);
                    Done::Probed { id, happened: Some(true), outputs: Some(outputs) }
                }
                // A program that ran and said no, or a check that failed: it did not happen.
                Within::Ended(Err(Error::Exit { code: Some(_), .. } | Error::Final(_))) => {
                    Done::Probed { id, happened: Some(false), outputs: None }
                }
                Within::Ended(Err(_)) | Within::TimedOut | Within::Deaf => Done::Probed { id, happened: None, outputs: None },
            }
        }
        Work::Undo { step, before, output, holds } => {
            let world = context.world(output, Vec::new(), holds);
            let undone = async {
                match &before {
                    Some(before) => step.undo(&world, before).await,
                    None => {
                        let before = step.look(&world).await?;
                        step.apply(&world, &before).await.map(drop)
                    }
                }
            };
            let error = match context.within(undone).await {
                Within::Ended(Ok(())) => None,
                Within::Ended(Err(error)) => Some(context.redactor.text(error.says())),
                Within::TimedOut => Some("its time was up".into()),
                Within::Deaf => Some("its time was up, and it could not be ended".into()),
            };
            Done::Undone { id, error }
        }
    }
}

impl Context {
    fn world(&self, output: PathBuf, answers: Vec<Answer>, holds: Names) -> World {
        let (progress, id) = (self.progress.clone(), self.id);
        let told = move |done, total, unit| {
            if let Ok(mut all) = progress.lock() {
                all.insert(id, (done, total, unit));
            }
        };
        let attempt = Attempt {
            output: Some(output),
            redactor: self.redactor.clone(),
            progress: Box::new(told),
            answers,
            stop: self.stopped.clone(),
            grace: GRACE,
            captured: Mutex::default(),
            evaluate: Box::new(move |text, out| holds.hold(text, out)),
        };
        World::new(self.view.clone(), Arc::new(attempt))
    }

    /// Work within its limit of time. When the time is up it is told to stop, and waited for.
    async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Within<T> {
        tokio::pin!(work);
        let limit = self.limit.unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
        let mut stopped = self.stopped.clone();
        let timed_out = tokio::select! {
            ended = &mut work => return Within::Ended(ended),
            () = tokio::time::sleep(limit) => true,
            _ = stopped.wait_for(|stop| *stop) => false,
        };
        let _ = self.stop.send(true);
        match tokio::time::timeout(GRACE + NOTICE, work).await {
            Err(_) => Within::Deaf,
            Ok(Ok(value)) => Within::Ended(Ok(value)),
            Ok(Err(Error::Stopped)) if timed_out => Within::TimedOut,
            Ok(Err(error)) => Within::Ended(Err(error)),
        }
    }
}

impl Names {
    fn hold(&self, text: &str, out: &Json) -> Result<bool, String> {
        let expression = crate::expression::Expression::parse(text).map_err(|wrong| format!("`{text}`: {}", wrong.says))?;
        let own = self.0.try_iter().into_iter().flatten().filter_map(|name| Some((name.to_string(), self.0.get_item(&name).ok()?)));
        let mut names: std::collections::BTreeMap<String, Value> = own.collect();
        names.insert("out".to_owned(), crate::expression::value(out));
        let names = Value::from_pairs(names);
        match expression.holds(&names) {
            Ok(Some(holds)) => Ok(holds),
            Ok(None) => Err(format!("`{text}` depends on what is not known")),
            Err(wrong) => Err(format!("`{text}`: {}", wrong.says)),
        }
    }
}

/// What is recorded of a failure.
pub(super) fn failed(error: &Error, redactor: &Redactor) -> Ended {
    let code = if let Error::Exit { code, .. } = error { *code } else { None };
    Ended::Failed { error: redactor.text(error.says()), passing: matches!(error, Error::Passing(_)), code, outputs: None }
}

/// When an attempt that ended so is tried again, in seconds of the epoch; nothing when it is not.
pub(super) fn again(run: &Run, id: Id, attempt: u32, how: &Ended) -> Option<f64> {
    let head = &run.text(id).head;
    let retry = head.retry.as_ref()?.get_ref();
    let worth = run.step(id).retry_on.iter().any(|on| match (on, how) {
        (RetryOn::Timeout, Ended::TimedOut { .. }) | (RetryOn::Failed, Ended::Failed { .. } | Ended::TimedOut { .. }) => true,
        (RetryOn::Passing, Ended::Failed { passing, .. }) => *passing,
        (RetryOn::Exit(wanted), Ended::Failed { code, .. }) => *code == Some(*wanted),
        _ => false,
    });
    if !worth || attempt >= retry.attempts || (!run.is_always(id) && (run.request.is_some() || !run.troubled().is_empty())) {
        return None;
    }
    let full = retry.delay.0.as_secs_f64() * retry.factor.powi(attempt as i32 - 1);
    let full = retry.max_delay.map_or(full, |most| full.min(most.0.as_secs_f64()));
    let delay = if retry.jitter { full * (0.5 + chance() / 2.0) } else { full };
    let now = crate::journal::now();
    if let Some(deadline) = head.deadline
        && let Some((began, _)) = run.units[id].began
        && seconds(now) + delay - seconds(began) >= deadline.0.as_secs_f64()
    {
        return None;
    }
    Some(seconds(now) + delay)
}

/// Between 0 and 1.
fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
