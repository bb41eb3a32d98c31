//! `runsheet rehearse`.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use clap::Args;
use minijinja::Value;
use steps::world::View;

use super::{Failure, Outcome, drive, playbook, run::Params, say};
use crate::{
    expression::{self, Expression, unknown, value},
    plan::{Action, Each, Plan, param, settings},
    report::plain_line,
    secret::Secrets,
};

/// Goes and looks, changes nothing, and says what each step would do.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet rehearse recovery.toml --set cluster=main")]
pub(super) struct Rehearse {
    /// The playbook: a file, or a name of the library.
    playbook: String,
    #[command(flatten)]
    params: Params,
}

impl Rehearse {
    pub(super) fn run(&self) -> Outcome {
        let playbook = playbook(&self.playbook, true)?;
        let params = self.params.read(&playbook.plan.book)?;
        drive::tools(&playbook.plan, &playbook.directory)?;
        let view = drive::view(&playbook.directory, "rehearsal")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failure::usage(e.to_string()))?;
        let mut rehearsal = Rehearsal { view, directory: &playbook.directory, secrets: Secrets::default(), lines: Vec::new(), trouble: 0 };
        runtime.block_on(rehearsal.walk(&playbook.plan, &value(&params)));
        let text = rehearsal.secrets.redactor().text(&rehearsal.lines.join("\n"));
        say(&text);
        match rehearsal.trouble {
            0 => Ok(0),
            n => Err(Failure {
                code: 1,
                says: format!("{n} step{} could not be looked at; nothing was changed", if n == 1 { "" } else { "s" }),
                hint: None,
            }),
        }
    }
}

struct Rehearsal<'d> {
    view: View,
    directory: &'d Path,
    secrets: Secrets,
    lines: Vec<String>,
    trouble: usize,
}

/// A playbook that is still to be walked through: what it is under, its plan and its params.
type Level = (String, Arc<Plan>, Value);

impl Rehearsal<'_> {
    async fn walk(&mut self, plan: &Arc<Plan>, params: &Value) {
        let mut levels: Vec<Level> = vec![(String::new(), plan.clone(), params.clone())];
        while let Some((prefix, plan, params)) = levels.pop() {
            if !prefix.is_empty() {
                self.lines.push(format!("{prefix}: {}", plain_line(&plan.book.head.title)));
            }
            for &at in &plan.order {
                let path = if prefix.is_empty() { plan.steps[at].id.to_string() } else { format!("{prefix}/{}", plan.steps[at].id) };
                levels.extend(self.step(&plan, at, &params, &path).await);
            }
        }
    }

    async fn step(&mut self, plan: &Plan, at: usize, params: &Value, path: &str) -> Option<Level> {
        let step = &plan.steps[at];
        let mut notes = String::new();
        if let Some(when) = &step.when {
            match when.holds(&self.names(plan, params, None)) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => {
                    self.lines.push(format!("- {path}: skipped, `{}` is false", when.text()));
                    return None;
                }
                Ok(None) => notes = format!(" (only if `{}`, which a run will know)", when.text()),
                Err(wrong) => notes = format!(" (when: {})", wrong.says),
            }
        }
        let item = match &step.each {
            None => None,
            Some(Each::Items(items)) => {
                notes += &format!(" (for each of {} items; this is the first)", items.len());
                items.first().map(value)
            }
            Some(Each::Expression(each)) => {
                notes += &format!(" (for each of `{}`)", each.text());
                Some(self.first_of(each, plan, params))
            }
        };
        let says = match &step.action {
            Action::Playbook(inner) => {
                let given = self.given(plan, at, inner, params, item);
                self.lines.push(format!("  {path}: enters {}{notes}", plain_line(&inner.book.head.title)));
                return Some((path.to_owned(), inner.clone(), given));
            }
            Action::Kind(_) => self.look(plan, at, params, item).await,
        };
        match says {
            Ok(says) => self.lines.push(format!("  {path}: {}{notes}", plain_line(&says))),
            Err(says) => {
                self.trouble += 1;
                self.lines.push(format!("✗ {path}: {}{notes}", plain_line(&says)));
            }
        }
        None
    }

    fn first_of(&self, each: &Expression, plan: &Plan, params: &Value) -> Value {
        let found = each.eval(&self.names(plan, params, None)).ok().flatten();
        found.and_then(|list| list.try_iter().ok()?.next()).unwrap_or_else(unknown)
    }

    async fn look(&mut self, plan: &Plan, at: usize, params: &Value, item: Option<Value>) -> Result<String, String> {
        let (Action::Kind(facets), text) = (&plan.steps[at].action, plan.text(at)) else { return Ok(String::new()) };
        let item_name = text.head.item.as_ref().map_or("item", |i| i.get_ref());
        let secrets = self.secret_values(plan, &settings::used(&text.with, &facets.settings, &mut Vec::new()))?;
        let mut names = self.table(plan, params, item.map(|item| (item_name, item)));
        names.insert("secrets", secrets);
        let rendered = settings::render(&text.with, &facets.settings, &expression::names(names)).map_err(|(_, says, _)| says)?;
        if rendered.unknown {
            return Ok(format!("{}, with values that a run will know", facets.kind.name));
        }
        let step = (facets.kind.read)(rendered.value).map_err(|refused| refused.says)?;
        let before = step.look(&self.view).await.map_err(|e| e.says().to_owned());
        match before {
            Ok(before) => step.say(&before).map_err(|e| e.says().to_owned()),
            // What an earlier step is to make is not there yet.
            Err(says) if !plan.steps[at].needs.is_empty() || !plan.steps[at].after.is_empty() => {
                Ok(format!("{}; now: {says}", facets.kind.name))
            }
            Err(says) => Err(says),
        }
    }

    fn secret_values(&mut self, plan: &Plan, used: &[settings::Used]) -> Result<Value, String> {
        let mut values = BTreeMap::new();
        for name in used.iter().filter(|u| u.reference.path[0] == "secrets").filter_map(|u| u.reference.path.get(1)) {
            if let Some((_, secret)) = plan.book.secrets.iter().find(|(n, _)| n.name == *name) {
                values.insert(name.clone(), Value::from(self.secrets.get(secret.from.get_ref(), self.directory)?));
            }
        }
        Ok(Value::from_pairs(values))
    }

    /// The params of a playbook within, as far as they are known.
    fn given(&self, plan: &Plan, at: usize, inner: &Plan, params: &Value, item: Option<Value>) -> Value {
        let text = plan.text(at);
        let item_name = text.head.item.as_ref().map_or("item", |i| i.get_ref());
        let names = expression::names(self.table(plan, params, item.map(|item| (item_name, item))));
        let mut all = BTreeMap::new();
        for (name, param) in &inner.book.params {
            let written = match &text.with.value {
                crate::book::Tree::Table(entries) => entries.iter().find(|(key, _)| key.name == name.name).map(|(_, node)| node),
                _ => None,
            };
            let given = match written {
                Some(node) => settings::render(node, &serde_json::json!({}), &names)
                    .ok()
                    .filter(|r| !r.unknown)
                    .and_then(|r| param::coerce(param, &r.value).ok())
                    .map(value),
                None => param.default.as_ref().and_then(|d| param::coerce(param, &crate::book::json(d.get_ref())).ok()).map(value),
            };
            all.insert(name.name.clone(), given.unwrap_or_else(unknown));
        }
        Value::from_pairs(all)
    }

    fn names(&self, plan: &Plan, params: &Value, item: Option<(&str, Value)>) -> Value {
        expression::names(self.table(plan, params, item))
    }

    fn table<'n>(&self, plan: &Plan, params: &Value, item: Option<(&'n str, Value)>) -> BTreeMap<&'n str, Value> {
        let steps = Value::from_pairs(plan.steps.iter().map(|step| (step.id.to_string(), unknown())));
        let now = crate::run::seconds(crate::journal::now());
        let run = serde_json::json!({ "id": "rehearsal", "started_at": now, "scheduled_at": now, "home": "/nonexistent", "outcome": "succeeded" });
        let mut names = BTreeMap::from([("params", params.clone()), ("steps", steps), ("run", value(run))]);
        names.insert("playbook", value(serde_json::json!({ "dir": self.directory.display().to_string() })));
        if let Some((name, item)) = item {
            names.insert(name, item);
            names.insert("index", Value::from(0));
        }
        names
    }
}
