//! The verdict: how a run ended, each part told apart, and the exit code.

use super::{Body, Run, State, Undo, seconds, undo::WayBack};
use crate::event::{AlwaysVerdict, Measured, ObjectivesVerdict, Outcome, Request, Rollback, Verdict, Verification};

impl Run {
    /// What has become of the work so far.
    pub fn outcome(&self) -> Outcome {
        let forward = || self.units.iter().enumerate().filter(|(id, _)| !self.is_always(*id)).map(|(_, unit)| unit);
        let failed = forward().any(|u| matches!(u.state, State::Failed | State::Unknown));
        match &self.request {
            Some((Request::Cancel, _)) => return Outcome::Cancelled,
            Some((_, by)) if !failed && by != "timeout" => return Outcome::Cancelled,
            Some(_) => return Outcome::Failed,
            None => {}
        }
        if failed {
            Outcome::Failed
        } else if forward().any(|u| u.state == State::Recovered || u.by_person) {
            Outcome::Recovered
        } else {
            Outcome::Succeeded
        }
    }

    /// The verdict, given what should be gone and is still there.
    pub fn judge(&self, still_there: &[String]) -> Verdict {
        let outcome = self.outcome();
        let good = matches!(outcome, Outcome::Succeeded | Outcome::Recovered);
        let mut left: Vec<String> = self.left.iter().map(|(_, why)| why.clone()).collect();
        let rollback = self.rollback(good, &mut left);
        let always = self.always(&mut left);
        left.extend(still_there.iter().map(|thing| format!("{thing} is still there, and should be gone: remove it")));
        if let (true, Err(says)) = (good, self.outputs()) {
            left.push(format!("the playbook's outputs could not be given: {says}"));
        }
        let verification = self.verification();
        let objectives = self.objectives(good);
        let missed = [&objectives.rto, &objectives.rpo].into_iter().flatten().any(|m| !m.met);
        let exit_code = match outcome {
            _ if !left.is_empty() => 3,
            Outcome::Cancelled => 130,
            Outcome::Failed => 1,
            Outcome::Succeeded | Outcome::Recovered if missed => 4,
            Outcome::Succeeded | Outcome::Recovered => 0,
        };
        Verdict { outcome, rollback, always, verification, objectives, left, exit_code }
    }

    fn rollback(&self, good: bool, left: &mut Vec<String>) -> Rollback {
        let mut remains = false;
        if !good {
            for id in 0..self.units.len() {
                let listed = self.left.iter().any(|(other, _)| *other == id);
                if self.units[id].undo == Undo::Succeeded
                    || listed
                    || self.within_undone(id)
                    || matches!(self.way_back(id), WayBack::Nothing)
                {
                    remains |= listed;
                    continue;
                }
                remains = true;
                let by_hand = self.text(id).head.by_hand.as_ref().map(|by_hand| format!(" By hand: {by_hand}"));
                left.push(format!("`{}` was not undone.{}", self.units[id].path, by_hand.unwrap_or_default()));
            }
        }
        match (self.rolled_back, remains) {
            (false, _) => Rollback::None,
            (true, false) => Rollback::Complete,
            (true, true) => Rollback::Incomplete,
        }
    }

    /// Whether the playbook that a unit is in was undone by one handler as a whole.
    fn within_undone(&self, id: usize) -> bool {
        let mut at = self.frames[self.units[id].frame].owner;
        while let Some(owner) = at {
            if self.units[owner].undo == Undo::Succeeded {
                return true;
            }
            at = self.frames[self.units[owner].frame].owner;
        }
        false
    }

    fn always(&self, left: &mut Vec<String>) -> AlwaysVerdict {
        let mut verdict = AlwaysVerdict::None;
        for (id, unit) in self.units.iter().enumerate().filter(|(id, _)| self.is_always(*id)) {
            match unit.state {
                State::Skipped => {}
                State::Succeeded | State::Recovered if verdict != AlwaysVerdict::Failed => verdict = AlwaysVerdict::Succeeded,
                State::Succeeded | State::Recovered => {}
                State::Pending if self.phase == super::Phase::Forward => {}
                _ => {
                    verdict = AlwaysVerdict::Failed;
                    let error = unit.error.as_deref().unwrap_or("it did not run");
                    left.push(format!("`{}`, which should always be done, was not: {error}", self.units[id].path));
                }
            }
        }
        verdict
    }

    fn verification(&self) -> Verification {
        let mut verdict = Verification::None;
        for (_, unit) in self.units.iter().enumerate().filter(|(id, u)| u.body == Body::Leaf && self.step(*id).verifies) {
            match unit.state {
                State::Succeeded | State::Recovered if verdict == Verification::None => verdict = Verification::Passed,
                State::Failed | State::Unknown => verdict = Verification::Failed,
                _ => {}
            }
        }
        verdict
    }

    fn objectives(&self, good: bool) -> ObjectivesVerdict {
        let written = &self.plan.book.objectives;
        let rto = written.rto.as_ref().map(|rto| {
            let found = if good {
                self.rto(rto.from.as_ref().map(|f| f.get_ref().as_str()), rto.until.get_ref())
            } else {
                Err("the work was not done".into())
            };
            measured(rto.limit.0.as_secs_f64(), found, Some(self.people_s), 0.0)
        });
        let rpo = written.rpo.as_ref().map(|rpo| {
            let found = if good {
                self.rpo(rpo.recovered_to.get_ref(), rpo.lost_at.as_ref().map(|l| l.get_ref().as_str()))
            } else {
                Err("the work was not done".into())
            };
            measured(rpo.limit.0.as_secs_f64(), found, None, -1e-9)
        });
        ObjectivesVerdict { rto, rpo }
    }

    fn rto(&self, from: Option<&str>, until: &str) -> Result<f64, String> {
        let step = until.trim_start_matches("steps.");
        let unit = self.unit(step).map(|id| &self.units[id]).filter(|unit| unit.state.is_good());
        let (ended, ended_up) = unit.and_then(|unit| unit.ended).ok_or_else(|| format!("`{step}` did not succeed"))?;
        let began = self.began.as_ref().ok_or("the run never began")?;
        match from {
            // On one boot the monotonic clock counts; a run resumed after a restart only has the wall.
            None if !self.rebooted => Ok(ended_up - began.up),
            None => Ok(seconds(ended) - seconds(began.at)),
            Some(from) => Ok(seconds(ended) - self.at_end(from)?),
        }
    }

    fn rpo(&self, recovered_to: &str, lost_at: Option<&str>) -> Result<f64, String> {
        let recovered = self.at_end(recovered_to)?;
        let lost = match lost_at {
            Some(lost_at) => self.at_end(lost_at)?,
            None => seconds(self.began.as_ref().ok_or("the run never began")?.at),
        };
        if recovered > lost {
            return Err("the newest recovered data are later than the loss: one of the two times is wrong".into());
        }
        if recovered == lost && self.verification() != Verification::Passed {
            return Err("no loss at all, and no step that proves it".into());
        }
        Ok(lost - recovered)
    }
}

fn measured(limit_s: f64, found: Result<f64, String>, people_s: Option<f64>, least: f64) -> Measured {
    let people_s = people_s.filter(|s| *s > 0.0);
    match found {
        Ok(s) if s > least => Measured { limit_s, measured_s: Some(s), people_s, met: s <= limit_s, error: None },
        Ok(s) => {
            let error = format!("measured {s:.3} s: zero or less is an error of the measurement; check the declared time");
            Measured { limit_s, measured_s: None, people_s, met: false, error: Some(error) }
        }
        Err(error) => Measured { limit_s, measured_s: None, people_s, met: false, error: Some(error) },
    }
}
