//! `Book` → `Plan`: what was written comes to mean something. Ids become edges, names become kinds and playbooks, and
//! everything that can be known to be wrong is said. Unaware of runs, files and the clock.

mod check;
pub mod param;
pub mod settings;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, LazyLock},
};

use serde_json::Value as Json;
use steps::step::{Effect, Kind, Reversal, Tool};

use crate::{
    book::{Book, OnUnknown, Problem, Source, StepText},
    expression::Expression,
};

pub use check::plan;

/// The texts that a run is made of: the playbook and what it uses, by key.
#[derive(Clone, Debug, Default)]
pub struct Sources(pub BTreeMap<String, Arc<Source>>);

/// What `uses` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uses {
    /// A kind of step.
    Kind(String),
    /// A playbook, by its key among the sources.
    Playbook(String),
}

impl Sources {
    /// What `uses` means in the text with the key `from`. A file's key is its path relative to the root playbook's folder.
    pub fn resolve(from: &str, uses: &str) -> Uses {
        if uses.starts_with("./") || uses.starts_with("../") {
            let mut parts: Vec<&str> = from.split('/').collect();
            parts.pop();
            for part in uses.split('/') {
                match part {
                    "." | "" => {}
                    ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
                    part => parts.push(part),
                }
            }
            return Uses::Playbook(parts.join("/"));
        }
        if uses.contains('/') { Uses::Playbook(format!("library:{uses}")) } else { Uses::Kind(uses.to_owned()) }
    }
}

/// A playbook that can be run.
#[derive(Debug)]
pub struct Plan {
    /// Its key among the sources.
    pub key: String,
    /// What was written.
    pub book: Book,
    /// Its steps in the order of the text, `always` steps last.
    pub steps: Vec<Step>,
    /// How many of them are not `always` steps.
    pub forward: usize,
    /// Indices of all steps; each stands after what it waits for.
    pub order: Vec<usize>,
    /// The schema of its params.
    pub params: Json,
}

/// A step of a plan.
#[derive(Debug)]
pub struct Step {
    /// Its id.
    pub id: Arc<str>,
    /// What it does.
    pub action: Action,
    /// Steps that must have succeeded.
    pub needs: Vec<usize>,
    /// Steps that must have settled.
    pub after: Vec<usize>,
    /// Steps that wait for this one.
    pub dependents: Vec<usize>,
    /// Steps of the plan's forward part that an `always` step reads.
    pub reads: Vec<usize>,
    /// Skips it when false.
    pub when: Option<Expression>,
    /// What has to hold of its outputs.
    pub expect: Vec<Expression>,
    /// What it runs for each of.
    pub each: Option<Each>,
    /// The kind's own facts, as far as the settings are known.
    pub facts: Facts,
    /// Whether its success is a proof.
    pub verifies: bool,
    /// What happens when nobody knows whether it happened.
    pub on_unknown: OnUnknown,
    /// What is tried again.
    pub retry_on: Vec<RetryOn>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// A kind does it.
    Kind(&'static Facets),
    /// A playbook does it.
    Playbook(Arc<Plan>),
}

/// What a step runs for each of.
#[derive(Debug)]
pub enum Each {
    /// Items that were written down.
    Items(Vec<Json>),
    /// Items that an expression gives.
    Expression(Expression),
}

/// What a kind says of itself with the settings given.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it does to the world.
    pub effect: Effect,
    /// How far its undo goes; nothing when settings are not known yet.
    pub reversal: Option<Reversal>,
    /// Programs it needs.
    pub tools: Vec<Tool>,
    /// Whether people are asked.
    pub asks: bool,
}

/// What is worth another try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// What the kind says may pass.
    Passing,
    /// An attempt that took too long.
    Timeout,
    /// Any failure.
    Failed,
    /// This exit status.
    Exit(i32),
}

/// A kind with its schemas worked out once.
pub struct Facets {
    /// The kind.
    pub kind: &'static Kind,
    /// The schema of its settings.
    pub settings: Json,
    /// The schema of its outputs.
    pub output: Json,
}

impl std::fmt::Debug for Facets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.name)
    }
}

/// Every kind by its name.
pub static KINDS: LazyLock<HashMap<&'static str, Facets>> = LazyLock::new(|| {
    let facets = |kind: &'static Kind| Facets { kind, settings: (kind.settings)().to_value(), output: (kind.output)().to_value() };
    steps::KINDS.iter().map(|kind| (kind.name, facets(kind))).collect()
});

impl Plan {
    /// How a step was written.
    pub fn text(&self, step: usize) -> &StepText {
        if step < self.forward { &self.book.steps[step] } else { &self.book.always[step - self.forward] }
    }
    /// Whether a step is an `always` step.
    pub fn is_always(&self, step: usize) -> bool {
        step >= self.forward
    }
    /// The step of this id.
    pub fn step(&self, id: &str) -> Option<usize> {
        self.steps.iter().position(|step| &*step.id == id)
    }
    /// Whether it, or a playbook it uses, verifies anything.
    pub fn verifies(&self) -> bool {
        self.steps.iter().any(|step| step.verifies || matches!(&step.action, Action::Playbook(plan) if plan.verifies()))
    }
    /// Steps in the order in which they would be undone: the reverse of the order in which they may begin.
    pub fn undo_order(&self) -> Vec<usize> {
        self.order.iter().rev().copied().filter(|step| !self.is_always(*step)).collect()
    }
    /// A problem at a place of this playbook.
    pub fn problem(&self, at: Range<usize>, says: String, hint: Option<String>) -> Problem {
        Problem { source: self.book.source.clone(), at, says, hint, warning: false }
    }
}
