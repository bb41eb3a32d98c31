use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    attributes::Attributes,
    kept::{KEPT_MAX, Kept},
    place::{Place, plain},
    walk::{Tree, What},
};
use crate::{
    setting::Size,
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Remove>();

/// Removes a file, a link or an empty directory; a whole tree only where the playbook says so, and names a root that it is under.
///
/// That nothing is there is a success with `removed = 0`. A link is removed itself, never what it leads to. A file of up to
/// 1 MiB, a link and an empty directory are kept in the record of the run, and the undo puts them back with owner, mode and
/// time. A bigger file is refused unless `permanent = true`. What is removed with `recursive` or `permanent` can never be
/// put back: `file.move` sets aside instead.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remove {
    /// The file, link or directory to remove.
    path: String,
    /// Whether a directory may be removed with all that is in it; this needs `within`, and cannot be undone.
    #[serde(default)]
    recursive: bool,
    /// A directory that `path` has to be under, with links followed on the way; it is never removed itself.
    within: Option<String>,
    /// Whether a file of any size may be removed for ever; nothing is kept, and it cannot be undone.
    #[serde(default)]
    permanent: bool,
}

/// What is to be removed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {
    place: Place,
    was: Option<Was>,
}

/// What was there.
#[derive(Serialize, Deserialize)]
struct Was {
    /// Device and inode.
    identity: (u64, u64),
    /// Files, links and directories.
    count: u64,
    /// Bytes in the files.
    bytes: u64,
    keep: Keep,
}

/// What is kept of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Keep {
    File(Kept),
    Link {
        says: PathBuf,
        attributes: Attributes,
    },
    Directory(Attributes),
    /// Nothing: it goes for ever.
    Nothing,
}

/// What was removed.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Removed {
    /// Files, links and directories removed; 0 when nothing was there.
    removed: u64,
    /// Bytes in the files removed.
    bytes: u64,
}

impl Step for Remove {
    const NAME: &'static str = "file.remove";
    const EXAMPLES: &'static [&'static str] = &["path = \"old.txt\"\n", "path = \"data/sub\"\nrecursive = true\nwithin = \"data\"\n"];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Removed;

    fn effect(&self) -> Effect {
        Effect::Destroy
    }
    fn reversal(&self) -> Reversal {
        if self.recursive || self.permanent { Reversal::Never } else { Reversal::Exact }
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let settings = Self { path: self.path.clone(), within: self.within.clone(), ..*self };
        view.blocking(move |view| settings.look_now(view)).await
    }
    fn say(&self, before: &Before) -> String {
        let path = before.place.path.display();
        match &before.was {
            None => format!("nothing to remove: {path} is not there"),
            Some(Was { count: 1, bytes, keep, .. }) => {
                let ever = if matches!(keep, Keep::Nothing) { ", for ever" } else { "" };
                format!("remove {path} ({}){ever}", Size(*bytes))
            }
            Some(Was { count, bytes, .. }) => format!("remove {path} with all {count} entries in it ({}), for ever", Size(*bytes)),
        }
    }
    async fn apply(&self, world: &World, before: &Before) -> Result<Removed, Error> {
        let Some(was) = &before.was else {
            return match world.symlink_metadata(&before.place.path)? {
                None => Ok(Removed { removed: 0, bytes: 0 }),
                Some(_) => Err(replaced(&before.place.path)),
            };
        };
        let (path, within) = (before.place.path.clone(), self.within.clone());
        if world.symlink_metadata(&path)?.is_some() && !was.is_at(world, &path)? {
            return Err(replaced(&path));
        }
        let recursive = self.recursive;
        let (removed, bytes) = (was.count, was.bytes);
        world
            .blocking(move |world| {
                if let Some(within) = within {
                    refuse_outside(world, &path, &within)?;
                }
                remove(world, &path, recursive)?;
                Ok(Removed { removed, bytes })
            })
            .await
    }
    async fn undo(&self, world: &World, before: &Before) -> Result<(), Error> {
        let Before { place, was: Some(was) } = before else { return Ok(()) };
        if world.symlink_metadata(&place.path)?.is_some() {
            // It was never removed, or an undo has put it back; else it is someone else's.
            return match was.is_at(world, &place.path)? {
                true if matches!(was.keep, Keep::Nothing) => Err(perhaps_less(&place.path)),
                true => place.tidy(world),
                false => Err(replaced(&place.path)),
            };
        }
        match &was.keep {
            Keep::File(kept) => kept.restore(world, place)?,
            Keep::Link { says, attributes } => {
                place.prepare(world)?;
                world.make_link(says, &place.staged)?;
                attributes.put_on(world, &place.staged)?;
                world.rename_new(&place.staged, &place.path)?;
            }
            Keep::Directory(attributes) => {
                place.prepare(world)?;
                world.make_directory(&place.staged)?;
                attributes.put_on(world, &place.staged)?;
                world.rename_new(&place.staged, &place.path)?;
            }
            Keep::Nothing => {
                let says = "was removed for ever; put it back from a backup";
                return Err(Error::Final(format!("{} {says}", place.path.display())));
            }
        }
        place.tidy(world)
    }
}

impl Was {
    /// Whether what is at the path is what was there, or what an undo has put back.
    fn is_at(&self, view: &View, path: &Path) -> Result<bool, Error> {
        let Some(there) = view.symlink_metadata(path)? else { return Ok(false) };
        match &self.keep {
            Keep::File(kept) => kept.is_at(view, path),
            Keep::Link { says, .. } => Ok(there.is_symlink() && view.link(path)? == *says),
            Keep::Directory(_) => Ok(there.is_dir()),
            Keep::Nothing => Ok((there.dev(), there.ino()) == self.identity),
        }
    }
}

impl Remove {
    fn look_now(&self, view: &View) -> Result<Before, Error> {
        let path = plain(view, &self.path)?;
        match &self.within {
            Some(within) => refuse_outside(view, &path, within)?,
            None if self.recursive => {
                let says = "name in `within` the directory that `path` has to be under";
                return Err(Error::Final(format!("`recursive` needs `within`: {says}")));
            }
            None => {}
        }
        let place = Place::look(view, &self.path)?;
        let was = view.symlink_metadata(&place.path)?.map(|there| self.was(view, &place.path, &there)).transpose()?;
        Ok(Before { place, was })
    }
    fn was(&self, view: &View, path: &Path, there: &std::fs::Metadata) -> Result<Was, Error> {
        let identity = (there.dev(), there.ino());
        let tree = Tree::walk(view, path, None, &|| Ok(()))?;
        let count = tree.entries.len() as u64 + u64::from(tree.directory);
        if let Some(mounted) = tree.entries.iter().find(|entry| entry.device != tree.device) {
            let says = "is on another file system, mounted there; unmount it first";
            return Err(Error::Final(format!("{} {says}", tree.at(mounted).display())));
        }
        Ok(Was { identity, count, bytes: tree.bytes(), keep: self.keep(view, &tree)? })
    }
    fn keep(&self, view: &View, tree: &Tree) -> Result<Keep, Error> {
        let refuse = |says: &str| Err(Error::Final(format!("{} {says}", tree.root.display())));
        if tree.directory && !tree.entries.is_empty() && !self.recursive {
            return refuse("is a directory that is not empty; say `recursive = true` and `within`, or remove what is in it first");
        }
        if Step::reversal(self) == Reversal::Never {
            return Ok(Keep::Nothing);
        }
        match tree.entries.first().map(|entry| &entry.what) {
            None => Ok(Keep::Directory(tree.attributes)),
            Some(What::Link(says)) => Ok(Keep::Link { says: says.clone(), attributes: tree.attributes }),
            Some(What::File { size }) if *size > KEPT_MAX => {
                refuse("is bigger than 1 MiB, so no undo could put it back; say `permanent = true`, or set it aside by `file.move`")
            }
            Some(What::File { .. }) => match Kept::look(view, &tree.root)? {
                Some(kept) => Ok(Keep::File(kept)),
                None => refuse("went away while it was looked at"),
            },
            Some(What::Other(kind)) => refuse(&format!("is a {kind}, which no undo could put back; say `permanent = true`")),
            Some(What::Directory) => unreachable!("BUG: a directory has no entry of its own"),
        }
    }
}

/// Errors: the path is not beneath the directory, links on the way followed.
fn refuse_outside(view: &View, path: &Path, within: &str) -> Result<(), Error> {
    let refuse = |says: &str| Err(Error::Final(format!("{} is not removed: {says}", path.display())));
    let Some(root) = view.resolve(within)? else {
        let absent = view.symlink_metadata(path)?.is_none();
        return if absent { Ok(()) } else { refuse(&format!("`within` ({}) does not exist", view.path(within).display())) };
    };
    if root == Path::new("/") {
        return refuse("`within` is the root of the file system, under which everything is; name a narrower directory");
    }
    let parent = path.parent().map(|parent| view.resolve(parent)).transpose()?.flatten();
    match parent.zip(path.file_name()).map(|(parent, name)| parent.join(name)) {
        Some(real) if real != root && !real.starts_with(&root) => {
            refuse(&format!("it is {}, which is not under {}", real.display(), root.display()))
        }
        Some(real) if real == root => refuse("it is `within` itself"),
        Some(_) | None => Ok(()),
    }
}

fn remove(world: &World, path: &Path, recursive: bool) -> Result<(), Error> {
    let Some(there) = world.symlink_metadata(path)? else { return Ok(()) };
    if !there.is_dir() {
        return world.remove_file(path);
    }
    if recursive {
        let children = world.list(path)?;
        for (done, child) in children.iter().enumerate() {
            world.go_on()?;
            super::place::remove(world, child)?;
            world.progress(done as u64 + 1, children.len() as u64, "entries");
        }
    }
    world.remove_directory(path)?;
    world.sync_directory(path)
}

fn replaced(path: &Path) -> Error {
    Error::Final(format!("{} is no longer what this step looked at; it is left alone: look at it and start again", path.display()))
}

fn perhaps_less(path: &Path) -> Error {
    Error::Final(format!("{} may have lost some of what was in it; compare it with a backup", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::{super::stage::*, *};

    #[tokio::test]
    async fn what_is_kept_is_put_back() {
        for (path, removed, bytes) in
            [("old.txt", 1, 4), ("data/sub/b.bin", 1, 64 << 10), ("data/sub/link", 1, 0), ("data/sub/empty", 1, 0), ("absent", 0, 0)]
        {
            let stage = Stage::new();
            let out = stage.round(&step::<Remove>(json!({ "path": path }))).await.unwrap();
            assert_eq!((out["removed"].as_u64(), out["bytes"].as_u64()), (Some(removed), Some(bytes)), "{path}");
            assert!(stage.path(path).symlink_metadata().is_err());
        }
    }

    #[tokio::test]
    async fn a_tree_is_removed_under_its_root_only() {
        let stage = Stage::new();
        symlink("..", stage.path("data/up")).unwrap();
        let remove = |path: &str, within: &str| step::<Remove>(json!({ "path": path, "recursive": true, "within": within }));
        for (path, within, says) in [
            ("data", "data", "`within` itself"),
            ("data/up/data", "data", "`within` itself"),
            ("data/up/data/../old.txt", "data", "not under"),
            ("old.txt", "data", "not under"),
            ("data", "/", "narrower"),
            ("data", "absent", "does not exist"),
            ("data/..", ".", "no name"),
        ] {
            let e = stage.round(&remove(path, within)).await.unwrap_err();
            assert!(e.says().contains(says), "{path} in {within}: {}", e.says());
        }
        assert!(stage.round(&step::<Remove>(json!({ "path": "data", "recursive": true }))).await.is_err());
        // A link that leads out is removed itself.
        assert_eq!(stage.round(&remove("data/up", "data")).await.unwrap()["removed"], 1);
        assert_eq!(stage.round(&remove("data/sub", "data")).await.unwrap()["removed"], 4);
        assert!(stage.path("data/a.txt").exists() && stage.path("old.txt").exists() && !stage.path("data/sub").exists());
    }

    #[tokio::test]
    async fn what_is_refused() {
        let stage = Stage::new();
        stage.put("big", vec![0; (1 << 20) + 1]);
        for (with, says) in [(json!({ "path": "data" }), "not empty"), (json!({ "path": "big" }), "permanent")] {
            let e = stage.round(&step::<Remove>(with)).await.unwrap_err();
            assert!(e.says().contains(says), "{}", e.says());
        }
        assert_eq!(stage.round(&step::<Remove>(json!({ "path": "big", "permanent": true }))).await.unwrap()["removed"], 1);
    }

    #[tokio::test]
    async fn what_others_put_there_is_left_alone() {
        for with in [json!({ "path": "old.txt" }), json!({ "path": "absent" }), json!({ "path": "old.txt", "permanent": true })] {
            let stage = Stage::new();
            let remove: Remove = step(with);
            let before = remove.look(&stage.world).await.unwrap();
            stage.put("other", "other");
            std::fs::rename(stage.path("other"), &before.place.path).unwrap();
            assert!(remove.apply(&stage.world, &before).await.is_err());
            let _ = remove.undo(&stage.world, &before).await;
            assert_eq!(std::fs::read(&before.place.path).unwrap(), b"other");
        }
    }
}
