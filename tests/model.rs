//! The pure `Run` against random DAGs, outcomes, crashes, decisions and cancels. A simulated world keeps a ledger of what
//! really happened; the invariants are judged by it.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use proptest::prelude::*;
use runsheet::{
    book::Source,
    event::{Decision, Ended, Event, Outcome, Record, Request, Rollback, Verdict},
    plan::{Plan, Sources, plan},
    run::{Act, Phase, Run, State},
};
use serde_json::json;

/// What is drawn by chance.
#[derive(Clone, Debug)]
struct Case {
    /// For each step, which earlier steps it needs and which it only comes after.
    edges: Vec<(Vec<prop::sample::Index>, Vec<prop::sample::Index>)>,
    /// Which steps are skipped, by their `when`.
    skipped: Vec<bool>,
    parallel: usize,
    policy: &'static str,
    /// What chance decides while it runs, one number per decision.
    dice: Vec<u8>,
}

fn case() -> impl Strategy<Value = Case> {
    let edges = || prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    (
        prop::collection::vec((edges(), edges()), 1..10),
        prop::collection::vec(prop::bool::weighted(0.1), 10),
        1..4_usize,
        prop::sample::select(vec!["rollback", "pause", "stop"]),
        prop::collection::vec(any::<u8>(), 120),
    )
        .prop_map(|(edges, skipped, parallel, policy, dice)| Case { edges, skipped, parallel, policy, dice })
}

fn planned(case: &Case) -> Arc<Plan> {
    let mut text = format!("runsheet = 1\n[playbook]\ntitle = \"x\"\non_failure = \"{}\"\nparallel = {}\n", case.policy, case.parallel);
    for (at, (needs, after)) in case.edges.iter().enumerate() {
        let names = |on: &[prop::sample::Index]| -> Vec<String> {
            if at == 0 { Vec::new() } else { on.iter().map(|i| format!("s{}", i.index(at))).collect() }
        };
        text +=
            &format!("[steps.s{at}]\nuses = \"command\"\nwith.argv = [\"x\"]\nneeds = {:?}\nafter = {:?}\n", names(needs), names(after));
        if case.skipped[at] {
            text += "when = \"1 == 2\"\n";
        }
        text += &format!("[steps.s{at}.rollback]\nuses = \"command\"\nwith.argv = [\"x\"]\n");
    }
    text += "[always.z]\nuses = \"command\"\nwith.argv = [\"x\"]\n";
    let source = Arc::new(Source { name: "x".into(), text });
    let (plan, problems) = plan(&Sources([("x".to_owned(), source)].into()), "x");
    plan.unwrap_or_else(|| panic!("{problems:?}"))
}

/// A world in which steps begin, end and are undone, and a disk on which records lie.
struct World {
    plan: Arc<Plan>,
    run: Run,
    disk: Vec<Record>,
    ledger: Vec<(char, String)>,
    working: Vec<(usize, char)>,
    dice: Vec<u8>,
    now: f64,
}

impl World {
    fn new(case: &Case) -> Self {
        let plan = planned(case);
        let run = Run::new(plan.clone(), String::new());
        let mut world = Self { plan, run, disk: Vec::new(), ledger: Vec::new(), working: Vec::new(), dice: case.dice.clone(), now: 0.0 };
        world.record(Event::RunBegan {
            format: 1,
            run: "r".into(),
            playbook: "x".into(),
            title: "x".into(),
            digest: String::new(),
            by: "ann".into(),
            host: "h".into(),
            boot: "b".into(),
            directory: "/".into(),
            params: json!({}),
            version: "0".into(),
        });
        world
    }
    fn die(&mut self) -> u8 {
        self.dice.pop().unwrap_or(7)
    }
    fn record(&mut self, event: Event) {
        self.now += 1.0;
        let at = Timestamp::from_second(self.now as i64).unwrap();
        let record = Record { seq: self.disk.len() as u64 + 1, group: 1, at, up: self.now, event };
        if std::env::var_os("MODEL_LOG").is_some() {
            eprintln!("{}", serde_json::to_string(&record.event).unwrap());
        }
        self.run.apply(&record).unwrap_or_else(|says| panic!("{says}: {record:?}"));
        self.disk.push(record);
    }
    fn path(&self, id: usize) -> String {
        self.run.units[id].path.to_string()
    }

    /// One turn of the engine. Gives whether anything was done.
    fn turn(&mut self) -> bool {
        let acts = self.run.next(self.now);
        let any = !acts.is_empty();
        for act in acts {
            match act {
                Act::Record(event) => self.record(event),
                Act::Attempt(id) => {
                    let attempt = self.run.units[id].attempts + 1;
                    self.record(Event::Began { step: self.path(id), attempt, before: Some(json!({})), creates: Vec::new() });
                    self.ledger.push(('s', self.path(id)));
                    self.working.push((id, 's'));
                }
                Act::Undo(id) => {
                    self.record(Event::UndoBegan { step: self.path(id) });
                    self.working.push((id, 'u'));
                }
                Act::Probe(_) => unreachable!("no probes here"),
                Act::Interrupt => {
                    for (id, _) in std::mem::take(&mut self.working) {
                        let attempt = self.run.units[id].attempts;
                        self.record(Event::Ended {
                            step: self.path(id),
                            attempt,
                            how: Ended::Cancelled,
                            captured: Vec::new(),
                            again_at: None,
                        });
                    }
                }
                Act::End => {
                    let verdict = self.run.judge(&[]);
                    self.record(Event::RunEnded { verdict });
                }
            }
        }
        any
    }

    /// Something that works ends, well or not.
    fn end_one(&mut self) {
        let at = self.die() as usize % self.working.len();
        let (id, what) = self.working.swap_remove(at);
        let (path, attempt) = (self.path(id), self.run.units[id].attempts);
        let lucky = !self.die().is_multiple_of(8);
        match (what, lucky) {
            ('s', true) => {
                self.ledger.push(('e', path.clone()));
                self.record(Event::Ended {
                    step: path,
                    attempt,
                    how: Ended::Succeeded { outputs: json!({}) },
                    captured: Vec::new(),
                    again_at: None,
                });
            }
            ('s', false) => {
                let again_at = (self.die().is_multiple_of(3)).then_some(self.now + 2.0);
                let how = Ended::Failed { error: "no luck".into(), passing: false, code: None, outputs: None };
                self.record(Event::Ended { step: path, attempt, how, captured: Vec::new(), again_at });
            }
            (_, lucky) => {
                if lucky {
                    self.ledger.push(('u', path.clone()));
                }
                self.record(Event::UndoEnded { step: path, error: (!lucky).then(|| "no luck".into()) });
            }
        }
    }

    /// The runner dies; another takes the run up from what is on disk. What worked goes unheard.
    fn crash(&mut self) {
        self.working.clear();
        let before: Vec<(State, u32)> = self.run.units.iter().map(|u| (u.state, u.attempts)).collect();
        let mut run = Run::new(self.plan.clone(), String::new());
        for record in &self.disk {
            run.apply(record).unwrap();
        }
        let after: Vec<(State, u32)> = run.units.iter().map(|u| (u.state, u.attempts)).collect();
        assert_eq!(before, after, "the fold of the journal is the state of the run");
        self.run = run;
        self.record(Event::RunResumed { by: "ann".into(), boot: "b".into(), accepted: None });
    }

    /// A person answers a run that waits.
    fn decide(&mut self) {
        let Some(id) = self.run.troubled().first().copied() else { return self.ask(Request::Rollback) };
        let decision = match self.die() % 5 {
            0 => Decision::Retry,
            1 => Decision::Skip,
            2 | 3 => Decision::Done,
            _ => return self.ask(Request::Rollback),
        };
        assert_eq!(self.run.may_decide(id, decision, "ann", None), Ok(()));
        self.record(Event::Decided { step: self.path(id), decision, by: "ann".into(), role: None, reason: "because".into() });
    }
    fn ask(&mut self, request: Request) {
        self.record(Event::Requested { request, by: "ann".into(), reason: "because".into() });
    }

    /// To the end, with accidents.
    fn play(&mut self) -> Verdict {
        for _ in 0..2000 {
            let chance = self.die();
            if self.run.phase != Phase::Ended && chance > 245 {
                self.crash();
            } else if self.run.phase == Phase::Forward && chance > 240 {
                self.ask(Request::Cancel);
            }
            if self.turn() {
                continue;
            }
            if let Some(verdict) = &self.run.verdict {
                return verdict.clone();
            }
            if !self.working.is_empty() {
                self.end_one();
            } else if self.run.paused.is_some() {
                self.decide();
            } else {
                self.now += 1.0;
            }
        }
        panic!("it never ends: {:?} {:?} paused {:?}\n{:#?}", self.run.phase, self.run.units, self.run.paused, self.ledger);
    }
}

fn judge(world: &World, verdict: &Verdict) {
    let (plan, ledger) = (&world.plan, &world.ledger);
    let mut ended: HashMap<&str, usize> = HashMap::new();
    for (at, (what, step)) in ledger.iter().enumerate() {
        if *what == 's' && step != "z" {
            assert!(!ended.contains_key(step.as_str()) || by_person(world, step), "`{step}` was acknowledged and began again");
            for need in &plan.steps[plan.step(step).unwrap()].needs {
                let need = &*plan.steps[*need].id;
                assert!(ended.contains_key(need) || by_person(world, need), "`{step}` began before `{need}` had succeeded");
            }
        }
        if *what == 'e' {
            ended.insert(step, at);
        }
    }
    let undone: Vec<&str> = ledger.iter().filter(|(what, _)| *what == 'u').map(|(_, step)| step.as_str()).collect();
    for (at, step) in undone.iter().enumerate() {
        assert!(ledger.iter().any(|(what, other)| *what == 's' && other == step), "`{step}` was undone and never attempted");
        let on = plan.step(step).unwrap();
        for earlier in &undone[..at] {
            let other = &plan.steps[plan.step(earlier).unwrap()];
            assert!(
                !plan.steps[on].needs.contains(&plan.step(earlier).unwrap()),
                "`{earlier}` was undone before `{step}`, which needs it: {other:?}"
            );
        }
    }
    if verdict.rollback == Rollback::Complete {
        for (_, step) in ledger.iter().filter(|(what, step)| *what == 's' && step != "z") {
            let handled = undone.contains(&step.as_str())
                || world.run.units.iter().any(|u| *u.path == **step && u.undo == runsheet::run::Undo::Succeeded);
            assert!(handled, "the rollback is said to be complete, and `{step}` was not undone");
        }
    }
    if matches!(verdict.outcome, Outcome::Succeeded) {
        assert!(
            world
                .run
                .units
                .iter()
                .filter(|u| &*u.path != "z")
                .all(|u| matches!(u.state, State::Succeeded | State::Skipped | State::NotReached))
        );
        assert!(undone.is_empty());
    }
    assert!(world.run.units.iter().all(|u| !matches!(u.state, State::Running | State::Waiting)), "something still runs at the end");
    assert!(matches!(verdict.exit_code, 0 | 1 | 3 | 4 | 130));
}

/// Whether a person's decision, or its own death, stands behind a step's state.
fn by_person(world: &World, step: &str) -> bool {
    world.disk.iter().any(|r| matches!(&r.event, Event::Decided { step: s, .. } if s == step))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn invariants_hold_whatever_happens(case in case()) {
        let mut world = World::new(&case);
        let verdict = world.play();
        judge(&world, &verdict);
    }
}
