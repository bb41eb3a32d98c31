//! The place where something is to land: how it is made beside it, moved there whole, and taken away again. What is made
//! has a name that is known before, so that after a crash `undo` can tell what was done:
//! while the staged file is there it has not landed; once it is gone, what is at the path is the step's own work.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    step::Error,
    world::{View, World},
};

/// A path and the names beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    /// Where it is to land, absolute.
    pub(super) path: PathBuf,
    /// Where it is made.
    pub(super) staged: PathBuf,
    /// Where what was there is set aside.
    pub(super) aside: PathBuf,
    /// Directories on the way that are missing, the outermost first.
    pub(super) parents: Vec<PathBuf>,
}

impl Place {
    /// Looks at a place. Errors: the path ends in no name.
    pub(super) fn look(view: &View, path: &str) -> Result<Self, Error> {
        let path = plain(view, path)?;
        let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(60).collect();
        let now = view.now().strftime("%Y%m%dT%H%M%S%.9fZ").to_string();
        let beside = |end: &str| path.with_file_name(format!(".{name}.runsheet-{now}.{end}"));
        let mut parents = Vec::new();
        for parent in path.ancestors().skip(1) {
            if view.metadata(parent)?.is_some() {
                break;
            }
            parents.insert(0, parent.to_owned());
        }
        Ok(Self { staged: beside("new"), aside: beside("old"), path, parents })
    }
    /// Whether something is staged: if so, it has not landed.
    pub(super) fn is_staged(&self, view: &View) -> Result<bool, Error> {
        Ok(view.symlink_metadata(&self.staged)?.is_some())
    }
    /// Makes the missing directories and takes away what an earlier attempt left staged.
    pub(super) fn prepare(&self, world: &World) -> Result<(), Error> {
        if let Some(parent) = self.path.parent() {
            world.make_directory(parent)?;
        }
        self.parents.iter().try_for_each(|made| world.sync_directory(made))?;
        remove(world, &self.staged)
    }
    /// Takes away what is staged, and the directories made if nothing is in them.
    pub(super) fn tidy(&self, world: &World) -> Result<(), Error> {
        remove(world, &self.staged)?;
        for parent in self.parents.iter().rev() {
            if world.metadata(parent)?.is_some() && world.list(parent)?.is_empty() {
                world.remove_directory(parent)?;
            }
        }
        Ok(())
    }
    /// What to say of something that appeared at the path and is not this step's work.
    pub(super) fn taken(&self) -> Error {
        Error::Final(format!(
            "{} appeared while this step was at work, and is not what it makes: it is left alone; look at it, then remove it and {}",
            self.path.display(),
            self.staged.display()
        ))
    }
}

/// The absolute path, without `.` and a last `/`. Errors: it ends in no name, as `..` does.
pub(super) fn plain(view: &View, path: &str) -> Result<PathBuf, Error> {
    let whole: PathBuf = view.path(path).components().collect();
    match whole.file_name() {
        Some(_) if !path.is_empty() => Ok(whole),
        _ => Err(Error::Final(format!("{path:?} ends in no name; give the path of one file or directory"))),
    }
}

/// The absolute path with links followed. Errors: nothing is there.
pub(super) fn existing(view: &View, path: &str) -> Result<PathBuf, Error> {
    let absent = || Error::Final(format!("there is nothing at {}; check the path", view.path(path).display()));
    view.resolve(path)?.ok_or_else(absent)
}

/// Removes a file, a link, or a directory with all that is in it; that nothing is there is no error.
pub(super) fn remove(world: &World, path: &Path) -> Result<(), Error> {
    match world.symlink_metadata(path)? {
        None => Ok(()),
        Some(there) if there.is_dir() => world.remove_tree(path),
        Some(_) => world.remove_file(path),
    }
}
