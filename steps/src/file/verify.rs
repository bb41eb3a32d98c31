use std::{
    collections::BTreeMap,
    io::BufReader,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    digest::{Algorithm, Meter, Reading},
    manifest::{Line, Manifest},
    place::existing,
    walk::Tree,
};
use crate::{
    setting::Length,
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Verify>();

/// Files that are named when they are not as they should be.
const NAMED: usize = 20;
/// Seconds by which clocks may differ.
const SKEW: f64 = 60.0;
/// Threads that read.
const THREADS: usize = 2;

/// Reads a file, or all files of a tree, and proves that they are those of a manifest that `file.checksum` wrote.
///
/// It fails with the names of what is missing, extra or changed, up to twenty; it fails as well when there are no files, when
/// the manifest itself is damaged, or when the files are older than `newest_within` allows. Links within the tree are compared
/// as links, never followed; a `path` that is itself a link is followed. The manifest may lie within the tree.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verify {
    /// The file or directory to read.
    path: String,
    /// The manifest that says what it has to hold.
    manifest: String,
    /// How long ago the newest file may have been written; if it is older, the backup is stale and the step fails.
    newest_within: Option<Length>,
}

/// What is to be compared.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {
    path: PathBuf,
    manifest: PathBuf,
}

/// What was proven.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Verified {
    /// Files that are as the manifest says.
    files: u64,
    /// Bytes in them.
    bytes: u64,
    /// How the manifest's checksums were made.
    algorithm: Algorithm,
    /// When the newest file was written, in seconds of the epoch.
    newest_at: f64,
}

impl Step for Verify {
    const NAME: &'static str = "file.verify";
    const EXAMPLES: &'static [&'static str] =
        &["path = \"data\"\nmanifest = \"manifest.json\"\n", "path = \"data\"\nmanifest = \"manifest.json\"\nnewest_within = \"26h\"\n"];
    const VERIFIES: bool = true;
    const RERUN: bool = true;
    type Before = Before;
    type Output = Verified;

    fn effect(&self) -> Effect {
        Effect::Read
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        Ok(Before { path: existing(view, &self.path)?, manifest: existing(view, &self.manifest)? })
    }
    fn say(&self, before: &Before) -> String {
        format!("read all files of {} and compare them with {}", before.path.display(), before.manifest.display())
    }
    async fn apply(&self, world: &World, before: &Before) -> Result<Verified, Error> {
        let (path, from, within) = (before.path.clone(), before.manifest.clone(), self.newest_within);
        world
            .blocking(move |world| {
                let says = |says| Error::Final(format!("the manifest {} cannot be used: {says}", from.display()));
                let manifest = Manifest::read(BufReader::new(world.open_plain(&from)?)).map_err(says)?;
                let tree = Tree::walk(world, &path, Some(&from), &|| world.go_on())?;
                let newest_at = newest(&tree)?;
                compare(world, &tree, &manifest, &from)?;
                if let Some(within) = within {
                    fresh(&path, newest_at, world.now().as_nanosecond() as f64 / 1e9, within)?;
                }
                Ok(Verified { files: manifest.files(), bytes: manifest.bytes(), algorithm: manifest.algorithm, newest_at })
            })
            .await
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}

/// When the newest file was written. Errors: there are no files.
fn newest(tree: &Tree) -> Result<f64, Error> {
    let files = tree.entries.iter().filter(|entry| matches!(entry.what, super::walk::What::File { .. }));
    let newest = files.map(|entry| entry.attributes.modified).max();
    let (seconds, nanoseconds) = newest
        .ok_or_else(|| Error::Final(format!("{} holds no files: there was nothing to verify; check the path", tree.root.display())))?;
    Ok(seconds as f64 + nanoseconds as f64 / 1e9)
}

/// Errors: the newest file is older than is allowed, or from the future.
fn fresh(path: &Path, newest_at: f64, now: f64, within: Length) -> Result<(), Error> {
    let (age, limit) = (now - newest_at, within.0.as_secs_f64());
    if age > limit {
        let says = "it is stale; see whether the backups still run";
        return Err(Error::Final(format!(
            "the newest file of {} was written {age:.0} s ago, and {limit:.0} s are allowed: {says}",
            path.display()
        )));
    }
    if age < -SKEW {
        let says = "nothing can be said of its age; compare the clocks";
        return Err(Error::Final(format!("the newest file of {} was written {:.0} s in the future: {says}", path.display(), -age)));
    }
    Ok(())
}

/// Errors: the tree does not hold what the manifest says.
fn compare(world: &World, tree: &Tree, manifest: &Manifest, from: &Path) -> Result<(), Error> {
    if tree.directory != manifest.directory {
        let [is, of] = [tree.directory, manifest.directory].map(|directory| if directory { "a directory" } else { "a file" });
        return Err(Error::Final(format!("{} is {is}, but {} is the manifest of {of}", tree.root.display(), from.display())));
    }
    tree.refuse_strange()?;
    let meter = Meter::new(world, tree.bytes());
    let reading = Reading { world, meter: &meter, algorithm: manifest.algorithm, threads: THREADS, fresh: false };
    let found = Manifest::of(tree, manifest.algorithm, &reading.checksums(&tree.files())?);
    let wrong = differences(&manifest.lines, &found.lines, manifest.directory);
    let [missing, extra, changed] = &wrong;
    if wrong.iter().all(Vec::is_empty) {
        return if manifest.files() > 0 { Ok(()) } else { Err(Error::Final(format!("the manifest {} names no files", from.display()))) };
    }
    let mut left = NAMED;
    let said: Vec<_> = [("missing", missing), ("extra", extra), ("changed", changed)]
        .iter()
        .filter_map(|(how, names)| name(how, names, &mut left))
        .collect();
    let what_now = "do not restore from it before you know why";
    Err(Error::Final(format!("{} is not what {} says: {}; {what_now}", tree.root.display(), from.display(), said.join("; "))))
}

/// What is missing, extra, and changed. A manifest of one file is for that file under any name.
fn differences(wanted: &[Line], found: &[Line], directory: bool) -> [Vec<String>; 3] {
    let by_path = |lines: &[Line]| -> BTreeMap<String, Line> {
        lines.iter().map(|line| (if directory { line.path.clone() } else { String::new() }, line.clone())).collect()
    };
    let (wanted, found) = (by_path(wanted), by_path(found));
    let missing = wanted.iter().filter(|(path, _)| !found.contains_key(*path)).map(|(_, line)| line.path.clone());
    let extra = found.iter().filter(|(path, _)| !wanted.contains_key(*path)).map(|(_, line)| line.path.clone());
    let changed = wanted.iter().filter_map(|(path, line)| difference(line, found.get(path)?));
    [missing.map(|path| format!("{path:?}")).collect(), extra.map(|path| format!("{path:?}")).collect(), changed.collect()]
}

fn difference(wanted: &Line, found: &Line) -> Option<String> {
    let kind = |line: &Line| line.link.as_ref().map_or("a file".to_owned(), |link| format!("a link to {link:?}"));
    let how = match (wanted.size, found.size) {
        (Some(a), Some(b)) if a != b => format!("{b} bytes instead of {a}"),
        (Some(_), Some(_)) if wanted.digest != found.digest => "same size, other content".to_owned(),
        _ if wanted.link != found.link => format!("{} instead of {}", kind(found), kind(wanted)),
        _ => return None,
    };
    Some(format!("{:?} ({how})", wanted.path))
}

/// `2 missing: "a", "b"`, as long as there are names left to give.
fn name(how: &str, names: &[String], left: &mut usize) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let named = names.len().min(*left);
    *left -= named;
    let list = names[..named].join(", ");
    Some(match (named, names.len() - named) {
        (0, all) => format!("{all} {how}"),
        (_, 0) => format!("{} {how}: {list}", names.len()),
        (_, more) => format!("{} {how}: {list} and {more} more", names.len()),
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests touch the machine from outside")]
mod tests {
    use serde_json::json;

    use super::{
        super::{checksum::Checksum, stage::*},
        *,
    };

    async fn manifest(stage: &Stage, path: &str, manifest: &str) {
        stage.round(&step::<Checksum>(json!({ "path": path, "manifest": manifest, "algorithm": "blake3" }))).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_whole_passes() {
        let stage = Stage::new();
        manifest(&stage, "data", "data/manifest").await;
        manifest(&stage, "data/a.txt", "of_file").await;
        for with in [
            json!({ "path": "data", "manifest": "data/manifest", "newest_within": "1h" }),
            json!({ "path": "data/a.txt", "manifest": "of_file" }),
        ] {
            let out = stage.round(&step::<Verify>(with.clone())).await.unwrap();
            assert!(out["files"].as_u64().unwrap() > 0 && out["newest_at"].as_f64().unwrap() > 1e9, "{with}");
        }
    }

    #[tokio::test]
    async fn what_is_not_fails_and_says_why() {
        type Harm<'a> = &'a dyn Fn(&Stage);
        let harms: [(Harm, &str); 9] = [
            (&|s| s.put("data/a.txt", "hellO\n"), r#"1 changed: "a.txt" (same size, other content)"#),
            (&|s| s.put("data/a.txt", "hell"), r#"1 changed: "a.txt" (4 bytes instead of 6)"#),
            (&|s| std::fs::remove_file(s.path("data/a.txt")).unwrap(), r#"1 missing: "a.txt""#),
            (&|s| s.put("data/new\n", ""), r#"1 extra: "new\n""#),
            (&|s| (0..30).for_each(|i| s.put(&format!("data/x{i:02}"), "")), r#""x19" and 10 more"#),
            (&|s| std::fs::remove_file(s.path("data/sub/link")).unwrap(), r#"1 missing: "sub/link""#),
            (&|s| std::fs::remove_dir_all(s.path("data")).and_then(|()| std::fs::create_dir(s.path("data"))).unwrap(), "holds no files"),
            (&|s| s.put("manifest", "{}\n"), "is not a manifest"),
            (&|s| s.put("manifest", std::fs::read_to_string(s.path("manifest")).unwrap().lines().next().unwrap()), "cannot be used"),
        ];
        for (harm, says) in harms {
            let stage = Stage::new();
            manifest(&stage, "data", "manifest").await;
            harm(&stage);
            let e = stage.round(&step::<Verify>(json!({ "path": "data", "manifest": "manifest" }))).await.unwrap_err();
            assert!(matches!(e, Error::Final(_)) && e.says().contains(says), "{says}: {}", e.says());
        }
    }

    #[tokio::test]
    async fn a_link_in_place_of_a_file_fails() {
        let stage = Stage::new();
        manifest(&stage, "data", "manifest").await;
        std::fs::rename(stage.path("data/a.txt"), stage.path("moved")).unwrap();
        std::os::unix::fs::symlink("../moved", stage.path("data/a.txt")).unwrap();
        let e = stage.round(&step::<Verify>(json!({ "path": "data", "manifest": "manifest" }))).await.unwrap_err();
        assert!(e.says().contains(r#"a link to "../moved" instead of a file"#), "{}", e.says());
    }

    #[test]
    fn stale_and_future_files_fail() {
        let hour = Length::parse("1h").unwrap();
        for (newest_at, says) in [(6400.0, None), (6399.0, Some("stale")), (10_050.0, None), (10_061.0, Some("clocks"))] {
            let got = fresh(Path::new("/b"), newest_at, 10_000.0, hour).err();
            assert_eq!(got.is_some(), says.is_some(), "{newest_at}");
            assert!(got.is_none_or(|e| e.says().contains(says.unwrap())));
        }
    }
}
