//! What names mean in a run: the values that expressions and templates of a step see. Secrets are not among them; the
//! engine adds them where a setting takes one.

use std::collections::BTreeMap;

use minijinja::Value;
use serde_json::{Map, Value as Json, json};

use super::{Id, Run, seconds};
use crate::{
    event::Event,
    expression::{self, Reference, value},
    plan::settings,
};

impl Run {
    /// Values for the names that a step uses.
    pub fn names(&self, id: Id, references: &[Reference]) -> Value {
        self.values(id, references, &[])
    }

    /// The same, with values of the caller's own, such as `out`, `before` or `secrets`.
    pub fn values(&self, id: Id, references: &[Reference], own: &[(&str, Value)]) -> Value {
        let unit = &self.units[id];
        let mut names = self.frame_names(unit.frame, references);
        let item_name;
        if let Some((parent, index)) = unit.item
            && let super::Body::Each { items, .. } = &self.units[parent].body
        {
            item_name = self.text(id).head.item.as_ref().map_or("item", |item| item.get_ref());
            names.insert(item_name, value(&items[index]));
            names.insert("index", Value::from(index));
        }
        names.extend(own.iter().cloned());
        expression::names(names)
    }

    fn frame_names(&self, frame: usize, references: &[Reference]) -> BTreeMap<&str, Value> {
        let uses = |name: &str| references.iter().any(|r| r.path[0] == name);
        let mut names = BTreeMap::new();
        if uses("params") {
            names.insert("params", value(&self.frames[frame].params));
        }
        if uses("steps") {
            names.insert("steps", self.step_names(frame, references));
        }
        if uses("run") {
            names.insert("run", self.run_names());
        }
        if uses("playbook")
            && let Some(Event::RunBegan { directory, .. }) = self.began.as_ref().map(|r| &r.event)
        {
            names.insert("playbook", value(json!({ "dir": directory })));
        }
        names
    }

    fn step_names(&self, frame: usize, references: &[Reference]) -> Value {
        let frame = &self.frames[frame];
        let mut steps = Map::new();
        for reference in references.iter().filter(|r| r.path[0] == "steps") {
            let Some(id) = reference.path.get(1).filter(|id| !steps.contains_key(*id)) else { continue };
            let path = frame.owner.map_or_else(|| id.clone(), |owner| format!("{}/{id}", self.units[owner].path));
            let Some(unit) = self.unit(&path).map(|unit| &self.units[unit]) else { continue };
            let mut outputs = match &unit.outputs {
                Some(Json::Object(outputs)) => outputs.clone(),
                _ => Map::new(),
            };
            outputs.insert("state".into(), json!(unit.state));
            steps.insert(id.clone(), Json::Object(outputs));
        }
        value(steps)
    }

    fn run_names(&self) -> Value {
        let Some(record) = &self.began else { return value(json!({})) };
        let Event::RunBegan { run, .. } = &record.event else { return value(json!({})) };
        let started = seconds(record.at);
        value(json!({ "id": run, "started_at": started, "scheduled_at": started, "home": self.home, "outcome": self.outcome() }))
    }

    /// The outputs of a playbook whose steps have settled.
    pub(super) fn playbook_outputs(&self, frame: usize) -> Result<Json, String> {
        let plan = &self.frames[frame].plan;
        let mut outputs = Map::new();
        for (name, node) in &plan.book.outputs {
            let references = settings::references(node, &json!({}));
            let names = expression::names(self.frame_names(frame, &references));
            let rendered = settings::render(node, &json!({}), &names).map_err(|(_, says, _)| format!("outputs.{}: {says}", name.name))?;
            outputs.insert(name.name.clone(), rendered.value);
        }
        Ok(Json::Object(outputs))
    }

    /// The outputs of the whole run.
    pub fn outputs(&self) -> Result<Json, String> {
        self.playbook_outputs(0)
    }

    /// The value of an expression at the end of the run.
    pub(super) fn at_end(&self, text: &str) -> Result<f64, String> {
        let expression = expression::Expression::parse(text).map_err(|wrong| wrong.says)?;
        let names = expression::names(self.frame_names(0, &expression.references));
        let found = expression.eval(&names).map_err(|wrong| wrong.says)?.ok_or("it is not known")?;
        if let Ok(number) = f64::try_from(found.clone()) {
            return Ok(number);
        }
        let text = found.as_str().ok_or_else(|| format!("`{text}` gives no point in time"))?;
        text.parse::<jiff::Timestamp>().map(seconds).map_err(|_| format!("`{text}` is no timestamp with a zone"))
    }
}

/// The names of the locks of a run, rendered.
pub fn locks(plan: &crate::plan::Plan, params: &Json, run: &str) -> Result<Vec<String>, String> {
    let names = value(json!({ "params": params, "run": { "id": run } }));
    let render = |lock: &toml::Spanned<String>| {
        let template = expression::Template::parse(lock.get_ref()).map_err(|wrong| wrong.says)?;
        let rendered = template.render(&names).map_err(|wrong| format!("locks: {}", wrong.says))?;
        rendered.as_ref().and_then(Json::as_str).map(str::to_owned).ok_or_else(|| "a lock's name is a text".to_owned())
    };
    let mut all = plan.book.head.locks.iter().map(render).collect::<Result<Vec<_>, String>>()?;
    all.sort();
    all.dedup();
    Ok(all)
}
