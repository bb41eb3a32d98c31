//! A directory with a few files, and what every kind promises of it, for the tests of this family.

use std::{
    collections::BTreeMap,
    fs,
    ops::Deref,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::step::{Error, Step};

pub(super) struct Stage(crate::stage::Stage);

impl Deref for Stage {
    type Target = crate::stage::Stage;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Where something is: mode, and what it holds.
pub(super) type Seen = BTreeMap<PathBuf, (u32, Vec<u8>)>;

impl Stage {
    pub(super) fn new() -> Self {
        let stage = Self(crate::stage::Stage::new());
        fs::create_dir_all(stage.path("data/sub/empty")).unwrap();
        stage.put("data/a.txt", "hello\n");
        stage.put("data/sub/b.bin", noise(64 << 10));
        stage.put("old.txt", "old\n");
        symlink("../a.txt", stage.path("data/sub/link")).unwrap();
        stage
    }
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.world.path(path)
    }
    pub(super) fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(path), text).unwrap();
    }
    pub(super) fn seen(&self) -> Seen {
        let mut seen = BTreeMap::new();
        see(self.directory.path(), self.directory.path(), &mut seen);
        seen
    }
    /// Looks, applies twice, undoes twice, and holds what every kind promises. Gives the output as JSON.
    pub(super) async fn round<S: Step>(&self, step: &S) -> Result<Value, Error> {
        let start = self.seen();
        let before = step.look(&self.world).await?;
        let before: S::Before = serde_json::from_value(serde_json::to_value(&before).unwrap()).unwrap();
        assert!(!step.say(&before).is_empty());
        assert_eq!(self.seen(), start, "looking changed something");
        let output = step.apply(&self.world, &before).await?;
        let once = self.seen();
        step.apply(&self.world, &before).await?;
        assert_eq!(self.seen(), once, "applying twice did harm");
        if step.reversal() != crate::step::Reversal::Never {
            for _ in 0..2 {
                step.undo(&self.world, &before).await?;
                assert_eq!(self.seen(), start, "undo is not exact");
            }
            step.apply(&self.world, &before).await?;
            assert_eq!(self.seen().keys().collect::<Vec<_>>(), once.keys().collect::<Vec<_>>(), "applying after an undo");
        }
        Ok(serde_json::to_value(output).unwrap())
    }
}

pub(super) fn step<S: Step>(with: Value) -> S {
    S::deserialize(with).unwrap()
}

/// Bytes without a pattern.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

fn see(root: &Path, at: &Path, seen: &mut Seen) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let there = fs::symlink_metadata(&path).unwrap();
        let holds = match () {
            () if there.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            () if there.is_dir() => {
                see(root, &path, seen);
                Vec::new()
            }
            () => fs::read(&path).unwrap(),
        };
        seen.insert(path.strip_prefix(root).unwrap().to_owned(), (there.mode(), holds));
    }
}
