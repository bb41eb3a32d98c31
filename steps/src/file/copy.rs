use std::{os::unix::fs::MetadataExt, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    digest::Algorithm,
    place::{Place, existing, remove},
    transfer::{same, transfer},
    walk::Tree,
};
use crate::{
    setting::Size,
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Copy>();

/// Copies a file or a whole tree, and proves that what landed is what was read.
///
/// Each file is read once: hashed and written in the same pass, synced, and then read back from the device and compared. The
/// copy is made beside `to` and moved into its place at the end, so that nobody sees half of it. Mode and time are copied, as
/// root also the owner; links are copied as links; hard links become files of their own, holes are written out, and extended
/// attributes are not copied. A `from` that is itself a link is followed. `to` is the name of the copy, never a directory to
/// copy into; missing directories on the way are made, mode 0700. The undo removes the copy, and puts back what was set aside.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Copy {
    /// The file or directory to copy.
    from: String,
    /// Where the copy is to be.
    to: String,
    /// The algorithm by which the copy is verified.
    #[serde(default)]
    checksum: Algorithm,
    /// How many bytes may be copied in a second, such as `"50MiB"`. Not said: as many as can be.
    bandwidth: Option<Size>,
    /// Whether something may be at `to`: it is set aside to a sibling, where it stays, and put back by the undo.
    #[serde(default)]
    overwrite: bool,
}

/// The place, what was there, and what is to be copied.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {
    place: Place,
    /// Device and inode of what was at the place.
    was: Option<(u64, u64)>,
    files: u64,
    bytes: u64,
}

/// The copy.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Copied {
    /// The absolute path of the copy.
    path: String,
    /// Bytes copied.
    bytes: u64,
    /// Files copied.
    files: u64,
    /// The checksum in hex: of a file its own, of a tree that of its manifest's lines, as `file.checksum` gives it.
    checksum: String,
    /// Bytes copied and verified in a second.
    bytes_per_s: f64,
    /// Where what was at `to` before is now; none when nothing was there.
    set_aside: Option<String>,
}

impl Step for Copy {
    const NAME: &'static str = "file.copy";
    const EXAMPLES: &'static [&'static str] = &[
        "from = \"data/a.txt\"\nto = \"copy/a.txt\"\n",
        "from = \"data\"\nto = \"copy\"\nchecksum = \"blake3\"\nbandwidth = \"100MiB\"\n",
        "from = \"data/a.txt\"\nto = \"old.txt\"\noverwrite = true\n",
    ];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Copied;

    fn effect(&self) -> Effect {
        Effect::Write
    }
    fn reversal(&self) -> Reversal {
        Reversal::Exact
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let (from, to, overwrite, bandwidth) = (self.from.clone(), self.to.clone(), self.overwrite, self.bandwidth);
        view.blocking(move |view| {
            if bandwidth == Some(Size(0)) {
                return Err(Error::Final("`bandwidth` is 0, so nothing could ever be copied; leave it out, or give a size".to_owned()));
            }
            let tree = Tree::walk(view, &existing(view, &from)?, None, &|| Ok(()))?;
            tree.refuse_strange()?;
            let place = Place::look(view, &to)?;
            refuse_nesting(view, &tree.root, &place.path)?;
            let was = identity(view, &place.path)?;
            if was.is_some() && !overwrite {
                let says = "is already there; remove it, choose another `to`, or say `overwrite = true`";
                return Err(Error::Final(format!("{} {says}", place.path.display())));
            }
            Ok(Before { place, was, files: tree.files().len() as u64, bytes: tree.bytes() })
        })
        .await
    }
    fn say(&self, before: &Before) -> String {
        let Before { place, was, files, bytes } = before;
        let what = if *files == 1 { "1 file".to_owned() } else { format!("{files} files") };
        let aside = if was.is_some() { ", setting aside what is there" } else { "" };
        format!("copy {} ({what}, {}) to {}{aside}", self.from, Size(*bytes), place.path.display())
    }
    async fn apply(&self, world: &World, before: &Before) -> Result<Copied, Error> {
        let (from, algorithm, bandwidth) = (self.from.clone(), self.checksum, self.bandwidth);
        let (place, was) = (before.place.clone(), before.was);
        world
            .blocking(move |world| {
                let began = world.clock();
                let tree = Tree::walk(world, &existing(world, &from)?, None, &|| world.go_on())?;
                let checksum = match landed(world, &place, was)? {
                    true => again(world, &tree, &place, algorithm)?,
                    false => copy(world, &tree, &place, was, algorithm, bandwidth)?,
                };
                let (bytes, files) = (tree.bytes(), tree.files().len() as u64);
                let bytes_per_s = bytes as f64 / world.clock().duration_since(began).as_secs_f64().max(1e-6);
                let set_aside = was.map(|_| place.aside.display().to_string());
                Ok(Copied { path: place.path.display().to_string(), bytes, files, checksum, bytes_per_s, set_aside })
            })
            .await
    }
    async fn undo(&self, world: &World, before: &Before) -> Result<(), Error> {
        let (place, was) = (before.place.clone(), before.was);
        world.blocking(move |world| undo(world, &place, was)).await
    }
}

/// Errors: one of the two is within the other.
fn refuse_nesting(view: &View, from: &Path, to: &Path) -> Result<(), Error> {
    let parent = to.ancestors().skip(1).find_map(|parent| view.resolve(parent).ok().flatten().map(|there| (parent, there)));
    let to = parent.and_then(|(parent, there)| to.strip_prefix(parent).ok().map(|rest| there.join(rest))).unwrap_or(to.to_owned());
    if !to.starts_with(from) && !from.starts_with(&to) {
        return Ok(());
    }
    Err(Error::Final(format!("`from` ({}) and `to` ({}) must not be the same, or one within the other", from.display(), to.display())))
}

fn identity(view: &View, path: &Path) -> Result<Option<(u64, u64)>, Error> {
    Ok(view.symlink_metadata(path)?.map(|there| (there.dev(), there.ino())))
}

/// Whether an earlier attempt moved its copy into place. Errors: something else is there.
fn landed(world: &World, place: &Place, was: Option<(u64, u64)>) -> Result<bool, Error> {
    let Some(now) = identity(world, &place.path)? else { return Ok(false) };
    if was == Some(now) {
        return Ok(false);
    }
    let cleared = was.is_none() || identity(world, &place.aside)?.is_some();
    if !cleared || place.is_staged(world)? { Err(place.taken()) } else { Ok(true) }
}

fn again(world: &World, tree: &Tree, place: &Place, algorithm: Algorithm) -> Result<String, Error> {
    if let Some(checksum) = same(world, tree, &place.path, algorithm)? {
        return Ok(checksum);
    }
    // Tells `undo` that what is there is not to be removed.
    world.create_new(&place.staged)?;
    Err(place.taken())
}

fn copy(
    world: &World,
    tree: &Tree,
    place: &Place,
    was: Option<(u64, u64)>,
    algorithm: Algorithm,
    bandwidth: Option<Size>,
) -> Result<String, Error> {
    place.prepare(world)?;
    let checksum = transfer(world, tree, &place.staged, algorithm, bandwidth).inspect_err(|_| {
        // Half a copy is of no use and takes room; should this fail as well, the undo does it.
        let _ = remove(world, &place.staged);
    })?;
    if was.is_some() && identity(world, &place.aside)?.is_none() {
        if identity(world, &place.path)? != was {
            return Err(place.taken());
        }
        world.rename_new(&place.path, &place.aside)?;
    }
    world.rename_new(&place.staged, &place.path)?;
    Ok(checksum)
}

fn undo(world: &World, place: &Place, was: Option<(u64, u64)>) -> Result<(), Error> {
    let now = identity(world, &place.path)?;
    let aside = identity(world, &place.aside)?.is_some();
    if now.is_some() && now != was && (was.is_none() || aside) {
        if place.is_staged(world)? {
            return Err(place.taken());
        }
        // One rename takes it away whole, and leaves a state from which this can go on.
        world.rename_new(&place.path, &place.staged)?;
    }
    if aside {
        world.rename_new(&place.aside, &place.path)?;
    }
    place.tidy(world)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::stage::*, *};

    #[tokio::test]
    async fn every_shape_is_copied_and_undone() {
        for with in [
            json!({ "from": "data/a.txt", "to": "copy" }),
            json!({ "from": "data/a.txt", "to": "deep/er/copy", "checksum": "crc32c" }),
            json!({ "from": "data", "to": "copy", "checksum": "blake3" }),
            json!({ "from": "data", "to": "old.txt", "overwrite": true, "bandwidth": "100MiB" }),
            json!({ "from": "old.txt", "to": "data/sub", "overwrite": true }),
        ] {
            let stage = Stage::new();
            let (from, to) = (with["from"].as_str().unwrap().to_owned(), with["to"].as_str().unwrap().to_owned());
            let out = stage.round(&step::<Copy>(with.clone())).await.unwrap();
            let seen = stage.seen();
            let beneath = |root: &str| -> Vec<_> {
                seen.iter().filter_map(|(path, holds)| path.strip_prefix(root).ok().map(|rest| (rest, holds))).collect()
            };
            assert_eq!(beneath(&from), beneath(&to), "{with}");
            assert_eq!(out["set_aside"].is_string(), with["overwrite"] == true);
        }
    }

    #[tokio::test]
    async fn what_is_refused() {
        let stage = Stage::new();
        for (from, to, says) in [
            ("data", "old.txt", "already there"),
            ("data", "data/sub/copy", "one within the other"),
            ("data/sub", "data", "one within the other"),
            ("absent", "copy", "nothing at"),
        ] {
            let e = stage.round(&step::<Copy>(json!({ "from": from, "to": to }))).await.unwrap_err();
            assert!(e.says().contains(says), "{from} {to}: {}", e.says());
        }
        let socket = std::os::unix::net::UnixListener::bind(stage.path("data/socket")).unwrap();
        let e = step::<Copy>(json!({ "from": "data", "to": "copy" })).look(&stage.world).await.err().unwrap();
        assert!(e.says().contains("is a socket"), "{}", e.says());
        drop(socket);
    }

    #[tokio::test]
    async fn what_others_put_there_is_left_alone() {
        let stage = Stage::new();
        for overwrite in [false, true] {
            let copy: Copy = step(json!({ "from": "data/a.txt", "to": "copy", "overwrite": overwrite }));
            let before = copy.look(&stage.world).await.unwrap();
            stage.put("copy", "other");
            for _ in 0..2 {
                assert!(matches!(copy.apply(&stage.world, &before).await, Err(Error::Final(_))));
                assert!(matches!(copy.undo(&stage.world, &before).await, Err(Error::Final(_))));
            }
            assert_eq!(std::fs::read(stage.path("copy")).unwrap(), b"other");
            std::fs::remove_file(stage.path("copy")).unwrap();
        }
    }

    #[tokio::test]
    async fn every_state_that_a_crash_leaves_is_finished_and_undone() {
        // Each is what lies there after a crash: half a copy; the old set aside; the undo's first rename.
        let half = |stage: &Stage, before: &Before| stage.put(before.place.staged.to_str().unwrap(), "hel");
        let aside = |stage: &Stage, before: &Before| {
            half(stage, before);
            std::fs::rename(stage.path("old.txt"), &before.place.aside).unwrap();
        };
        type State<'a> = &'a dyn Fn(&Stage, &Before);
        for state in [&half as State, &aside as State] {
            for finish in [false, true] {
                let stage = Stage::new();
                let start = stage.seen();
                let copy: Copy = step(json!({ "from": "data/a.txt", "to": "old.txt", "overwrite": true }));
                let before = copy.look(&stage.world).await.unwrap();
                state(&stage, &before);
                if finish {
                    copy.apply(&stage.world, &before).await.unwrap();
                    assert_eq!(std::fs::read(stage.path("old.txt")).unwrap(), b"hello\n");
                }
                copy.undo(&stage.world, &before).await.unwrap();
                copy.undo(&stage.world, &before).await.unwrap();
                assert_eq!(stage.seen(), start);
            }
        }
    }

    #[tokio::test]
    async fn told_to_stop_it_leaves_nothing() {
        let stage = Stage::new();
        let start = stage.seen();
        let copy: Copy = step(json!({ "from": "data", "to": "copy" }));
        let before = copy.look(&stage.world).await.unwrap();
        stage.stop.send(true).unwrap();
        assert!(matches!(copy.apply(&stage.world, &before).await, Err(Error::Stopped)));
        assert_eq!(stage.seen(), start);
    }

    #[tokio::test]
    async fn bandwidth_is_kept() {
        let stage = Stage::new();
        let copy: Copy = step(json!({ "from": "data/sub/b.bin", "to": "copy", "bandwidth": "128KiB" }));
        let before = copy.look(&stage.world).await.unwrap();
        let began = std::time::Instant::now();
        let out = copy.apply(&stage.world, &before).await.unwrap();
        assert!(began.elapsed() >= std::time::Duration::from_millis(500), "64 KiB at 128 KiB a second");
        assert!(out.bytes_per_s <= 131_072.0);
    }
}
