//! `Run`: the fold of a run's events, and what follows from them. `apply` is the only way anything changes; `next` says
//! what is to be done. Pure: unaware of files, clocks, programs and secrets. Iterates over the graph, never recurses.

mod fold;
mod names;
mod undo;
mod verdict;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use serde::Serialize;
use serde_json::{Value as Json, json};
use steps::step::{Answer, Question};

pub use names::locks;

use crate::{
    book::{OnFailure, StepText},
    event::{Event, Record, Request, Verdict},
    plan::{Action, Each, Plan, Step, param, settings},
};

/// Index of a [`Unit`].
pub type Id = usize;

/// What has become of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for other steps.
    Pending,
    /// It waits for people, or for its next attempt.
    Waiting,
    /// It runs.
    Running,
    /// It did what it should, at the first attempt.
    Succeeded,
    /// It did what it should, on another attempt or by hand.
    Recovered,
    /// It did not.
    Failed,
    /// Its `when` was false, or a person passed over it.
    Skipped,
    /// Something that it needs was not done.
    NotReached,
    /// It was ended on request.
    Cancelled,
    /// Nobody knows whether it happened.
    Unknown,
}

impl State {
    fn is_good(self) -> bool {
        matches!(self, Self::Succeeded | Self::Recovered)
    }
    fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Waiting | Self::Running)
    }
}

/// What has become of a step's undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Nothing to undo, or not undone.
    None,
    /// Its handler runs.
    #[serde(rename = "unknown")]
    Running,
    /// It is undone.
    Succeeded,
    /// Its handler failed, or a person has to undo it.
    Failed,
    /// Nobody knows whether its handler did it.
    Unknown,
}

/// What a unit consists of.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A step of some kind.
    Leaf,
    /// A `for_each` that knows its items: its children are `first..first + items`.
    Each {
        /// The items.
        items: Vec<Json>,
        /// The first child.
        first: Id,
    },
    /// A playbook that has been entered.
    Playbook {
        /// Its frame.
        frame: usize,
    },
}

/// One step of one run: of the playbook, of a playbook it uses, or of one item of a `for_each`.
#[derive(Debug)]
pub struct Unit {
    /// `backup`, `outer/inner`, `each[0]`.
    pub path: Arc<str>,
    /// Which playbook it is of.
    pub frame: usize,
    /// Which step of that playbook's plan.
    pub step: usize,
    /// Which item of the `for_each`, and whose.
    pub item: Option<(Id, usize)>,
    /// What it consists of.
    pub body: Body,
    /// What has become of it.
    pub state: State,
    /// What has become of its undo.
    pub undo: Undo,
    /// Whether an attempt has begun: then there may be something to undo.
    pub attempted: bool,
    /// Attempts that have begun or failed before they began.
    pub attempts: u32,
    /// What `look` saw.
    pub before: Option<Json>,
    /// What it gave.
    pub outputs: Option<Json>,
    /// Why it is not good; why it was skipped.
    pub error: Option<String>,
    /// What people are asked.
    pub question: Option<(Question, f64)>,
    /// What people answered.
    pub answers: Vec<Answer>,
    /// When it began, on the wall and since boot.
    pub began: Option<(jiff::Timestamp, f64)>,
    /// When it ended, on the wall and since boot.
    pub ended: Option<(jiff::Timestamp, f64)>,
    /// What has to be gone when the run has ended.
    pub creates: Vec<String>,
    waits: u32,
    open: u32,
    engaged: bool,
    undo_waits: u32,
    by_person: bool,
}

/// One playbook of a run: the root, or one that a step uses.
#[derive(Debug)]
pub struct Frame {
    /// What it does.
    pub plan: Arc<Plan>,
    /// The unit that uses it; none for the root.
    pub owner: Option<Id>,
    /// Its steps are the units `first..first + plan.steps.len()`.
    pub first: Id,
    /// Its params.
    pub params: Json,
    open: usize,
    always: bool,
    running: usize,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has happened.
    New,
    /// Steps are done.
    Forward,
    /// Steps are undone.
    Undo,
    /// `always` steps are done.
    Always,
    /// It has ended.
    Ended,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "acts are few and live for a moment")]
pub enum Act {
    /// Record what follows from what has happened.
    Record(Event),
    /// Attempt a step: `look` when there is no `before` yet, then `apply`.
    Attempt(Id),
    /// Ask a step's probe.
    Probe(Id),
    /// Undo a step.
    Undo(Id),
    /// End every attempt that runs.
    Interrupt,
    /// Nothing is left to do: the verdict.
    End,
}

/// The state of a run.
#[derive(Debug)]
pub struct Run {
    /// The run's first event.
    pub began: Option<Record>,
    /// Where the run is.
    pub phase: Phase,
    /// Why it waits for people.
    pub paused: Option<String>,
    /// Every step that has come to exist.
    pub units: Vec<Unit>,
    /// Every playbook that has been entered; the root first.
    pub frames: Vec<Frame>,
    /// What was asked of the whole run.
    pub request: Option<(Request, String)>,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// The sequence number and time of the last event.
    pub last: Option<(u64, jiff::Timestamp, f64)>,
    /// Whether somebody will answer while the run goes on.
    pub attended: bool,
    paths: HashMap<Arc<str>, Id>,
    ready: BTreeSet<Id>,
    delayed: Vec<(f64, Id)>,
    troubled: BTreeSet<Id>,
    asking: BTreeSet<Id>,
    closing: BTreeSet<Id>,
    probing: BTreeSet<Id>,
    running: usize,
    rolled_back: bool,
    stopped: bool,
    undo_ready: BTreeSet<Id>,
    left: Vec<(Id, String)>,
    home: String,
    people_s: f64,
    people_since: Option<f64>,
    rebooted: bool,
    interrupted: bool,
    plan: Arc<Plan>,
    params: Json,
}

impl Run {
    /// A run of this plan, before its first event. `home` is the folder of the run's record.
    pub fn new(plan: Arc<Plan>, home: String) -> Self {
        Self {
            began: None,
            phase: Phase::New,
            paused: None,
            units: Vec::new(),
            frames: Vec::new(),
            request: None,
            verdict: None,
            last: None,
            attended: false,
            paths: HashMap::new(),
            ready: BTreeSet::new(),
            delayed: Vec::new(),
            troubled: BTreeSet::new(),
            asking: BTreeSet::new(),
            closing: BTreeSet::new(),
            probing: BTreeSet::new(),
            running: 0,
            rolled_back: false,
            stopped: false,
            undo_ready: BTreeSet::new(),
            left: Vec::new(),
            home,
            people_s: 0.0,
            people_since: None,
            rebooted: false,
            interrupted: false,
            plan,
            params: Json::Null,
        }
    }
    /// The plan that it is a run of.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    /// What people call it.
    pub fn title(&self) -> &str {
        &self.plan.book.head.title
    }
    /// The unit of this path.
    pub fn unit(&self, path: &str) -> Option<Id> {
        self.paths.get(path).copied()
    }
    /// The plan's step of a unit.
    pub fn step(&self, id: Id) -> &Step {
        let unit = &self.units[id];
        &self.frames[unit.frame].plan.steps[unit.step]
    }
    /// How a unit's step was written.
    pub fn text(&self, id: Id) -> &StepText {
        let unit = &self.units[id];
        self.frames[unit.frame].plan.text(unit.step)
    }
    /// Whether a unit is, or is within, an `always` step.
    pub fn is_always(&self, id: Id) -> bool {
        let mut at = Some(id);
        while let Some(id) = at {
            if self.frames[self.units[id].frame].plan.is_always(self.units[id].step) {
                return true;
            }
            at = self.frames[self.units[id].frame].owner;
        }
        false
    }
    /// Steps, with the name of what they do, that were under way: after the death of a runner they are unknown.
    pub fn under_way(&self) -> Vec<(Id, String)> {
        let mut all = Vec::new();
        for (id, unit) in self.units.iter().enumerate() {
            if unit.state == State::Running && unit.body == Body::Leaf {
                all.push((id, unit.attempts.to_string()));
            }
            if unit.undo == Undo::Running {
                all.push((id, "undo".to_owned()));
            }
        }
        all
    }
    /// Steps that failed or are unknown, and about which nobody has decided.
    pub fn troubled(&self) -> Vec<Id> {
        self.troubled.iter().copied().collect()
    }
    /// Steps that wait for people's answer.
    pub fn asking(&self) -> Vec<Id> {
        self.asking.iter().copied().collect()
    }
    /// When something has to be looked at again, in seconds of the epoch.
    pub fn wake_at(&self) -> Option<f64> {
        let delays = self.delayed.iter().map(|(at, _)| *at);
        let expiries = self.asking.iter().filter_map(|id| self.expiry(*id));
        let timeout = self.time_up_at().filter(|_| self.phase == Phase::Forward && self.request.is_none());
        delays.chain(expiries).chain(timeout).min_by(f64::total_cmp)
    }
    fn expiry(&self, id: Id) -> Option<f64> {
        let (question, asked) = self.units[id].question.as_ref()?;
        question.expires_s.map(|s| asked + s)
    }
    fn time_up_at(&self) -> Option<f64> {
        let limit = self.plan.book.head.timeout?;
        Some(seconds(self.began.as_ref()?.at) + limit.0.as_secs_f64())
    }
    fn is_failing(&self) -> bool {
        !self.troubled.is_empty() || self.request.is_some()
    }
    /// Whether a pivot has succeeded: from there on there is only forward.
    pub fn past_pivot(&self) -> bool {
        self.units
            .iter()
            .any(|u| u.state.is_good() && self.frames[u.frame].plan.text(u.step).head.pivot.as_ref().is_some_and(|p| *p.get_ref()))
    }

    /// What is to be done now. Acts are given once; `now` is seconds of the epoch.
    pub fn next(&mut self, now: f64) -> Vec<Act> {
        if let Some(act) = self.expired(now) {
            return vec![act];
        }
        self.due(now);
        match self.phase {
            Phase::New | Phase::Ended => Vec::new(),
            Phase::Forward if !self.is_failing() => self.forward(),
            Phase::Forward => self.failing(),
            Phase::Undo => self.undoing(),
            Phase::Always => self.finishing(),
        }
    }

    fn expired(&mut self, now: f64) -> Option<Act> {
        let late = self.asking.iter().copied().find(|id| self.expiry(*id).is_some_and(|at| at <= now));
        if let Some(id) = late {
            return Some(Act::Record(Event::Expired { step: self.units[id].path.to_string() }));
        }
        let up = self.phase == Phase::Forward && self.request.is_none() && self.time_up_at().is_some_and(|at| at <= now);
        let reason = "the playbook's timeout is over".to_owned();
        up.then(|| Act::Record(Event::Requested { request: Request::Rollback, by: "timeout".into(), reason }))
    }

    fn due(&mut self, now: f64) {
        let (due, later): (Vec<_>, Vec<_>) = self.delayed.iter().partition(|(at, _)| *at <= now);
        self.delayed = later;
        self.ready.extend(due.into_iter().map(|(_, id)| id));
    }

    fn forward(&mut self) -> Vec<Act> {
        let acts = self.start_ready();
        if !acts.is_empty() || self.running > 0 || !self.delayed.is_empty() {
            return acts;
        }
        if self.frames[0].open == 0 {
            return vec![Act::Record(Event::AlwaysBegan)];
        }
        if self.asking.is_empty() || self.paused.is_some() || self.attended {
            return Vec::new();
        }
        let who: Vec<&str> = self.asking.iter().map(|id| &*self.units[*id].path).collect();
        vec![Act::Record(Event::Paused { why: format!("waiting for an answer to {}", who.join(", ")) })]
    }

    /// Starts what is ready, closes what is done, within the limits of `parallel`.
    fn start_ready(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        if let Some(id) = self.closing.pop_first() {
            return vec![Act::Record(self.close(id))];
        }
        while let Some(id) = self.probing.pop_first() {
            self.engage(id);
            acts.push(Act::Probe(id));
        }
        let mut full = Vec::new();
        while self.running < self.limit() {
            let Some(id) = self.ready.pop_first() else { break };
            if self.held_back(id) {
                full.push(id);
                continue;
            }
            match self.start(id) {
                Act::Attempt(id) => {
                    self.engage(id);
                    acts.push(Act::Attempt(id));
                }
                // What follows from the record has to be known before anything else is started.
                record => {
                    acts.push(record);
                    break;
                }
            }
        }
        self.ready.extend(full);
        acts
    }

    fn limit(&self) -> usize {
        self.plan.book.head.parallel.as_ref().map_or(4, |p| *p.get_ref() as usize)
    }

    /// Whether a limit of a `for_each`, or of a playbook within, lets a unit not start yet.
    fn held_back(&self, id: Id) -> bool {
        let mut at = id;
        loop {
            let unit = &self.units[at];
            if let Some((parent, _)) = unit.item {
                let head = &self.text(parent).head;
                let Body::Each { items, first } = &self.units[parent].body else { return false };
                let busy = || (*first..first + items.len()).filter(|child| *child != at && self.is_busy(*child)).count();
                if head.parallel.as_ref().is_some_and(|limit| busy() >= *limit.get_ref() as usize) {
                    return true;
                }
            }
            let frame = &self.frames[unit.frame];
            let Some(owner) = frame.owner else { return false };
            if frame.plan.book.head.parallel.as_ref().is_some_and(|limit| frame.running >= *limit.get_ref() as usize) {
                return true;
            }
            at = owner;
        }
    }

    fn is_busy(&self, id: Id) -> bool {
        self.units[id].engaged || matches!(self.units[id].state, State::Running | State::Waiting)
    }

    fn engage(&mut self, id: Id) {
        if !std::mem::replace(&mut self.units[id].engaged, true) {
            self.running += 1;
            let frame = self.units[id].frame;
            self.frames[frame].running += 1;
        }
    }

    fn release(&mut self, id: Id) {
        if std::mem::replace(&mut self.units[id].engaged, false) {
            self.running -= 1;
            let frame = self.units[id].frame;
            self.frames[frame].running -= 1;
        }
    }

    /// What a ready unit does first.
    fn start(&self, id: Id) -> Act {
        let (unit, step) = (&self.units[id], self.step(id));
        let path = unit.path.to_string();
        let expands = step.each.is_some() && unit.item.is_none();
        if unit.attempts == 0
            && !expands
            && let Some(when) = &step.when
        {
            match when.holds(&self.names(id, &when.references)) {
                Ok(Some(true)) => {}
                Ok(_) => return Act::Record(Event::Skipped { step: path, why: format!("`{}` is false", when.text()) }),
                Err(wrong) => return Act::Record(Event::Broke { step: path, error: format!("when: {}", wrong.says) }),
            }
        }
        if let Some(missing) = self.never_began(id) {
            return Act::Record(Event::Skipped { step: path, why: format!("`{missing}` never began: there is nothing to put back") });
        }
        if expands {
            return Act::Record(self.expand(id));
        }
        match &step.action {
            Action::Kind(_) => Act::Attempt(id),
            Action::Playbook(plan) => Act::Record(self.open(id, plan)),
        }
    }

    /// For an `always` step: a step that it reads and that never began.
    fn never_began(&self, id: Id) -> Option<&str> {
        let frame = &self.frames[self.units[id].frame];
        let missing = |on: &&usize| {
            !self.units[frame.first + **on].attempted
                && !matches!(self.units[frame.first + **on].body, Body::Each { .. } | Body::Playbook { .. })
        };
        self.step(id).reads.iter().find(missing).map(|on| &*frame.plan.steps[*on].id)
    }

    fn expand(&self, id: Id) -> Event {
        let (step, path) = (self.step(id), self.units[id].path.to_string());
        let items = match &step.each {
            None => Vec::new(),
            Some(Each::Items(items)) => items.clone(),
            Some(Each::Expression(expression)) => match expression.eval(&self.names(id, &expression.references)) {
                Ok(Some(value)) => match serde_json::to_value(&value) {
                    Ok(Json::Array(items)) => items,
                    _ => return Event::Broke { step: path, error: format!("`{}` gives no list to go through", expression.text()) },
                },
                Ok(None) => Vec::new(),
                Err(wrong) => return Event::Broke { step: path, error: format!("for_each: {}", wrong.says) },
            },
        };
        if !items.is_empty() {
            return Event::Expanded { step: path, items };
        }
        if step.verifies {
            return Event::Broke { step: path, error: "there was nothing to verify: `for_each` gave no items".into() };
        }
        Event::Skipped { step: path, why: "`for_each` gave no items".into() }
    }

    fn open(&self, id: Id, plan: &Plan) -> Event {
        let path = self.units[id].path.to_string();
        match self.playbook_params(id, plan) {
            Ok(params) => Event::Opened { step: path, params },
            Err(error) => Event::Broke { step: path, error },
        }
    }

    /// The params given to a playbook, without those that are secret.
    fn playbook_params(&self, id: Id, plan: &Plan) -> Result<Json, String> {
        let mut with = self.text(id).with.clone();
        let secret = |name: &str| plan.book.params.iter().any(|(n, p)| n.name == name && p.kind == crate::book::Type::Secret);
        if let crate::book::Tree::Table(entries) = &mut with.value {
            entries.retain(|(name, _)| !secret(&name.name));
        }
        let references = settings::references(&with, &plan.params);
        let rendered = settings::render(&with, &plan.params, &self.names(id, &references)).map_err(|(_, says, _)| says)?;
        let mut params = serde_json::Map::new();
        for (name, param) in plan.book.params.iter().filter(|(name, _)| !secret(&name.name)) {
            let given = rendered.value.get(&name.name).cloned().or_else(|| param.default.as_ref().map(|d| crate::book::json(d.get_ref())));
            match given {
                Some(value) => {
                    params.insert(name.name.clone(), param::coerce(param, &value).map_err(|says| format!("{}: {says}", name.name))?)
                }
                None if param.optional => params.insert(name.name.clone(), Json::Null),
                None => return Err(format!("the param `{}` is not given", name.name)),
            };
        }
        Ok(Json::Object(params))
    }

    /// The end of a `for_each` or a playbook all of whose steps have settled.
    fn close(&self, id: Id) -> Event {
        let step = self.units[id].path.to_string();
        match &self.units[id].body {
            Body::Each { items, first } => {
                let children = &self.units[*first..first + items.len()];
                if children.iter().all(|c| !c.state.is_good()) {
                    return Event::Skipped { step, why: "every item was skipped".into() };
                }
                let outputs: Vec<Json> = children.iter().map(|c| c.outputs.clone().unwrap_or(Json::Null)).collect();
                Event::Closed { step, outputs: json!({ "count": outputs.len(), "items": outputs }) }
            }
            Body::Playbook { frame } => match self.playbook_outputs(*frame) {
                Ok(outputs) => match self.unmet(id, &outputs) {
                    None => Event::Closed { step, outputs },
                    Some(error) => Event::Broke { step, error },
                },
                Err(error) => Event::Broke { step, error },
            },
            Body::Leaf => Event::Broke { step, error: "BUG: a plain step has nothing to close".into() },
        }
    }

    /// The first expectation that does not hold of a step's outputs, with the values it was about.
    pub fn unmet(&self, id: Id, outputs: &Json) -> Option<String> {
        let step = self.step(id);
        step.expect.iter().find_map(|expect| {
            let own = [("out", crate::expression::value(outputs))];
            match expect.holds(&self.values(id, &expect.references, &own)) {
                Ok(Some(true)) => None,
                Ok(_) => {
                    let seen = expect.seen(&self.values(id, &expect.references, &own));
                    Some(format!("expected `{}`, but {seen}", expect.text()))
                }
                Err(wrong) => Some(format!("expected `{}`, but {}", expect.text(), wrong.says)),
            }
        })
    }

    fn failing(&mut self) -> Vec<Act> {
        let cancelled = matches!(self.request, Some((Request::Cancel, _))) || self.request.as_ref().is_some_and(|(_, by)| by == "timeout");
        if self.running > 0 {
            let first = cancelled && !std::mem::replace(&mut self.interrupted, true);
            return if first { vec![Act::Interrupt] } else { Vec::new() };
        }
        self.interrupted = false;
        let unknown = self.troubled.iter().any(|id| self.units[*id].state == State::Unknown);
        let policy = match &self.request {
            Some((Request::Stop, _)) => OnFailure::Stop,
            Some(_) if self.past_pivot() => OnFailure::Stop,
            Some(_) => OnFailure::Rollback,
            None if unknown || self.past_pivot() => OnFailure::Pause,
            None => self.plan.book.head.on_failure.unwrap_or_default(),
        };
        let why = || match (&self.request, self.troubled.first()) {
            (Some((request, by)), _) => format!("{} by {by}", json!(request).as_str().unwrap_or_default()),
            (None, Some(id)) => format!("`{}` {}", self.units[*id].path, if unknown { "is unknown" } else { "failed" }),
            (None, None) => String::new(),
        };
        match policy {
            OnFailure::Rollback => vec![Act::Record(Event::RollbackBegan { why: why() })],
            OnFailure::Stop => vec![Act::Record(Event::AlwaysBegan)],
            OnFailure::Pause if self.paused.is_some() => Vec::new(),
            OnFailure::Pause => vec![Act::Record(Event::Paused { why: why() })],
        }
    }

    fn finishing(&mut self) -> Vec<Act> {
        let acts = self.start_ready();
        if !acts.is_empty() || self.running > 0 || !self.delayed.is_empty() {
            return acts;
        }
        let waiting =
            !self.asking.is_empty() || self.troubled.iter().any(|id| self.units[*id].state == State::Unknown && self.is_always(*id));
        match waiting {
            false => vec![Act::End],
            true if self.paused.is_some() || (self.attended && !self.asking.is_empty()) => Vec::new(),
            true => vec![Act::Record(Event::Paused { why: "an `always` step waits for a person".into() })],
        }
    }
}

/// Seconds of the epoch.
pub fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}
