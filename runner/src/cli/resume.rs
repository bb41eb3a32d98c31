//! `runsheet resume`.

use clap::Args;

use super::{Failure, Outcome, drive, told};
use crate::store::{self, Home, Snapshot};

/// Goes on with a run that is paused, or whose runner died.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet resume last")]
pub(super) struct Resume {
    /// The run: an id, a unique beginning of one, or `last`.
    run: String,
    /// Go on with the playbook as it is now, if no step that has begun differs.
    #[arg(long)]
    accept_changes: bool,
    #[command(flatten)]
    manner: drive::Manner,
}

impl Resume {
    pub(super) fn run(&self) -> Outcome {
        let told = told(&self.run)?;
        if drive::is_over(&told.run) {
            return Err(Failure::usage(format!("run {} has ended; `runsheet show {}` tells how", told.folder.id, told.folder.id)));
        }
        let changed = changed(&told)?;
        let accepted = match (changed, self.accept_changes) {
            (None, _) => None,
            (Some(difference), false) => {
                return Err(Failure::usage(format!("the playbook has changed since the run began:\n{difference}"))
                    .hint("put it back as it was, or say --accept-changes if no step that has begun differs"));
            }
            (Some(_), true) => Some(self.accept(&told)?),
        };
        let home = Home::open().map_err(Failure::usage)?;
        drive::take_up(&home, told, Vec::new(), accepted, &self.manner)
    }

    /// The playbook as it is now. Errors: a step that has begun differs.
    fn accept(&self, told: &super::Told) -> Result<(std::sync::Arc<crate::plan::Plan>, Snapshot), Failure> {
        let name = root_name(told);
        let now = super::playbook(&name, false)?;
        let begun = told.run.units.iter().filter(|u| u.frame == 0 && (u.attempted || u.state != crate::run::State::Pending));
        let mut differ = Vec::new();
        for unit in begun {
            let id = &told.run.plan().steps[unit.step].id;
            let (old, new) = (told.run.plan(), &now.plan);
            let same = written(&old.book.source.text, id) == written(&new.book.source.text, id);
            if !same {
                differ.push(id.to_string());
            }
        }
        differ.dedup();
        let used_changed = now
            .sources
            .0
            .iter()
            .any(|(key, source)| *key != now.root && told.snapshot.texts.get(key).is_none_or(|(_, text)| *text != source.text));
        if used_changed {
            return Err(Failure::usage("a playbook that this one uses has changed: that cannot be accepted in the middle of a run"));
        }
        if !differ.is_empty() {
            return Err(Failure::usage(format!("these steps have begun and differ now: {}", differ.join(", ")))
                .hint("roll the run back, and begin a new one"));
        }
        let snapshot = Snapshot::new(told.snapshot.playbook.clone(), now.root, now.directory, told.snapshot.params.clone(), &now.sources);
        Ok((now.plan, snapshot))
    }
}

/// A step as it is written, wherever it stands in the text.
fn written(text: &str, id: &str) -> Option<toml::Value> {
    let table: toml::Table = toml::from_str(text).ok()?;
    ["steps", "always"].into_iter().find_map(|section| table.get(section)?.get(id).cloned())
}

fn root_name(told: &super::Told) -> String {
    match told.snapshot.root.strip_prefix("library:") {
        Some(name) => name.to_owned(),
        None => told.snapshot.directory.join(&told.snapshot.root).display().to_string(),
    }
}

/// How the texts differ from those of the run; nothing when they do not, or are gone.
fn changed(told: &super::Told) -> Result<Option<String>, Failure> {
    let Ok((now, _, _)) = store::load(&root_name(told)) else { return Ok(None) };
    let mut difference = String::new();
    for (key, (name, text)) in &told.snapshot.texts {
        let new = now.0.get(key).map_or("", |source| source.text.as_str());
        if new != text {
            difference += &format!("{name}:\n{}", lines(text, new));
        }
    }
    Ok((!difference.is_empty()).then_some(difference))
}

/// The lines that only one of two texts has, at most twenty.
fn lines(old: &str, new: &str) -> String {
    let gone = old.lines().filter(|l| !new.lines().any(|n| n == *l)).map(|l| format!("  - {l}\n"));
    let come = new.lines().filter(|l| !old.lines().any(|o| o == *l)).map(|l| format!("  + {l}\n"));
    gone.chain(come).take(20).collect()
}
