//! The place that a new database file takes: how what is there is set aside, and how it comes back. Unaware of what is put there.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::database::{JOURNAL, SHM, WAL, beside};
use crate::{
    step::Error,
    world::{View, World, io_error},
};

const BESIDE: [&str; 3] = [WAL, SHM, JOURNAL];

/// What was at a place, and the names that are kept for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The database file to come.
    to: PathBuf,
    /// The one that was there.
    was: Option<Was>,
    /// Which of `-wal`, `-shm`, `-journal` lay there.
    beside: Vec<String>,
    /// Where all that goes.
    aside: PathBuf,
    /// Where the new one is built.
    partial: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Was {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Place {
    /// Looks at a place. Errors: it is taken and may not be overwritten, or it is no place for a file.
    pub(crate) fn look(view: &View, to: &Path, overwrite: bool) -> Result<Self, Error> {
        let to = view.path(to);
        let was = view.symlink_metadata(&to)?;
        if was.as_ref().is_some_and(|m| !m.is_file()) {
            return Err(Error::Final(format!(
                "{} is a link, a directory or a device; give the path of a regular file as `to`",
                to.display()
            )));
        }
        let mut lies = Vec::new();
        for suffix in BESIDE {
            if view.symlink_metadata(beside(&to, suffix))?.is_some() {
                lies.push(suffix.to_owned());
            }
        }
        if !overwrite {
            refuse_taken(&to, was.is_some(), &lies)?;
        }
        let stamp = view.now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let aside = free(view, &to, &format!(".before-{stamp}"))?;
        let partial = free(view, &to, &format!(".partial-{stamp}"))?;
        let was = was.map(|m| Was { mode: m.mode() & 0o7777, uid: m.uid(), gid: m.gid() });
        Ok(Self { to, was, beside: lies, aside, partial })
    }
    /// The database file to come.
    pub(crate) fn to(&self) -> &Path {
        &self.to
    }
    /// Whether that is the same file as another one.
    pub(crate) fn is(&self, view: &View, other: &Path) -> Result<bool, Error> {
        let id = |m: std::fs::Metadata| (m.dev(), m.ino());
        let (to, other_id) = (view.metadata(&self.to)?.map(id), view.metadata(other)?.map(id));
        Ok(self.to == view.path(other) || to.is_some() && to == other_id)
    }
    /// Where the new one is built.
    pub(crate) fn partial(&self) -> &Path {
        &self.partial
    }
    /// Whether a database is there that has to make room.
    pub(crate) fn taken(&self) -> bool {
        self.was.is_some()
    }
    /// Whether an earlier attempt, or somebody else since the look, has put a file there.
    pub(crate) fn filled(&self, view: &View) -> Result<bool, Error> {
        let made_room = self.was.is_none() || view.symlink_metadata(&self.aside)?.is_some();
        Ok(made_room && view.symlink_metadata(&self.to)?.is_some())
    }
    /// Half a sentence for a rehearsal.
    pub(crate) fn says(&self) -> String {
        match (&self.was, self.beside.is_empty()) {
            (None, true) => String::new(),
            (None, false) => format!("; {} without a database, set aside as {}…", self.beside.join(" and "), self.aside.display()),
            (Some(_), _) => format!("; what is there now is set aside as {}", self.aside.display()),
        }
    }
    /// Where what was there has gone; nothing if nothing was.
    pub(crate) fn set_aside(&self) -> Option<String> {
        (self.was.is_some() || !self.beside.is_empty()).then(|| self.aside.display().to_string())
    }
    /// Starts the new file anew, readable by its owner only.
    pub(crate) fn begin(&self, world: &World) -> Result<File, Error> {
        self.drop_partial(world)?;
        world.append(&self.partial)
    }
    /// Sets aside what is there and puts the new file, made by [`Place::begin`], in its place. Again after half of it: goes on.
    pub(crate) fn put(&self, world: &World, file: &File) -> Result<(), Error> {
        let wrong = |doing: &str, e: std::io::Error| io_error(doing, &self.partial, &e);
        if let Some(was) = &self.was {
            let there = file.metadata().map_err(|e| wrong("look at", e))?;
            if (there.uid(), there.gid()) != (was.uid, was.gid) {
                let (uid, gid) = (rustix::fs::Uid::from_raw(was.uid), rustix::fs::Gid::from_raw(was.gid));
                rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(|e| wrong("give the owner of the old database to", e.into()))?;
            }
            rustix::fs::fchmod(file, was.mode.into()).map_err(|e| wrong("give the mode of the old database to", e.into()))?;
        }
        file.sync_all().map_err(|e| wrong("write", e))?;
        // What lies beside goes first: were it last, an application that starts in between would take it for its own.
        for suffix in BESIDE.iter().chain(&[""]) {
            let (there, aside) = (beside(&self.to, suffix), beside(&self.aside, suffix));
            if world.symlink_metadata(&there)?.is_none() {
                continue;
            }
            let was_there = if suffix.is_empty() { self.was.is_some() } else { self.beside.iter().any(|b| b == suffix) };
            if was_there && world.symlink_metadata(&aside)?.is_none() {
                world.rename(&there, &aside)?;
            } else if !suffix.is_empty() {
                world.remove_file(&there)?;
            }
        }
        world.rename(&self.partial, &self.to)
    }
    /// Brings back what was there. While the old database is still aside, it begins anew; then nothing is left to do.
    pub(crate) fn undo(&self, world: &World) -> Result<(), Error> {
        self.drop_partial(world)?;
        let ours = match self.was {
            Some(_) => world.symlink_metadata(&self.aside)?.is_some(),
            None => true,
        };
        if ours {
            for suffix in BESIDE {
                let kept = self.beside.iter().any(|b| b == suffix) && world.symlink_metadata(beside(&self.aside, suffix))?.is_none();
                if !kept {
                    world.remove_file(beside(&self.to, suffix))?;
                }
            }
            world.remove_file(&self.to)?;
        }
        for suffix in BESIDE.iter().chain(&[""]) {
            let aside = beside(&self.aside, suffix);
            if world.symlink_metadata(&aside)?.is_some() {
                world.rename(&aside, beside(&self.to, suffix))?;
            }
        }
        Ok(())
    }
    /// Removes what was built and not put in place.
    pub(crate) fn drop_partial(&self, world: &World) -> Result<(), Error> {
        for suffix in BESIDE.iter().chain(&[""]) {
            let path = beside(&self.partial, suffix);
            if world.symlink_metadata(&path)?.is_some() {
                world.remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn refuse_taken(to: &Path, taken: bool, lies: &[String]) -> Result<(), Error> {
    if taken {
        let to = to.display();
        return Err(Error::Final(format!(
            "{to} exists already; give another `to`, or `overwrite = true`, which keeps what is there under another name"
        )));
    }
    if let Some(suffix) = lies.first() {
        let stale = beside(to, suffix);
        return Err(Error::Final(format!(
            "{} lies there without its database, and SQLite would mix it into a new one; move it away, or say `overwrite = true`, which sets it aside",
            stale.display()
        )));
    }
    Ok(())
}

/// A name that nothing has yet, neither by itself nor with what may lie beside a database.
fn free(view: &View, to: &Path, suffix: &str) -> Result<PathBuf, Error> {
    for n in 1..1000 {
        let name = beside(to, &if n == 1 { suffix.to_owned() } else { format!("{suffix}-{n}") });
        let mut taken = false;
        for beside_it in BESIDE.iter().chain(&[""]) {
            taken |= view.symlink_metadata(beside(&name, beside_it))?.is_some();
        }
        if !taken {
            return Ok(name);
        }
    }
    Err(Error::Final(format!("a thousand files beside {} have names like {suffix}; clear them away", to.display())))
}
