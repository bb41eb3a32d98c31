use std::{num::NonZero, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    digest::{Algorithm, Meter, Reading},
    kept,
    manifest::Manifest,
    place::{Place, existing},
    walk::Tree,
};
use crate::{
    setting::Size,
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Checksum>();

/// Reads a file, or all files of a tree, and gives their checksum; may write a manifest, which `file.verify` reads.
///
/// A tree's files are taken in the order of their paths' bytes. Links within it are recorded as links, never followed;
/// directories and attributes are not recorded. A `path` that is itself a link is followed. A tree without files is a failure.
/// The manifest is a file of JSON lines: a header, then one line for each file, `{"path": …, "size": …, "digest": …}`, or link,
/// `{"path": …, "link": …}`. It may lie within the tree, and is then left out of it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checksum {
    /// The file or directory to read.
    path: String,
    /// How the checksums are made.
    #[serde(default)]
    algorithm: Algorithm,
    /// The manifest to write; it must not exist. Not said: none is written.
    manifest: Option<String>,
    /// How many files are read at once; a big file is read by as many threads if the algorithm is `blake3`.
    #[serde(default = "two")]
    threads: NonZero<u8>,
}

fn two() -> NonZero<u8> {
    NonZero::<u8>::MIN.saturating_add(1)
}

/// What is to be read, and where the manifest is to be.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {
    path: PathBuf,
    manifest: Option<Place>,
    files: u64,
    bytes: u64,
}

/// What was read.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Summed {
    /// How the checksum was made.
    algorithm: Algorithm,
    /// The checksum in hex: of a file its own, of a tree that of the lines of its manifest after the header.
    checksum: String,
    /// Files read.
    files: u64,
    /// Bytes read.
    bytes: u64,
    /// The absolute path of the manifest; none if none was asked for.
    manifest: Option<String>,
}

impl Step for Checksum {
    const NAME: &'static str = "file.checksum";
    const EXAMPLES: &'static [&'static str] =
        &["path = \"data\"\nmanifest = \"data.manifest\"\n", "path = \"data/sub/b.bin\"\nalgorithm = \"blake3\"\n"];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Summed;

    fn effect(&self) -> Effect {
        if self.manifest.is_some() { Effect::Write } else { Effect::Read }
    }
    fn reversal(&self) -> Reversal {
        if self.manifest.is_some() { Reversal::Exact } else { Reversal::Nothing }
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let (path, manifest) = (self.path.clone(), self.manifest.clone());
        view.blocking(move |view| {
            let path = existing(view, &path)?;
            let manifest = manifest.map(|manifest| Place::look(view, &manifest)).transpose()?;
            if let Some(there) = manifest.as_ref().filter(|m| view.symlink_metadata(&m.path).is_ok_and(|there| there.is_some())) {
                let says = "is already there; choose another `manifest`, or remove it first";
                return Err(Error::Final(format!("{} {says}", there.path.display())));
            }
            let tree = Tree::walk(view, &path, None, &|| Ok(()))?;
            let (files, bytes) = (tree.files().len() as u64, tree.bytes());
            Ok(Before { path, manifest, files, bytes })
        })
        .await
    }
    fn say(&self, before: &Before) -> String {
        let what = if before.files == 1 { "1 file".to_owned() } else { format!("{} files", before.files) };
        let then = before.manifest.as_ref().map(|place| format!(" and write the manifest {}", place.path.display())).unwrap_or_default();
        format!("take the {} of {} ({what}, {}){then}", self.algorithm.name(), self.path, Size(before.bytes))
    }
    async fn apply(&self, world: &World, before: &Before) -> Result<Summed, Error> {
        let (algorithm, threads) = (self.algorithm, usize::from(self.threads.get()));
        let (path, place) = (before.path.clone(), before.manifest.clone());
        world
            .blocking(move |world| {
                let leave_out = place.as_ref().map(|place| within(world, place)).transpose()?;
                let tree = Tree::walk(world, &path, leave_out.as_deref(), &|| world.go_on())?;
                let manifest = sum(world, &tree, algorithm, threads)?;
                if let Some(place) = &place {
                    write(world, place, &manifest)?;
                }
                let (checksum, files, bytes) = (manifest.checksum(), manifest.files(), manifest.bytes());
                Ok(Summed { algorithm, checksum, files, bytes, manifest: place.map(|place| place.path.display().to_string()) })
            })
            .await
    }
    async fn undo(&self, world: &World, before: &Before) -> Result<(), Error> {
        let Some(place) = before.manifest.clone() else { return Ok(()) };
        world
            .blocking(move |world| {
                refuse_other(world, &place)?;
                world.remove_file(&place.path)?;
                place.tidy(world)
            })
            .await
    }
}

/// Where the manifest is, as a walk would come upon it.
fn within(view: &View, place: &Place) -> Result<PathBuf, Error> {
    let parent = place.path.parent().map(|parent| view.resolve(parent)).transpose()?.flatten();
    Ok(parent.zip(place.path.file_name()).map_or_else(|| place.path.clone(), |(parent, name)| parent.join(name)))
}

fn sum(world: &World, tree: &Tree, algorithm: Algorithm, threads: usize) -> Result<Manifest, Error> {
    tree.refuse_strange()?;
    let files = tree.files();
    if files.is_empty() {
        return Err(Error::Final(format!("{} holds no files, so its checksum would prove nothing; check the path", tree.root.display())));
    }
    let meter = Meter::new(world, tree.bytes());
    let checksums = Reading { world, meter: &meter, algorithm, threads, fresh: false }.checksums(&files)?;
    Ok(Manifest::of(tree, algorithm, &checksums))
}

fn write(world: &World, place: &Place, manifest: &Manifest) -> Result<(), Error> {
    refuse_other(world, place)?;
    let mut text = Vec::new();
    manifest.write(&mut text).map_err(|e| Error::Final(format!("the manifest cannot be written: {e}")))?;
    kept::write(world, place, &text)?;
    world.rename(&place.staged, &place.path)
}

/// Errors: something is in the manifest's place that is none.
fn refuse_other(view: &View, place: &Place) -> Result<(), Error> {
    if view.symlink_metadata(&place.path)?.is_none() {
        return Ok(());
    }
    let read = Manifest::read(std::io::BufReader::new(view.open_plain(&place.path)?));
    read.map(drop)
        .map_err(|_| Error::Final(format!("{} appeared meanwhile and is no manifest: it is left alone; look at it", place.path.display())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::stage::*, *};

    #[tokio::test]
    async fn a_file_has_the_checksum_that_other_tools_give() {
        let stage = Stage::new();
        stage.put("check", "123456789");
        for (algorithm, checksum) in [
            ("sha256", "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
            ("crc32c", "e3069283"),
            ("crc64nvme", "ae8b14860a799888"),
        ] {
            let out = stage.round(&step::<Checksum>(json!({ "path": "check", "algorithm": algorithm }))).await.unwrap();
            assert_eq!(out["checksum"], checksum, "{algorithm}");
        }
    }

    #[tokio::test]
    async fn a_big_file_read_in_parts_has_the_same_checksum() {
        let stage = Stage::new();
        for length in [16 << 20, (16 << 20) + 1, (48 << 20) + 1023] {
            let bytes = noise(length);
            stage.put("big", &bytes);
            for threads in [1, 3] {
                let out =
                    stage.round(&step::<Checksum>(json!({ "path": "big", "algorithm": "blake3", "threads": threads }))).await.unwrap();
                assert_eq!(out["checksum"], blake3::hash(&bytes).to_string(), "{length} bytes, {threads} threads");
            }
        }
    }

    #[tokio::test]
    async fn a_tree_is_the_same_whatever_the_threads() {
        let stage = Stage::new();
        let mut seen = Vec::new();
        for (threads, manifest) in [(1, "one"), (7, "data/seven")] {
            let out = stage.round(&step::<Checksum>(json!({ "path": "data", "threads": threads, "manifest": manifest }))).await.unwrap();
            let text = std::fs::read_to_string(stage.path(manifest)).unwrap();
            let body = text.split_once('\n').unwrap().1.as_bytes();
            assert_eq!(out["checksum"], super::super::digest::of_bytes(Algorithm::Sha256, body));
            assert_eq!((out["files"].as_u64(), out["bytes"].as_u64()), (Some(2), Some(6 + (64 << 10))));
            seen.push(text);
        }
        assert_eq!(seen[0], seen[1]);
    }

    #[tokio::test]
    async fn what_is_refused() {
        let stage = Stage::new();
        for (with, says) in [
            (json!({ "path": "data/sub/empty" }), "holds no files"),
            (json!({ "path": "absent" }), "nothing at"),
            (json!({ "path": "data", "manifest": "old.txt" }), "already there"),
        ] {
            let e = stage.round(&step::<Checksum>(with)).await.unwrap_err();
            assert!(e.says().contains(says), "{}", e.says());
        }
        assert!(Checksum::deserialize(json!({ "path": "data", "threads": 0 })).is_err());
    }
}
