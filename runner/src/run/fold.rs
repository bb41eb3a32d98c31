//! The fold: what each event does to the run. Every change of a run is here or, for undoing, in `undo`.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value as Json, json};
use steps::step::Answer;

use super::{Body, Frame, Id, Phase, Run, State, Undo, Unit, seconds};
use crate::{
    book::OnUnknown,
    event::{Decision, Ended, Event, Record, Request},
    plan::{Action, Plan},
};

impl Run {
    /// Takes an event in. Errors: it cannot follow what has happened; the journal is not to be trusted.
    pub fn apply(&mut self, record: &Record) -> Result<(), String> {
        let first = matches!(record.event, Event::RunBegan { .. });
        if first != self.began.is_none() {
            return Err("a run begins once, at first".into());
        }
        if self.phase == Phase::Ended && !matches!(record.event, Event::Requested { .. } | Event::RunResumed { .. }) {
            return Err("nothing follows the end of a run".into());
        }
        self.last = Some((record.seq, record.at, record.up));
        let at = (record.at, record.up);
        if let Some(step) = record.event.step() {
            self.taken_up(step)?;
        }
        match &record.event {
            Event::RunBegan { params, .. } => self.begin(record, params),
            Event::RunResumed { boot, .. } => {
                self.rebooted |=
                    self.began.as_ref().is_some_and(|r| matches!(&r.event, Event::RunBegan { boot: first, .. } if first != boot));
                self.resumed();
            }
            Event::Skipped { step, why } => {
                let id = self.known(step)?;
                self.units[id].error = Some(why.clone());
                self.settle(id, State::Skipped, at);
            }
            Event::Expanded { step, items } => self.expanded(step, items, at)?,
            Event::Opened { step, params } => self.opened(step, params, at)?,
            Event::Closed { step, outputs } => self.closed(step, outputs, at)?,
            Event::Broke { step, error } => {
                let id = self.known(step)?;
                self.release(id);
                self.fail(id, error.clone(), at);
            }
            Event::Began { step, attempt, before, creates } => self.attempt(step, *attempt, before.as_ref(), creates, at)?,
            Event::Ended { step, attempt, how, again_at, .. } => self.attempted(step, *attempt, how, *again_at, at)?,
            Event::Asked { step, question } => {
                let id = self.known(step)?;
                self.release(id);
                self.units[id].state = State::Waiting;
                self.units[id].began.get_or_insert(at);
                self.units[id].question = Some((question.clone(), seconds(record.at)));
                self.asking.insert(id);
            }
            Event::Expired { step } => {
                let id = self.known(step)?;
                self.fail(id, "nobody answered in time, which counts as no".into(), at);
            }
            Event::Decided { step, decision, by, role, reason } => self.decided(step, *decision, (by, role.as_deref()), reason, at)?,
            Event::Probed { step, happened, outputs } => self.probed(step, *happened, outputs.as_ref(), at)?,
            Event::Requested { request, by, .. } => self.requested(*request, by)?,
            Event::Paused { why } => self.paused = Some(why.clone()),
            Event::RollbackBegan { .. } => self.begin_undo(at),
            Event::UndoBegan { step } => self.undo_began(step)?,
            Event::UndoEnded { step, error } => self.undo_ended(step, error.as_deref())?,
            Event::UndoLeft { step, by_hand } => self.undo_left(step, by_hand)?,
            Event::AlwaysBegan => self.begin_always(at),
            Event::RunEnded { verdict } => {
                self.leave_forward(at);
                self.phase = Phase::Ended;
                self.paused = None;
                self.verdict = Some(verdict.clone());
            }
        }
        self.count_people(seconds(record.at));
        Ok(())
    }

    /// Keeps the time for which the run waits for people.
    pub(super) fn count_people(&mut self, now: f64) {
        let waits = self.phase != Phase::Ended && (self.paused.is_some() || !self.asking.is_empty());
        match (waits, self.people_since) {
            (true, None) => self.people_since = Some(now),
            (false, Some(since)) => {
                self.people_s += now - since;
                self.people_since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// What is recorded of a step answers whatever it was waiting for, also when the record is read again.
    pub(super) fn taken_up(&mut self, step: &str) -> Result<(), String> {
        let id = self.known(step)?;
        self.ready.remove(&id);
        self.closing.remove(&id);
        self.probing.remove(&id);
        self.undo_ready.remove(&id);
        self.delayed.retain(|(_, delayed)| *delayed != id);
        Ok(())
    }

    pub(super) fn known(&self, step: &str) -> Result<Id, String> {
        self.unit(step).ok_or_else(|| format!("there is no step `{step}` in this run"))
    }

    pub(super) fn begin(&mut self, record: &Record, params: &Json) {
        self.began = Some(record.clone());
        self.phase = Phase::Forward;
        self.params = params.clone();
        self.enter(self.plan.clone(), None, params.clone(), "");
    }

    /// Makes the units of a playbook; those that wait for nothing are ready.
    pub(super) fn enter(&mut self, plan: Arc<Plan>, owner: Option<Id>, params: Json, prefix: &str) -> usize {
        let (frame, first) = (self.frames.len(), self.units.len());
        for (at, step) in plan.steps.iter().enumerate() {
            let path = if prefix.is_empty() { step.id.clone() } else { format!("{prefix}/{}", step.id).into() };
            let id = self.push(path, frame, at, None, (step.needs.len() + step.after.len()) as u32);
            if self.units[id].waits == 0 && at < plan.forward {
                self.ready.insert(id);
            }
        }
        self.frames.push(Frame { open: plan.forward, plan, owner, first, params, always: false, running: 0 });
        frame
    }

    pub(super) fn push(&mut self, path: Arc<str>, frame: usize, step: usize, item: Option<(Id, usize)>, waits: u32) -> Id {
        let id = self.units.len();
        self.paths.insert(path.clone(), id);
        self.units.push(Unit {
            path,
            frame,
            step,
            item,
            body: Body::Leaf,
            state: State::Pending,
            undo: Undo::None,
            attempted: false,
            attempts: 0,
            before: None,
            outputs: None,
            error: None,
            question: None,
            answers: Vec::new(),
            began: None,
            ended: None,
            creates: Vec::new(),
            waits,
            open: 0,
            engaged: false,
            undo_waits: 0,
            by_person: false,
        });
        id
    }

    /// What ran when the runner died is unknown.
    pub(super) fn resumed(&mut self) {
        self.paused = None;
        for id in 0..self.units.len() {
            self.release(id);
            if self.units[id].state == State::Running && self.units[id].body == Body::Leaf {
                self.unknown(id);
            }
            if self.units[id].undo == Undo::Running {
                self.undo_unknown(id);
            }
        }
    }

    pub(super) fn unknown(&mut self, id: Id) {
        self.release(id);
        match self.step(id).on_unknown {
            OnUnknown::Rerun => {
                self.units[id].state = State::Waiting;
                self.ready.insert(id);
            }
            OnUnknown::Probe => {
                self.units[id].state = State::Unknown;
                self.probing.insert(id);
            }
            OnUnknown::Ask => {
                self.units[id].state = State::Unknown;
                self.units[id].error = Some("nobody knows whether it happened".into());
                self.troubled.insert(id);
            }
            OnUnknown::Fail => {
                let at = self.last.map_or((jiff::Timestamp::UNIX_EPOCH, 0.0), |(_, at, up)| (at, up));
                self.fail(id, "nobody knows whether it happened, which counts as failed".into(), at);
            }
        }
    }

    pub(super) fn expanded(&mut self, step: &str, items: &[Json], at: (jiff::Timestamp, f64)) -> Result<(), String> {
        let id = self.known(step)?;
        let first = self.units.len();
        let (frame, of) = (self.units[id].frame, self.units[id].step);
        for index in 0..items.len() {
            let child = self.push(format!("{step}[{index}]").into(), frame, of, Some((id, index)), 0);
            self.ready.insert(child);
        }
        let unit = &mut self.units[id];
        (unit.body, unit.open) = (Body::Each { items: items.to_vec(), first }, items.len() as u32);
        (unit.state, unit.began) = (State::Running, Some(at));
        Ok(())
    }

    pub(super) fn opened(&mut self, step: &str, params: &Json, at: (jiff::Timestamp, f64)) -> Result<(), String> {
        let id = self.known(step)?;
        let Action::Playbook(plan) = self.step(id).action.clone() else { return Err(format!("`{step}` is no playbook")) };
        let frame = self.enter(plan, Some(id), params.clone(), step);
        let unit = &mut self.units[id];
        (unit.body, unit.state, unit.began) = (Body::Playbook { frame }, State::Running, Some(at));
        if self.frames[frame].open == 0 {
            self.frame_settled(frame);
        }
        Ok(())
    }

    pub(super) fn closed(&mut self, step: &str, outputs: &Json, at: (jiff::Timestamp, f64)) -> Result<(), String> {
        let id = self.known(step)?;
        self.units[id].outputs = Some(outputs.clone());
        let recovered = match &self.units[id].body {
            Body::Each { items, first } => self.units[*first..first + items.len()].iter().any(|u| u.state == State::Recovered),
            Body::Playbook { frame } => {
                let frame = &self.frames[*frame];
                self.units[frame.first..frame.first + frame.plan.steps.len()].iter().any(|u| u.state == State::Recovered)
            }
            Body::Leaf => false,
        };
        self.settle(id, if recovered { State::Recovered } else { State::Succeeded }, at);
        Ok(())
    }

    pub(super) fn attempt(
        &mut self,
        step: &str,
        attempt: u32,
        before: Option<&Json>,
        creates: &[String],
        at: (jiff::Timestamp, f64),
    ) -> Result<(), String> {
        let id = self.known(step)?;
        if self.units[id].state.is_settled() {
            return Err(format!("`{step}` has settled and cannot begin again"));
        }
        self.engage(id);
        let unit = &mut self.units[id];
        (unit.state, unit.attempted, unit.attempts) = (State::Running, true, attempt);
        unit.began.get_or_insert(at);
        if let Some(before) = before {
            unit.before = Some(before.clone());
        }
        if !creates.is_empty() {
            unit.creates = creates.to_vec();
        }
        Ok(())
    }

    pub(super) fn attempted(
        &mut self,
        step: &str,
        attempt: u32,
        how: &Ended,
        again_at: Option<f64>,
        at: (jiff::Timestamp, f64),
    ) -> Result<(), String> {
        let id = self.known(step)?;
        if self.units[id].state.is_settled() {
            return Err(format!("`{step}` has settled and cannot end again"));
        }
        self.release(id);
        self.units[id].attempts = attempt;
        if let (Some(again), Ended::Failed { .. } | Ended::TimedOut { .. }) = (again_at, how) {
            self.units[id].state = State::Waiting;
            self.delayed.push((again, id));
            return Ok(());
        }
        match how {
            Ended::Succeeded { outputs } => {
                self.units[id].outputs = Some(outputs.clone());
                let again = attempt > 1 || self.units[id].by_person;
                self.settle(id, if again { State::Recovered } else { State::Succeeded }, at);
            }
            Ended::Failed { error, outputs, .. } => {
                self.units[id].outputs = outputs.clone();
                self.fail(id, error.clone(), at);
            }
            Ended::TimedOut { after_s } => {
                self.fail(id, format!("its time was up after {}", crate::expression::print_duration(*after_s)), at);
            }
            Ended::Cancelled => {
                self.units[id].error = Some("ended on request".into());
                self.units[id].state = State::Cancelled;
                self.units[id].ended = Some(at);
            }
            Ended::Unknown => self.unknown(id),
        }
        Ok(())
    }

    pub(super) fn probed(
        &mut self,
        step: &str,
        happened: Option<bool>,
        outputs: Option<&Json>,
        at: (jiff::Timestamp, f64),
    ) -> Result<(), String> {
        let id = self.known(step)?;
        self.release(id);
        match happened {
            Some(true) => {
                self.units[id].outputs = outputs.cloned();
                self.settle(id, State::Recovered, at);
            }
            Some(false) => {
                self.units[id].state = State::Waiting;
                self.ready.insert(id);
            }
            None => {
                self.units[id].error = Some("nobody knows whether it happened, and its probe could not tell".into());
                self.troubled.insert(id);
            }
        }
        Ok(())
    }

    pub(super) fn decided(
        &mut self,
        step: &str,
        decision: Decision,
        (by, role): (&str, Option<&str>),
        reason: &str,
        at: (jiff::Timestamp, f64),
    ) -> Result<(), String> {
        let id = self.known(step)?;
        self.may_decide(id, decision, by, role)?;
        self.paused = None;
        if self.phase == Phase::Undo && self.troubled.remove(&id) {
            self.undo_decided(id, decision);
            return Ok(());
        }
        self.units[id].by_person = true;
        match decision {
            Decision::Retry => {
                self.troubled.remove(&id);
                (self.units[id].state, self.units[id].error, self.units[id].question) = (State::Waiting, None, None);
                self.units[id].answers.clear();
                match self.units[id].body {
                    Body::Leaf => drop(self.ready.insert(id)),
                    _ => drop(self.closing.insert(id)),
                }
            }
            Decision::Skip => {
                self.units[id].error = Some(format!("passed over by {by}: {reason}"));
                self.settle(id, State::Skipped, at);
            }
            Decision::Done | Decision::Approve => {
                self.units[id].answers.push(Answer { by: by.to_owned(), at: at.0.to_string(), reason: reason.to_owned() });
                match &self.units[id].question {
                    Some((question, _)) if (self.units[id].answers.len() as u32) < question.count => {}
                    Some(_) => {
                        self.asking.remove(&id);
                        self.ready.insert(id);
                        self.units[id].by_person = false;
                    }
                    None => {
                        self.units[id].error = Some(format!("done by hand by {by}: {reason}"));
                        self.settle(id, State::Recovered, at);
                    }
                }
            }
            Decision::Reject => self.fail(id, format!("{by} said no: {reason}"), at),
        }
        Ok(())
    }

    /// Whether this person may decide this about this step now. Errors: why not, and what can be done.
    pub fn may_decide(&self, id: Id, decision: Decision, by: &str, role: Option<&str>) -> Result<(), String> {
        let unit = &self.units[id];
        if self.asking.contains(&id) {
            let Some((question, _)) = &unit.question else { return Err("BUG: it asks without a question".into()) };
            let requester = self.began.as_ref().is_some_and(|r| matches!(&r.event, Event::RunBegan { by: starter, .. } if starter == by));
            if !question.roles.is_empty() && !role.is_some_and(|role| question.roles.iter().any(|r| r == role)) {
                return Err(format!("`{}` is for {}: say in which role you answer, with --role", unit.path, question.roles.join(" or ")));
            }
            return match decision {
                Decision::Approve | Decision::Done if question.by_hand != (decision == Decision::Done) => {
                    let wanted = if question.by_hand { "done" } else { "approve" };
                    Err(format!("`{}` waits for `{wanted}` or `reject`", unit.path))
                }
                Decision::Approve if question.not_requester && requester => {
                    Err(format!("{by} started this run: somebody else has to approve `{}`", unit.path))
                }
                Decision::Approve | Decision::Done if unit.answers.iter().any(|a| a.by == by) => {
                    Err(format!("{by} has answered already; `{}` wants {} different people", unit.path, question.count))
                }
                Decision::Approve | Decision::Done | Decision::Reject => Ok(()),
                Decision::Skip | Decision::Retry => Err(format!("`{}` waits for an answer: `approve`, `done` or `reject`", unit.path)),
            };
        }
        if !self.troubled.contains(&id) {
            return Err(format!(
                "there is nothing to decide about `{}`: it is {}",
                unit.path,
                json!(unit.state).as_str().unwrap_or_default()
            ));
        }
        match decision {
            Decision::Approve | Decision::Reject => Err(format!("`{}` failed; decide `retry`, `skip` or `done`", unit.path)),
            Decision::Retry | Decision::Skip | Decision::Done => Ok(()),
        }
    }

    pub(super) fn requested(&mut self, request: Request, by: &str) -> Result<(), String> {
        if self.phase == Phase::Ended {
            if request != Request::Rollback {
                return Err("the run has ended".into());
            }
            self.phase = Phase::Forward;
            self.verdict = None;
        }
        self.paused = None;
        if self.phase == Phase::Undo {
            self.stopped = true;
        }
        self.request = Some((request, by.to_owned()));
        Ok(())
    }

    pub(super) fn fail(&mut self, id: Id, error: String, at: (jiff::Timestamp, f64)) {
        self.asking.remove(&id);
        let unit = &mut self.units[id];
        (unit.state, unit.error, unit.ended) = (State::Failed, Some(error), Some(at));
        unit.began.get_or_insert(at);
        if self.is_always(id) && self.phase == Phase::Always {
            self.settle(id, State::Failed, at);
        } else {
            self.troubled.insert(id);
        }
    }

    /// A unit has come to an end that will not change: what waits for it goes on, or is not reached.
    pub(super) fn settle(&mut self, id: Id, state: State, at: (jiff::Timestamp, f64)) {
        self.asking.remove(&id);
        self.troubled.remove(&id);
        self.probing.remove(&id);
        let mut work = vec![(id, state)];
        while let Some((id, state)) = work.pop() {
            self.release(id);
            let unit = &mut self.units[id];
            (unit.state, unit.ended) = (state, Some(at));
            let (frame, step) = (unit.frame, unit.step);
            if let Some((parent, _)) = unit.item {
                self.units[parent].open -= 1;
                if self.units[parent].open == 0 {
                    self.closing.insert(parent);
                }
                continue;
            }
            self.closing.remove(&id);
            let plan = self.frames[frame].plan.clone();
            for &dependent in &plan.steps[step].dependents {
                let other = self.frames[frame].first + dependent;
                if self.units[other].state != State::Pending {
                    continue;
                }
                if !state.is_good() && plan.steps[dependent].needs.contains(&step) {
                    self.units[other].error = Some(format!("it needs `{}`, which {}", plan.steps[step].id, became(state)));
                    self.units[other].state = State::NotReached;
                    self.ready.remove(&other);
                    work.push((other, State::NotReached));
                    continue;
                }
                self.units[other].waits -= 1;
                if self.units[other].waits == 0 && (dependent < plan.forward || self.frames[frame].always) {
                    self.ready.insert(other);
                }
            }
            self.frames[frame].open -= 1;
            if self.frames[frame].open == 0 {
                self.frame_settled(frame);
            }
        }
    }

    /// All steps of a playbook have settled: its `always` steps are next, then its owner ends.
    pub(super) fn frame_settled(&mut self, frame: usize) {
        let Some(owner) = self.frames[frame].owner else { return };
        if !self.frames[frame].always {
            self.open_always(frame);
        }
        if self.frames[frame].open == 0 && !self.units[owner].state.is_settled() {
            self.closing.insert(owner);
        }
    }

    pub(super) fn open_always(&mut self, frame: usize) {
        let Frame { plan, first, .. } = &self.frames[frame];
        let (plan, first) = (plan.clone(), *first);
        self.frames[frame].always = true;
        self.frames[frame].open = plan.steps.len() - plan.forward;
        for at in plan.forward..plan.steps.len() {
            if self.units[first + at].waits == 0 && self.units[first + at].state == State::Pending {
                self.ready.insert(first + at);
            }
        }
    }

    /// No step will begin any more, but for `always` steps.
    pub(super) fn leave_forward(&mut self, at: (jiff::Timestamp, f64)) {
        self.ready.clear();
        self.delayed.clear();
        self.asking.clear();
        self.closing.clear();
        self.probing.clear();
        self.troubled.clear();
        let (mut pending, mut broken) = (Vec::new(), BTreeSet::new());
        // What is within comes after what it is in: from the end, a loop or playbook knows whether something in it failed.
        for id in (0..self.units.len()).rev().filter(|id| !self.is_always(*id)).collect::<Vec<_>>() {
            let state = match self.units[id].state {
                State::Pending => {
                    pending.push((id, self.missing_need(id)));
                    continue;
                }
                settled if settled.is_settled() => settled,
                _ if broken.contains(&id) => State::Failed,
                _ => State::Cancelled,
            };
            if matches!(state, State::Failed | State::Unknown) {
                broken.extend(self.units[id].item.map(|(parent, _)| parent).or(self.frames[self.units[id].frame].owner));
            }
            if state != self.units[id].state {
                let unit = &mut self.units[id];
                (unit.state, unit.ended) = (state, Some(at));
                unit.error.get_or_insert_with(|| {
                    if state == State::Failed { "a step within it failed" } else { "the run came to its end before" }.into()
                });
            }
        }
        for (id, missing) in pending {
            let unit = &mut self.units[id];
            (unit.state, unit.ended) = (State::NotReached, Some(at));
            unit.error = missing.or_else(|| Some("the run came to its end before".into()));
        }
    }

    /// Which of its needs kept a step from being reached.
    pub(super) fn missing_need(&self, id: Id) -> Option<String> {
        let first = self.frames[self.units[id].frame].first;
        let missing = self.step(id).needs.iter().map(|on| &self.units[first + on]).find(|unit| !unit.state.is_good())?;
        let became = if missing.state == State::Pending { "was not reached" } else { became(missing.state) };
        Some(format!("it needs `{}`, which {became}", missing.path))
    }

    pub(super) fn begin_always(&mut self, at: (jiff::Timestamp, f64)) {
        self.leave_forward(at);
        self.phase = Phase::Always;
        self.paused = None;
        for frame in 0..self.frames.len() {
            if !self.frames[frame].always {
                self.open_always(frame);
            }
        }
    }
}

fn became(state: State) -> &'static str {
    match state {
        State::Skipped => "was skipped",
        State::NotReached => "was not reached",
        State::Cancelled => "was cancelled",
        _ => "failed",
    }
}
