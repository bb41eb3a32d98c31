//! `show RUN --format json`: what scripts read. Its shape is fixed; its schema is [`Shown`]'s.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use crate::{
    event::{Event, Verdict},
    run::{Body, Phase, Run, State, Undo},
};

/// A run as scripts see it.
#[derive(Serialize, JsonSchema)]
pub struct Shown {
    /// The version of this format.
    pub format: u32,
    /// The run's id.
    pub run: String,
    /// The playbook as it was named.
    pub playbook: String,
    /// `running`, `paused`, `ended`, or `dead`: its runner is gone and nobody has resumed it.
    pub state: &'static str,
    /// Why it waits for people.
    pub paused: Option<String>,
    /// When it began, RFC 3339.
    pub began_at: Option<String>,
    /// When its last event happened, RFC 3339.
    pub last_at: Option<String>,
    /// Who started it.
    pub by: String,
    /// Its params.
    pub params: Json,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// Its outputs, once it is done.
    pub outputs: Json,
    /// Its steps by their path, in the order in which they came to be.
    #[schemars(with = "BTreeMap<String, ShownStep>")]
    pub steps: serde_json::Map<String, Json>,
}

/// A step as scripts see it.
#[derive(Serialize, JsonSchema)]
pub struct ShownStep {
    /// What people call it.
    title: Option<String>,
    /// What has become of it.
    #[schemars(with = "String")]
    state: State,
    /// The kind or playbook that it uses.
    kind: String,
    /// How many attempts there were.
    attempts: u32,
    /// When it began, RFC 3339.
    began_at: Option<String>,
    /// When it ended, RFC 3339.
    ended_at: Option<String>,
    /// How long it took, in seconds of the monotonic clock.
    duration_s: Option<f64>,
    /// What it gave.
    outputs: Json,
    /// Why it is not good; why it was skipped.
    error: Option<String>,
    /// `none`, `succeeded`, `failed` or `unknown`.
    #[schemars(with = "String")]
    undo: Undo,
}

/// A run as scripts see it. `alive`: whether a runner holds it.
pub fn shown(run: &Run, alive: bool) -> Shown {
    let mut shown = Shown {
        format: 1,
        run: String::new(),
        playbook: String::new(),
        state: state(run, alive),
        paused: run.paused.clone(),
        began_at: None,
        last_at: run.last.map(|(_, at, _)| at.to_string()),
        by: String::new(),
        params: Json::Null,
        verdict: run.verdict.clone(),
        outputs: if run.verdict.is_some() { run.outputs().unwrap_or(Json::Null) } else { Json::Null },
        steps: serde_json::Map::new(),
    };
    if let Some(record) = &run.began
        && let Event::RunBegan { run: id, playbook, by, params, .. } = &record.event
    {
        (shown.run, shown.playbook, shown.by, shown.params) = (id.clone(), playbook.clone(), by.clone(), params.clone());
        shown.began_at = Some(record.at.to_string());
    }
    for (id, unit) in run.units.iter().enumerate() {
        let step = ShownStep {
            title: run.text(id).head.title.clone(),
            state: unit.state,
            kind: run.text(id).head.uses.get_ref().clone(),
            attempts: unit.attempts,
            began_at: unit.began.filter(|_| began(unit.state, &unit.body)).map(|(at, _)| at.to_string()),
            ended_at: unit.ended.filter(|_| unit.state != State::NotReached).map(|(at, _)| at.to_string()),
            duration_s: match (unit.began, unit.ended) {
                (Some((_, from)), Some((_, to))) => Some((to - from).max(0.0)),
                _ => None,
            },
            outputs: unit.outputs.clone().unwrap_or_else(|| serde_json::json!({})),
            error: unit.error.clone(),
            undo: unit.undo,
        };
        shown.steps.insert(unit.path.to_string(), serde_json::to_value(step).unwrap_or(Json::Null));
    }
    shown
}

fn began(state: State, body: &Body) -> bool {
    !matches!(state, State::Pending | State::NotReached) || *body != Body::Leaf
}

/// `running`, `paused`, `ended` or `dead`.
pub fn state(run: &Run, alive: bool) -> &'static str {
    match (run.phase, &run.paused, alive) {
        (Phase::Ended, _, _) => "ended",
        (_, Some(_), _) => "paused",
        (_, None, true) => "running",
        (_, None, false) => "dead",
    }
}
