use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    digest::Algorithm,
    place::{Place, remove},
    transfer::{same, transfer},
    walk::{Tree, What},
};
use crate::{
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Move>();

/// How a copy across file systems is verified: nobody sees the checksum, so the fastest safe one.
const ALGORITHM: Algorithm = Algorithm::Blake3;

/// Moves a file, a link or a whole tree.
///
/// On one file system that is a rename. Across file systems it is copied as `file.copy` does, verified by reading back, and only
/// then removed at its old place. `to` is the new name, never a directory to move into; missing directories on the way are
/// made, mode 0700. The undo moves it back, in the same two ways.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Move {
    /// The file, link or directory to move.
    from: String,
    /// Where it is to be; nothing may be there.
    to: String,
}

/// The two places.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {
    from: Place,
    to: Place,
    /// Whether they are on different file systems.
    across: bool,
    /// Device and inode of what is to be moved, which a rename keeps.
    was: (u64, u64),
}

/// What was moved.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Moved {
    /// The absolute path where it is now.
    path: String,
}

impl Step for Move {
    const NAME: &'static str = "file.move";
    const EXAMPLES: &'static [&'static str] = &["from = \"old.txt\"\nto = \"kept/old.txt\"\n", "from = \"data\"\nto = \"data.was\"\n"];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Moved;

    fn effect(&self) -> Effect {
        Effect::Write
    }
    fn reversal(&self) -> Reversal {
        Reversal::Exact
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let (from, to) = (self.from.clone(), self.to.clone());
        view.blocking(move |view| look(view, &from, &to)).await
    }
    fn say(&self, before: &Before) -> String {
        let how = if before.across { ", by a verified copy since it is on another file system" } else { "" };
        format!("move {} to {}{how}", before.from.path.display(), before.to.path.display())
    }
    async fn apply(&self, world: &World, before: &Before) -> Result<Moved, Error> {
        let (from, to, across, was) = (before.from.clone(), before.to.clone(), before.across, before.was);
        world
            .blocking(move |world| {
                carry(world, &from, &to, across, was)?;
                Ok(Moved { path: to.path.display().to_string() })
            })
            .await
    }
    async fn undo(&self, world: &World, before: &Before) -> Result<(), Error> {
        let (from, to, across, was) = (before.from.clone(), before.to.clone(), before.across, before.was);
        world
            .blocking(move |world| {
                back(world, &from, &to, across, was)?;
                remove(world, &from.staged)?;
                to.tidy(world)
            })
            .await
    }
}

fn look(view: &View, from: &str, to: &str) -> Result<Before, Error> {
    let (from, to) = (Place::look(view, from)?, Place::look(view, to)?);
    let Some(there) = view.symlink_metadata(&from.path)? else {
        return Err(Error::Final(format!("there is nothing at {}; check the path", from.path.display())));
    };
    if view.symlink_metadata(&to.path)?.is_some() {
        return Err(Error::Final(format!("{} is already there; remove it, or choose another `to`", to.path.display())));
    }
    let parent = to.parents.first().unwrap_or(&to.path).parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let (source, target) = (view.resolve(&from.path)?, view.resolve(&parent)?);
    if there.is_dir() && source.zip(target).is_some_and(|(source, target)| target.starts_with(source)) {
        return Err(Error::Final(format!("{} cannot be moved into itself; choose another `to`", from.path.display())));
    }
    let device = view.metadata(&parent)?.map(|parent| parent.dev());
    Ok(Before { across: device != Some(there.dev()), was: (there.dev(), there.ino()), from, to })
}

fn identity(view: &View, path: &Path) -> Result<Option<(u64, u64)>, Error> {
    Ok(view.symlink_metadata(path)?.map(|there| (there.dev(), there.ino())))
}

fn carry(world: &World, from: &Place, to: &Place, across: bool, was: (u64, u64)) -> Result<(), Error> {
    match (identity(world, &from.path)?, identity(world, &to.path)?) {
        (Some(now), _) if !across && now != was => {
            Err(Error::Final(format!("{} is no longer what this step looked at; start again", from.path.display())))
        }
        (Some(_), None) if across => {
            ship(world, from, to)?;
            clear(world, from)
        }
        (Some(_), None) => {
            to.prepare(world)?;
            world.rename_new(&from.path, &to.path)
        }
        // The copy has landed, and what it was made from is still whole.
        (Some(_), Some(_)) if across && !to.is_staged(world)? && alike(world, &from.path, &to.path)? => clear(world, from),
        (Some(_), Some(_)) => {
            if across && !to.is_staged(world)? {
                world.create_new(&to.staged)?;
            }
            Err(to.taken())
        }
        (None, Some(now)) if now == was || (across && !to.is_staged(world)?) => remove(world, &from.aside),
        (None, _) => {
            Err(Error::Final(format!("{} is gone, and {} is not what it was; look for it", from.path.display(), to.path.display())))
        }
    }
}

fn back(world: &World, from: &Place, to: &Place, across: bool, was: (u64, u64)) -> Result<(), Error> {
    match (identity(world, &from.path)?, identity(world, &to.path)?) {
        (Some(_), None) => remove(world, &from.aside),
        // The undo has copied it back, or the step never removed it.
        (Some(now), Some(_)) if across && (now == was || !from.is_staged(world)?) => {
            if to.is_staged(world)? {
                return Err(to.taken());
            }
            remove(world, &from.aside)?;
            world.rename_new(&to.path, &to.staged)
        }
        (Some(now), Some(_)) if now == was => Ok(()),
        (Some(_), Some(_)) => Err(from.taken()),
        (None, Some(_)) if across => {
            ship(world, to, from)?;
            remove(world, &from.aside)?;
            world.rename_new(&to.path, &to.staged)
        }
        (None, Some(_)) => world.rename_new(&to.path, &from.path),
        (None, None) => {
            Err(Error::Final(format!("neither {} nor {} is there; put it back from a backup", from.path.display(), to.path.display())))
        }
    }
}

/// Copies across file systems, and moves the verified copy into place.
fn ship(world: &World, from: &Place, to: &Place) -> Result<(), Error> {
    to.prepare(world)?;
    let tree = Tree::walk(world, &from.path, None, &|| world.go_on())?;
    transfer(world, &tree, &to.staged, ALGORITHM, None)?;
    world.rename_new(&to.staged, &to.path)
}

/// Removes what was copied: first from its name, so that whatever has the name is whole.
fn clear(world: &World, from: &Place) -> Result<(), Error> {
    world.rename_new(&from.path, &from.aside)?;
    remove(world, &from.aside)
}

fn alike(world: &World, a: &Path, b: &Path) -> Result<bool, Error> {
    let tree = Tree::walk(world, a, None, &|| world.go_on())?;
    if let [entry] = tree.entries.as_slice()
        && matches!(entry.what, What::Link(_))
    {
        let other = Tree::walk(world, b, None, &|| world.go_on())?;
        return Ok(other.entries.iter().map(|other| &other.what).eq([&entry.what]));
    }
    Ok(same(world, &tree, b, ALGORITHM)?.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::stage::*, *};

    #[tokio::test]
    async fn a_rename_is_undone() {
        let stage = Stage::new();
        for (from, to) in [("old.txt", "deep/er/old"), ("data", "data.was"), ("data.was/sub/link", "link")] {
            let out = stage.round(&step::<Move>(json!({ "from": from, "to": to }))).await.unwrap();
            assert_eq!(out["path"], stage.path(to).to_str().unwrap());
        }
    }

    #[tokio::test]
    async fn across_file_systems_it_is_copied_and_undone() {
        let Some(other) = elsewhere() else { return eprintln!("not run: /dev/shm is not another file system") };
        for from in ["old.txt", "data", "data/sub/link"] {
            let stage = Stage::new();
            let to = other.path().join(from.replace('/', "_"));
            let start = stage.seen();
            stage.round(&step::<Move>(json!({ "from": from, "to": to }))).await.unwrap();
            let left: Vec<_> = start.keys().filter(|path| !path.starts_with(from)).cloned().collect();
            assert_eq!(stage.seen().into_keys().collect::<Vec<_>>(), left);
            assert!(to.symlink_metadata().is_ok());
        }
    }

    #[tokio::test]
    async fn across_file_systems_every_state_that_a_crash_leaves_is_finished_and_undone() {
        let Some(other) = elsewhere() else { return eprintln!("not run: /dev/shm is not another file system") };
        // How far `apply` and then `undo` came: staged, landed, source renamed, copied back.
        for state in 0..4 {
            for finish in [false, true] {
                let stage = Stage::new();
                let start = stage.seen();
                let to = other.path().join(format!("{state}{finish}"));
                let step: Move = step(json!({ "from": "data", "to": to }));
                let before = step.look(&stage.world).await.unwrap();
                let (from, to) = (&before.from, &before.to);
                match state {
                    0 => std::fs::create_dir(&to.staged).unwrap(),
                    1 | 3 => ship(&stage.world, from, to).unwrap(),
                    _ => {
                        ship(&stage.world, from, to).unwrap();
                        std::fs::rename(&from.path, &from.aside).unwrap();
                        std::fs::remove_file(from.aside.join("a.txt")).unwrap();
                    }
                }
                if finish && state < 3 {
                    step.apply(&stage.world, &before).await.unwrap();
                    assert!(!from.path.exists() && !from.aside.exists() && to.path.join("a.txt").exists());
                }
                if state == 3 {
                    std::fs::rename(&from.path, &from.aside).unwrap();
                    ship(&stage.world, to, from).unwrap();
                }
                for _ in 0..2 {
                    step.undo(&stage.world, &before).await.unwrap();
                    assert_eq!(stage.seen(), start, "state {state}, finish {finish}");
                    assert!(!to.path.exists() && !to.staged.exists());
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_refused() {
        let stage = Stage::new();
        for (from, to, says) in
            [("absent", "b", "nothing at"), ("data", "old.txt", "already there"), ("data", "data/sub/x/y", "into itself")]
        {
            let e = stage.round(&step::<Move>(json!({ "from": from, "to": to }))).await.unwrap_err();
            assert!(e.says().contains(says), "{from} {to}: {}", e.says());
        }
    }

    #[tokio::test]
    async fn what_others_put_there_is_left_alone() {
        let stage = Stage::new();
        let step: Move = step(json!({ "from": "data", "to": "new" }));
        let before = step.look(&stage.world).await.unwrap();
        stage.put("new", "other");
        let start = stage.seen();
        assert!(matches!(step.apply(&stage.world, &before).await, Err(Error::Final(_))));
        step.undo(&stage.world, &before).await.unwrap();
        assert_eq!(stage.seen(), start);
    }

    fn elsewhere() -> Option<tempfile::TempDir> {
        let other = tempfile::tempdir_in("/dev/shm").ok()?;
        let device = |path: &Path| path.metadata().map(|there| there.dev()).ok();
        (device(other.path()) != device(&std::env::temp_dir())).then_some(other)
    }
}
