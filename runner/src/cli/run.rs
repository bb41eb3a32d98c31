//! `runsheet run`.

use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::{Failure, Outcome, drive, playbook};
use crate::{
    book::{Book, Type, nearest},
    plan::param,
    store::{Home, Snapshot},
};

/// Runs a playbook and records the outcome of every step.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet run recovery.toml --set cluster=main --set target_time=2026-11-23T03:00:00Z")]
pub(super) struct RunCommand {
    /// The playbook: a file, or a name of the library.
    playbook: String,
    #[command(flatten)]
    params: Params,
    #[command(flatten)]
    manner: drive::Manner,
}

/// Params as they are typed.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Params {
    /// Gives a param its value; again for each param.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl RunCommand {
    pub(super) fn run(&self) -> Outcome {
        let playbook = playbook(&self.playbook, false)?;
        let params = self.params.read(&playbook.plan.book)?;
        let home = Home::open().map_err(Failure::usage)?;
        let snapshot = Snapshot::new(self.playbook.clone(), playbook.root, playbook.directory, params, &playbook.sources);
        drive::start(&home, playbook.plan, &snapshot, &self.manner)
    }
}

impl Params {
    /// The params of a playbook from what was typed. Errors: all that are wrong or missing, at once.
    pub(super) fn read(&self, book: &Book) -> Result<Json, Failure> {
        let (mut params, mut wrong) = (Map::new(), Vec::new());
        for typed in &self.set {
            let Some((name, value)) = typed.split_once('=') else {
                wrong.push(format!("`--set {typed}`: write --set name=value"));
                continue;
            };
            match book.params.iter().find(|(n, _)| n.name == name) {
                None => {
                    let near = nearest(name, book.params.iter().map(|(n, _)| n.name.as_str()));
                    wrong.push(format!("there is no param `{name}`{}", near.map_or(String::new(), |n| format!("; did you mean `{n}`?"))));
                }
                Some((_, param)) if param.kind == Type::Secret => {
                    wrong.push(format!("`{name}` is a secret: it is not typed on a command line; a playbook with [secrets.{name}] that uses this one gives it"));
                }
                Some((_, param)) => match param::coerce(param, &json!(value)) {
                    Ok(value) => drop(params.insert(name.to_owned(), absolute(param.kind, value))),
                    Err(says) => wrong.push(format!("{name}: {says}")),
                },
            }
        }
        for (name, param) in
            book.params.iter().filter(|(name, _)| !self.set.iter().any(|s| s.split_once('=').is_some_and(|(n, _)| n == name.name)))
        {
            match &param.default {
                Some(default) => {
                    if let Ok(value) = param::coerce(param, &crate::book::json(default.get_ref())) {
                        params.insert(name.name.clone(), value);
                    }
                }
                None if param.optional => drop(params.insert(name.name.clone(), Json::Null)),
                None => wrong.push(format!(
                    "{} is not given: --set {}=…{}",
                    name.name,
                    name.name,
                    param.about.as_ref().map_or(String::new(), |a| format!("  ({a})"))
                )),
            }
        }
        if wrong.is_empty() { Ok(Json::Object(params)) } else { Err(Failure::usage(format!("nothing ran:\n  {}", wrong.join("\n  ")))) }
    }
}

/// A relative path that is typed starts where it is typed; one in a playbook starts at the playbook.
fn absolute(kind: Type, value: Json) -> Json {
    match (kind, value.as_str()) {
        (Type::Path, Some(path)) => std::path::absolute(path).map_or(value.clone(), |path| json!(path)),
        _ => value,
    }
}
