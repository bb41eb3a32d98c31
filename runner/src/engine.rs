//! The only async loop: what is next → do it → record → apply. It holds the run's journal and doors; what follows from
//! what has happened is the run's to say, and showing it is the observer's.

mod attempt;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use minijinja::Value;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use steps::{
    step::{Error, Reversal},
    world::View,
};
use tokio::sync::{mpsc, watch};

use crate::{
    event::{Decision, Ended, Event, Record, Request, Verdict},
    journal::{Fault, Journal},
    run::{Act, Id, Phase, Run, seconds},
    secret::Secrets,
    store::{Held, RunFolder},
};
use attempt::{Done, Rendered};

/// How far running steps are: done, total (0 when unknown), unit.
pub type Progress = Arc<Mutex<HashMap<Id, (u64, u64, &'static str)>>>;

/// Sees everything that happens, as it becomes durable.
pub trait Observer {
    /// An event is on disk, and the run is what it made of it.
    fn recorded(&mut self, record: &Record, run: &Run);
    /// Some time has gone by.
    fn tick(&mut self, run: &Run, progress: &Progress);
}

/// What a person tells a run that goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "snake_case")]
pub enum Tell {
    /// A decision about a step.
    Decide {
        /// Which step.
        step: String,
        /// What.
        decision: Decision,
        /// Who.
        by: String,
        /// In which role.
        role: Option<String>,
        /// Why.
        reason: String,
    },
    /// A request to the whole run.
    Request {
        /// What.
        request: Request,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

/// How driving a run ended.
pub enum Outcome {
    /// It has a verdict.
    Ended(Verdict),
    /// It waits for people.
    Paused(String),
}

/// Drives one run.
pub struct Engine<'o> {
    /// The run.
    pub run: Run,
    /// Its journal.
    pub journal: Journal,
    /// Its folder.
    pub folder: RunFolder,
    /// The door through which steps look.
    pub view: View,
    /// What sees everything.
    pub observer: &'o mut dyn Observer,
    /// What people tell the run.
    pub told: mpsc::UnboundedReceiver<Tell>,
    secrets: Secrets,
    directory: PathBuf,
    running: HashMap<Id, watch::Sender<bool>>,
    inputs: mpsc::UnboundedReceiver<Done>,
    done: mpsc::UnboundedSender<Done>,
    group: Vec<Record>,
    starts: Vec<Start>,
    progress: Progress,
    cancels: u8,
    _held: Held,
}

/// Something to begin once what announces it is on disk.
struct Start {
    id: Id,
    work: attempt::Work,
    limit: Option<Duration>,
}

/// What an engine is made of.
pub struct Parts<'o> {
    /// The run, with every event of the journal applied.
    pub run: Run,
    /// Its journal.
    pub journal: Journal,
    /// Its folder.
    pub folder: RunFolder,
    /// What keeps other runners out.
    pub held: Held,
    /// The door through which steps look.
    pub view: View,
    /// What relative paths start from.
    pub directory: PathBuf,
    /// What sees everything.
    pub observer: &'o mut dyn Observer,
    /// What people tell the run.
    pub told: mpsc::UnboundedReceiver<Tell>,
}

impl<'o> Engine<'o> {
    /// An engine for a run.
    pub fn new(parts: Parts<'o>) -> Self {
        let Parts { run, journal, folder, held, view, directory, observer, told } = parts;
        let (done, inputs) = mpsc::unbounded_channel();
        Self {
            run,
            journal,
            folder,
            view,
            observer,
            told,
            secrets: Secrets::default(),
            directory,
            running: HashMap::new(),
            inputs,
            done,
            group: Vec::new(),
            starts: Vec::new(),
            progress: Progress::default(),
            cancels: 0,
            _held: held,
        }
    }

    /// Takes an event in; it is on disk before anything that it announces begins.
    pub fn take(&mut self, event: Event) -> Result<(), Fault> {
        let record = self.journal.stamp(event);
        self.run.apply(&record).map_err(|says| Fault::Corrupt(format!("BUG: {says}")))?;
        self.group.push(record);
        Ok(())
    }

    /// Drives the run until it has ended or waits for people.
    pub async fn drive(mut self) -> Result<Outcome, Fault> {
        let mut interrupts =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map_err(|e| Fault::Broken(e.to_string()))?;
        let mut terminates =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(|e| Fault::Broken(e.to_string()))?;
        let mut hangups =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).map_err(|e| Fault::Broken(e.to_string()))?;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.decide()?;
            self.record().await?;
            if self.run.phase == Phase::Ended
                && let Some(verdict) = &self.run.verdict
            {
                return Ok(Outcome::Ended(verdict.clone()));
            }
            self.begin();
            if let (Some(why), false, true) = (&self.run.paused, self.run.attended, self.running.is_empty()) {
                return Ok(Outcome::Paused(why.clone()));
            }
            let wake = self
                .run
                .wake_at()
                .map_or(Duration::from_secs(3600), |at| Duration::from_secs_f64((at - seconds(crate::journal::now())).clamp(0.0, 3600.0)));
            tokio::select! {
                biased;
                Some(done) = self.inputs.recv() => self.finished(done)?,
                _ = interrupts.recv() => self.interrupted("Ctrl-C")?,
                _ = terminates.recv() => self.interrupted("SIGTERM")?,
                _ = hangups.recv() => self.interrupted("SIGHUP")?,
                Some(tell) = self.told.recv() => drop(self.tell(tell)?),
                _ = tick.tick() => {
                    self.observer.tick(&self.run, &self.progress);
                    self.read_inbox()?;
                }
                () = tokio::time::sleep(wake) => {}
            }
            while let Ok(done) = self.inputs.try_recv() {
                self.finished(done)?;
            }
        }
    }

    /// Does what follows from what has happened, until something has to become durable or to be waited for.
    fn decide(&mut self) -> Result<(), Fault> {
        loop {
            let acts = self.run.next(seconds(crate::journal::now()));
            if acts.is_empty() {
                return Ok(());
            }
            for act in acts {
                match act {
                    Act::Record(event) => self.take(event)?,
                    Act::Attempt(id) => self.prepare(id)?,
                    Act::Probe(id) => self.prepare_probe(id)?,
                    Act::Undo(id) => self.prepare_undo(id)?,
                    Act::Interrupt => self.running.values().for_each(|stop| {
                        let _ = stop.send(true);
                    }),
                    Act::End => {
                        let verdict = self.run.judge(&self.still_there());
                        self.take(Event::RunEnded { verdict })?;
                    }
                }
            }
        }
    }

    async fn record(&mut self) -> Result<(), Fault> {
        if self.group.is_empty() {
            return Ok(());
        }
        let group = std::mem::take(&mut self.group);
        self.journal.write(group.clone()).await?;
        for record in &group {
            tracing::debug!(seq = record.seq, group = record.group, event = ?record.event, "recorded");
            self.observer.recorded(record, &self.run);
        }
        Ok(())
    }

    fn begin(&mut self) {
        for start in std::mem::take(&mut self.starts) {
            let (stop, stopped) = watch::channel(false);
            self.running.insert(start.id, stop.clone());
            let context = attempt::Context {
                id: start.id,
                view: self.view.clone(),
                redactor: self.secrets.redactor(),
                progress: self.progress.clone(),
                stop,
                stopped,
                limit: start.limit,
            };
            let done = self.done.clone();
            tokio::spawn(async move {
                let _ = done.send(attempt::perform(context, start.work).await);
            });
        }
    }

    /// Renders and reads a step, looks, and announces its attempt.
    fn prepare(&mut self, id: Id) -> Result<(), Fault> {
        let text = self.run.text(id);
        let rendered = match self.render(id, text.head.uses.get_ref().clone(), text.with.clone(), &[]) {
            Ok(rendered) => rendered,
            Err(error) => return self.failed_early(id, Error::Final(error)),
        };
        if let Some(question) = rendered.step.question()
            && (self.run.units[id].answers.len() as u32) < question.count
        {
            return self.take(Event::Asked { step: self.path(id), question });
        }
        if let Some(before) = self.run.units[id].before.clone() {
            return self.announce(id, rendered, before, false);
        }
        // Most looks need no waiting: then the announcement joins the group that is being written.
        let view = self.view.clone();
        let mut look = Box::pin(async move {
            let before = rendered.step.look(&view).await;
            (rendered, before)
        });
        let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
        match look.as_mut().poll(&mut waker) {
            std::task::Poll::Ready((rendered, before)) => self.looked(id, rendered, before),
            std::task::Poll::Pending => {
                let done = self.done.clone();
                tokio::spawn(async move {
                    let (rendered, before) = look.await;
                    let _ = done.send(Done::Looked { id, rendered, before });
                });
                Ok(())
            }
        }
    }

    fn looked(&mut self, id: Id, rendered: Rendered, before: Result<Json, Error>) -> Result<(), Fault> {
        match before {
            Ok(mut before) => {
                self.secrets.redactor().value(&mut before);
                self.announce(id, rendered, before, true)
            }
            Err(error) => self.failed_early(id, error),
        }
    }

    fn announce(&mut self, id: Id, rendered: Rendered, before: Json, first: bool) -> Result<(), Fault> {
        let attempt = self.run.units[id].attempts + 1;
        let creates = match self.creates(id) {
            Ok(creates) => creates,
            Err(error) => return self.failed_early(id, Error::Final(error)),
        };
        let head = &self.run.text(id).head;
        let left = head.deadline.map(|deadline| {
            let spent = self.run.units[id].began.map_or(0.0, |(_, up)| crate::journal::up() - up);
            Duration::from_secs_f64((deadline.0.as_secs_f64() - spent).max(0.001))
        });
        let limit = [head.timeout.map(|t| t.0), left].into_iter().flatten().min();
        let (path, output) = (self.path(id), self.folder.output(&self.path(id), &attempt.to_string()));
        self.take(Event::Began { step: path, attempt, before: first.then(|| before.clone()), creates })?;
        let answers = self.run.units[id].answers.clone();
        self.starts.push(Start {
            id,
            work: attempt::Work::Apply { step: rendered.step, before, attempt, answers, output, holds: rendered.names },
            limit,
        });
        Ok(())
    }

    /// A step that failed before its attempt began: nothing to undo.
    fn failed_early(&mut self, id: Id, error: Error) -> Result<(), Fault> {
        let attempt = self.run.units[id].attempts + 1;
        self.ended(id, attempt, attempt::failed(&error, &self.secrets.redactor()), Vec::new())
    }

    fn ended(&mut self, id: Id, attempt: u32, how: Ended, captured: Vec<steps::process::Captured>) -> Result<(), Fault> {
        let again_at = attempt::again(&self.run, id, attempt, &how);
        self.take(Event::Ended { step: self.path(id), attempt, how, captured, again_at })
    }

    fn prepare_probe(&mut self, id: Id) -> Result<(), Fault> {
        let Some(probe) = &self.run.text(id).probe else {
            return self.take(Event::Probed { step: self.path(id), happened: None, outputs: None });
        };
        let own = [("before", crate::expression::value(&self.run.units[id].before))];
        let limit = probe.head.timeout.map(|t| t.0);
        match self.render(id, probe.head.uses.get_ref().clone(), probe.with.clone(), &own) {
            Ok(rendered) => {
                let output = self.folder.output(&self.path(id), "probe");
                self.starts.push(Start { id, work: attempt::Work::Probe { step: rendered.step, output, holds: rendered.names }, limit });
                Ok(())
            }
            Err(_) => self.take(Event::Probed { step: self.path(id), happened: None, outputs: None }),
        }
    }

    fn prepare_undo(&mut self, id: Id) -> Result<(), Fault> {
        let text = self.run.text(id);
        let own = [("before", crate::expression::value(&self.run.units[id].before))];
        let (uses, with, limit) = match &text.rollback {
            Some(handler) => (handler.head.uses.get_ref().clone(), handler.with.clone(), handler.head.timeout.map(|t| t.0)),
            None => (text.head.uses.get_ref().clone(), text.with.clone(), None),
        };
        let own_undo = text.rollback.is_none();
        self.take(Event::UndoBegan { step: self.path(id) })?;
        match self.render(id, uses, with, &own) {
            Ok(rendered) if own_undo && matches!(rendered.step.reversal(), Reversal::Nothing) => {
                self.take(Event::UndoEnded { step: self.path(id), error: None })
            }
            Ok(rendered) => {
                let before = own_undo.then(|| self.run.units[id].before.clone()).flatten();
                let output = self.folder.output(&self.path(id), "undo");
                self.starts.push(Start {
                    id,
                    work: attempt::Work::Undo { step: rendered.step, before, output, holds: rendered.names },
                    limit,
                });
                Ok(())
            }
            Err(error) => self.take(Event::UndoEnded { step: self.path(id), error: Some(error) }),
        }
    }

    /// Takes in what has ended.
    fn finished(&mut self, done: Done) -> Result<(), Fault> {
        match done {
            Done::Looked { id, rendered, before } => self.looked(id, rendered, before),
            Done::Applied { id, attempt, how, captured } => {
                self.gone(id);
                let how = match how {
                    Ended::Succeeded { outputs } => match self.run.unmet(id, &outputs) {
                        None => Ended::Succeeded { outputs },
                        Some(error) => Ended::Failed { error, passing: false, code: None, outputs: Some(outputs) },
                    },
                    how => how,
                };
                self.ended(id, attempt, how, captured)
            }
            Done::Probed { id, happened, outputs } => {
                self.gone(id);
                self.take(Event::Probed { step: self.path(id), happened, outputs })
            }
            Done::Undone { id, error } => {
                self.gone(id);
                self.take(Event::UndoEnded { step: self.path(id), error })
            }
        }
    }

    fn gone(&mut self, id: Id) {
        self.running.remove(&id);
        if let Ok(mut progress) = self.progress.lock() {
            progress.remove(&id);
        }
    }

    fn interrupted(&mut self, by: &str) -> Result<(), Fault> {
        if self.run.phase == Phase::Always || self.cancels >= 2 {
            return Ok(());
        }
        self.cancels += 1;
        let reason = if self.cancels == 1 { "asked to stop" } else { "asked again: after the current handler" };
        self.take(Event::Requested { request: Request::Cancel, by: by.to_owned(), reason: reason.to_owned() })
    }

    /// Takes in what a person says. Gives why it is refused, if it is.
    pub fn tell(&mut self, tell: Tell) -> Result<Option<String>, Fault> {
        match tell {
            Tell::Decide { step, decision, by, role, reason } => {
                let Some(id) = self.run.unit(&step) else { return Ok(Some(format!("there is no step `{step}` in this run"))) };
                if let Err(says) = self.run.may_decide(id, decision, &by, role.as_deref()) {
                    return Ok(Some(says));
                }
                self.take(Event::Decided { step, decision, by, role, reason })?;
            }
            Tell::Request { request: Request::Rollback, .. } if self.run.past_pivot() => {
                return Ok(Some("a pivot has succeeded: from there on there is only forward".into()));
            }
            Tell::Request { request, by, reason } => self.take(Event::Requested { request, by, reason })?,
        }
        Ok(None)
    }

    fn read_inbox(&mut self) -> Result<(), Fault> {
        let Ok(entries) = std::fs::read_dir(self.folder.inbox()) else { return Ok(()) };
        let mut files: Vec<PathBuf> =
            entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
        files.sort();
        for file in files {
            let told = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let answer = match told {
                Some(tell) => self.tell(tell)?.unwrap_or_default(),
                None => "it cannot be read".to_owned(),
            };
            let _ = std::fs::remove_file(&file);
            let _ = std::fs::write(file.with_extension("answer"), answer);
        }
        Ok(())
    }

    fn still_there(&self) -> Vec<String> {
        let things = self.run.units.iter().flat_map(|unit| &unit.creates);
        let there =
            |thing: &&String| thing.strip_prefix("path:").is_some_and(|path| self.view.symlink_metadata(path).is_ok_and(|m| m.is_some()));
        things.filter(there).map(|thing| thing.trim_start_matches("path:").to_owned()).collect()
    }

    fn path(&self, id: Id) -> String {
        self.run.units[id].path.to_string()
    }

    fn creates(&mut self, id: Id) -> Result<Vec<String>, String> {
        let things: Vec<String> = self.run.text(id).head.creates.iter().map(|thing| thing.get_ref().clone()).collect();
        let mut rendered = Vec::new();
        for thing in things {
            let template = crate::expression::Template::parse(&thing).map_err(|wrong| wrong.says)?;
            let value = template.render(&self.run.names(id, &template.references())).map_err(|wrong| wrong.says)?;
            rendered.extend(value.as_ref().and_then(Json::as_str).map(str::to_owned));
        }
        Ok(rendered)
    }

    /// Renders settings, with secrets where they are used, and reads them.
    fn render(&mut self, id: Id, uses: String, with: crate::book::Node, own: &[(&str, Value)]) -> Result<Rendered, String> {
        let facets = crate::plan::KINDS.get(uses.as_str()).ok_or_else(|| format!("there is no kind `{uses}`"))?;
        let references = crate::plan::settings::references(&with, &facets.settings);
        let seen = attempt::Names(self.run.values(id, &references, own));
        let frame = self.run.units[id].frame;
        let mut own: Vec<(&str, Value)> = own.to_vec();
        if references.iter().any(|r| r.path[0] == "secrets") {
            own.push(("secrets", self.secret_values(frame, &references)?));
        }
        let mut names = self.run.values(id, &references, &own);
        if let Some(params) = self.secret_params(frame, &references)? {
            own.push(("params", params));
            names = self.run.values(id, &references, &own);
        }
        let rendered =
            crate::plan::settings::render(&with, &facets.settings, &names).map_err(|(at, says, _)| self.at(frame, at.start, &says))?;
        let step = (facets.kind.read)(rendered.value).map_err(|refused| {
            let (at, _) = crate::plan::settings::place_of(&with, &refused.path);
            self.at(frame, at.start, &refused.says)
        })?;
        Ok(Rendered { step, names: seen })
    }

    /// A sentence with its line in the playbook.
    fn at(&self, frame: usize, byte: usize, says: &str) -> String {
        let source = &self.run.frames[frame].plan.book.source;
        let line = source.text[..byte.min(source.text.len())].matches('\n').count() + 1;
        self.secrets.redactor().text(&format!("{says} ({}, line {line})", source.name))
    }

    fn secret_values(&mut self, frame: usize, references: &[crate::expression::Reference]) -> Result<Value, String> {
        let plan = self.run.frames[frame].plan.clone();
        let mut values = std::collections::BTreeMap::new();
        for reference in references.iter().filter(|r| r.path[0] == "secrets") {
            let Some(name) = reference.path.get(1) else { continue };
            if let Some((_, secret)) = plan.book.secrets.iter().find(|(n, _)| n.name == *name) {
                values.insert(name.clone(), Value::from(self.secrets.get(secret.from.get_ref(), &self.directory)?));
            }
        }
        Ok(Value::from_pairs(values))
    }

    /// Params of a sub-playbook with its secret ones, which come from the playbook that uses it.
    fn secret_params(&mut self, frame: usize, references: &[crate::expression::Reference]) -> Result<Option<Value>, String> {
        let plan = self.run.frames[frame].plan.clone();
        let secret = |name: &str| plan.book.params.iter().any(|(n, p)| n.name == name && p.kind == crate::book::Type::Secret);
        let used: Vec<String> =
            references.iter().filter(|r| r.path[0] == "params").filter_map(|r| r.path.get(1).cloned()).filter(|n| secret(n)).collect();
        if used.is_empty() {
            return Ok(None);
        }
        let mut params = self.run.frames[frame].params.as_object().cloned().unwrap_or_default();
        let owner = self.run.frames[frame].owner.ok_or("a param of type `secret` is given by the playbook that uses this one")?;
        let outer = self.run.units[owner].frame;
        for name in used {
            let crate::book::Tree::Table(given) = &self.run.text(owner).with.value else { continue };
            let Some(node) = given.iter().find(|(key, _)| key.name == name).map(|(_, node)| node.clone()) else { continue };
            let schema = serde_json::json!({ "type": "string", "format": "password" });
            let references = crate::plan::settings::references(&node, &schema);
            let mut own = vec![("secrets", self.secret_values(outer, &references)?)];
            if let Some(outer_params) = self.secret_params(outer, &references)? {
                own.push(("params", outer_params));
            }
            let names = self.run.values(owner, &references, &own);
            let rendered = crate::plan::settings::render(&node, &schema, &names).map_err(|(_, says, _)| says)?;
            params.insert(name, rendered.value);
        }
        Ok(Some(crate::expression::value(params)))
    }
}
