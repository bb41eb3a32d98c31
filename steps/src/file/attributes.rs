//! Owner, mode and time of a file, directory or link, as they were and as they are put back.

use std::{fs::Metadata, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

use crate::{step::Error, world::World};

/// Owner, mode and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) mode: u32,
    /// Seconds and nanoseconds of the epoch.
    pub(super) modified: (i64, i64),
}

impl Attributes {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { user: metadata.uid(), group: metadata.gid(), mode: metadata.mode() & 0o7777, modified }
    }
    /// Puts them on what is at `path`. Only root can give files away: for others an owner that differs is an error.
    pub(super) fn put_on(&self, world: &World, path: &Path) -> Result<(), Error> {
        let Some(now) = world.symlink_metadata(path)? else { return Err(Error::Final(format!("{} is gone", path.display()))) };
        if (now.uid(), now.gid()) != (self.user, self.group) {
            world.set_owner(path, self.user, self.group)?;
        }
        if !now.is_symlink() {
            world.set_mode(path, self.mode)?;
        }
        world.set_modified(path, self.modified.0, self.modified.1)
    }
    /// As [`Attributes::put_on`], but what this user may not give away stays this user's.
    pub(super) fn copy_on(&self, world: &World, path: &Path) -> Result<(), Error> {
        match world.symlink_metadata(path)? {
            Some(now) if !world.is_root() => Self { user: now.uid(), group: now.gid(), ..*self }.put_on(world, path),
            _ => self.put_on(world, path),
        }
    }
}
