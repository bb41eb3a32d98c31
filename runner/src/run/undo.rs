//! Undoing: who is undone when. A step is undone once everything that waited for it is; what is independent is undone
//! side by side. A handler that fails keeps those that it depends on from being undone.

use steps::step::{Effect, Reversal};

use super::{Act, Body, Id, Phase, Run, Undo};
use crate::{
    event::{Decision, Event},
    plan::{Action, KINDS},
};

/// How a step is undone.
pub(super) enum WayBack {
    /// There is nothing to undo.
    Nothing,
    /// A handler, or the kind itself, undoes it.
    Handler,
    /// Only a person can.
    Person(String),
}

enum Work {
    Open(Id),
    Settle(Id),
}

impl Run {
    pub(super) fn way_back(&self, id: Id) -> WayBack {
        let (text, step, unit) = (self.text(id), self.step(id), &self.units[id]);
        let attempted = unit.attempted || matches!(unit.body, Body::Playbook { .. });
        if !attempted || unit.undo == Undo::Succeeded || self.is_always(id) {
            return WayBack::Nothing;
        }
        if text.rollback.is_some() {
            return WayBack::Handler;
        }
        match (&text.head.by_hand, step.facts.reversal, &step.action) {
            (_, _, Action::Playbook(_)) => WayBack::Nothing,
            (Some(by_hand), _, _) if step.facts.effect > Effect::Read => WayBack::Person(by_hand.clone()),
            (_, Some(Reversal::Nothing), _) => WayBack::Nothing,
            (_, Some(Reversal::Never), _) => WayBack::Person(format!(
                "`{}` can never be undone: bring back by hand what it removed or replaced",
                text.head.uses.get_ref()
            )),
            (_, _, _) => WayBack::Handler,
        }
    }

    pub(super) fn begin_undo(&mut self, at: (jiff::Timestamp, f64)) {
        self.leave_forward(at);
        (self.phase, self.paused, self.rolled_back, self.stopped) = (Phase::Undo, None, true, false);
        self.left.clear();
        for id in 0..self.units.len() {
            let unit = &self.units[id];
            let frame = &self.frames[unit.frame];
            let waiting = frame.plan.steps[unit.step].dependents.iter().filter(|d| **d < frame.plan.forward).count();
            self.units[id].undo_waits = if unit.item.is_some() { 0 } else { waiting as u32 };
        }
        let first: Vec<Work> = self.last_of(0).into_iter().map(Work::Open).collect();
        self.undo_work(first);
    }

    /// The steps of a playbook for which nothing waits.
    fn last_of(&self, frame: usize) -> Vec<Id> {
        let frame = &self.frames[frame];
        (frame.first..frame.first + frame.plan.forward).filter(|id| self.units[*id].undo_waits == 0).collect()
    }

    fn undo_work(&mut self, mut work: Vec<Work>) {
        while let Some(next) = work.pop() {
            match next {
                Work::Open(id) => match (self.way_back(id), self.units[id].body.clone()) {
                    (WayBack::Handler | WayBack::Person(_), _) => drop(self.undo_ready.insert(id)),
                    (WayBack::Nothing, Body::Leaf) => work.push(Work::Settle(id)),
                    (WayBack::Nothing, Body::Each { items, first }) => {
                        self.units[id].open = items.len() as u32;
                        work.extend((first..first + items.len()).map(Work::Open));
                    }
                    (WayBack::Nothing, Body::Playbook { frame }) => {
                        self.units[id].open = self.frames[frame].plan.forward as u32;
                        let last = self.last_of(frame);
                        if last.is_empty() {
                            work.push(Work::Settle(id));
                        }
                        work.extend(last.into_iter().map(Work::Open));
                    }
                },
                Work::Settle(id) => {
                    let container = self.units[id].item.map(|(parent, _)| parent).or(self.frames[self.units[id].frame].owner);
                    if self.units[id].item.is_none() {
                        work.extend(self.waited_for(id));
                    }
                    if let Some(container) = container {
                        self.units[container].open -= 1;
                        if self.units[container].open == 0 {
                            work.push(Work::Settle(container));
                        }
                    }
                }
            }
        }
    }

    /// The steps that `id` waited for and for which nothing else is left to be undone.
    fn waited_for(&mut self, id: Id) -> Vec<Work> {
        let unit = &self.units[id];
        let (plan, first, step) = (self.frames[unit.frame].plan.clone(), self.frames[unit.frame].first, unit.step);
        let mut open = Vec::new();
        for on in plan.steps[step].needs.iter().chain(&plan.steps[step].after) {
            let other = &mut self.units[first + on];
            other.undo_waits -= 1;
            if other.undo_waits == 0 {
                open.push(Work::Open(first + on));
            }
        }
        open
    }

    pub(super) fn undoing(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        while !self.stopped && self.running < self.limit() {
            // The latest step first, where the graph leaves it open.
            let Some(id) = self.undo_ready.pop_last() else { break };
            match self.way_back(id) {
                WayBack::Person(by_hand) => return vec![Act::Record(Event::UndoLeft { step: self.units[id].path.to_string(), by_hand })],
                WayBack::Handler | WayBack::Nothing => {
                    self.engage(id);
                    acts.push(Act::Undo(id));
                }
            }
        }
        if !acts.is_empty() || self.running > 0 {
            return acts;
        }
        match self.troubled.is_empty() || self.stopped {
            true => vec![Act::Record(Event::AlwaysBegan)],
            false if self.paused.is_some() => Vec::new(),
            false => vec![Act::Record(Event::Paused { why: "nobody knows whether a handler did its work".into() })],
        }
    }

    pub(super) fn undo_began(&mut self, step: &str) -> Result<(), String> {
        let id = self.known(step)?;
        self.undo_ready.remove(&id);
        self.engage(id);
        self.units[id].undo = Undo::Running;
        Ok(())
    }

    pub(super) fn undo_ended(&mut self, step: &str, error: Option<&str>) -> Result<(), String> {
        let id = self.known(step)?;
        self.release(id);
        match error {
            None => {
                self.units[id].undo = Undo::Succeeded;
                self.undo_work(vec![Work::Settle(id)]);
            }
            Some(error) => {
                self.units[id].undo = Undo::Failed;
                self.leave(id, format!("undoing `{step}` failed: {error}"));
            }
        }
        Ok(())
    }

    fn leave(&mut self, id: Id, why: String) {
        let by_hand = self.text(id).head.by_hand.as_ref().map(|by_hand| format!(" By hand: {by_hand}"));
        self.left.push((id, why + &by_hand.unwrap_or_default()));
    }

    pub(super) fn undo_left(&mut self, step: &str, by_hand: &str) -> Result<(), String> {
        let id = self.known(step)?;
        self.undo_ready.remove(&id);
        self.units[id].undo = Undo::Failed;
        self.left.push((id, format!("`{step}` is to be undone by a person: {by_hand}")));
        self.undo_work(vec![Work::Settle(id)]);
        Ok(())
    }

    /// The runner died while a handler ran: a kind's own undo may run again, a handler if its kind may.
    pub(super) fn undo_unknown(&mut self, id: Id) {
        let rerun = match &self.text(id).rollback {
            None => true,
            Some(handler) => handler.head.on_unknown.map_or_else(
                || KINDS.get(handler.head.uses.get_ref().as_str()).is_some_and(|facets| facets.kind.rerun),
                |on_unknown| on_unknown == crate::book::OnUnknown::Rerun,
            ),
        };
        if rerun {
            self.units[id].undo = Undo::None;
            self.undo_ready.insert(id);
        } else {
            self.units[id].undo = Undo::Unknown;
            self.troubled.insert(id);
        }
    }

    pub(super) fn undo_decided(&mut self, id: Id, decision: Decision) {
        match decision {
            Decision::Done => {
                self.units[id].undo = Undo::Succeeded;
                self.undo_work(vec![Work::Settle(id)]);
            }
            Decision::Skip => {
                self.units[id].undo = Undo::Failed;
                self.leave(id, format!("undoing `{}` was passed over", self.units[id].path));
                self.undo_work(vec![Work::Settle(id)]);
            }
            Decision::Retry | Decision::Approve | Decision::Reject => {
                self.units[id].undo = Undo::None;
                self.undo_ready.insert(id);
            }
        }
    }
}
