//! What is in a tree: every entry, sorted, links as themselves. Unaware of what it is wanted for.

use std::{
    fs::Metadata,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::attributes::Attributes;
use crate::{step::Error, world::View};

/// A file, or a directory with all that is in it.
pub(super) struct Tree {
    /// Where it is.
    pub(super) root: PathBuf,
    /// Whether it is a directory.
    pub(super) directory: bool,
    /// Those of the root.
    pub(super) attributes: Attributes,
    /// The device that holds the root.
    pub(super) device: u64,
    /// Sorted by the bytes of their paths, so that a directory comes before what is in it; one with an empty path for a file.
    pub(super) entries: Vec<Entry>,
}

/// Something in a tree.
pub(super) struct Entry {
    /// From the root.
    pub(super) path: PathBuf,
    pub(super) what: What,
    pub(super) attributes: Attributes,
    /// The device that holds it.
    pub(super) device: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    File {
        size: u64,
    },
    Directory,
    /// With what it says.
    Link(PathBuf),
    /// A socket and the like, by its name.
    Other(&'static str),
}

impl Tree {
    /// Walks the tree at `root`, which itself is no link, leaving out one path. `go_on` is asked at every directory.
    pub(super) fn walk(view: &View, root: &Path, leave_out: Option<&Path>, go_on: &dyn Fn() -> Result<(), Error>) -> Result<Self, Error> {
        let Some(metadata) = view.symlink_metadata(root)? else {
            return Err(Error::Final(format!("there is nothing at {}; check the path", root.display())));
        };
        let directory = metadata.is_dir();
        let mut tree =
            Self { root: root.to_owned(), directory, attributes: Attributes::of(&metadata), device: metadata.dev(), entries: Vec::new() };
        if !directory {
            tree.entries.push(entry(view, root, PathBuf::new(), &metadata)?);
        }
        let mut open = if directory { vec![root.to_owned()] } else { Vec::new() };
        while let Some(next) = open.pop() {
            go_on()?;
            for path in view.list(&next)?.into_iter().filter(|path| Some(path.as_path()) != leave_out) {
                // What went away since the listing is as if it had gone before.
                let Some(metadata) = view.symlink_metadata(&path)? else { continue };
                let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
                tree.entries.push(entry(view, &path, relative, &metadata)?);
                if metadata.is_dir() {
                    open.push(path);
                }
            }
        }
        tree.entries.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
        Ok(tree)
    }
    /// Where an entry is.
    pub(super) fn at(&self, entry: &Entry) -> PathBuf {
        beneath(&self.root, &entry.path)
    }
    /// The files: where, and how big.
    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        self.entries.iter().filter_map(|e| if let What::File { size } = e.what { Some((self.at(e), size)) } else { None }).collect()
    }
    /// Bytes in all files.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.iter().map(|e| if let What::File { size } = e.what { size } else { 0 }).sum()
    }
    /// Errors: an entry that no copy and no manifest can hold.
    pub(super) fn refuse_strange(&self) -> Result<(), Error> {
        for entry in &self.entries {
            let at = self.at(entry);
            if let What::Other(kind) = entry.what {
                let says =
                    format!("{} is a {kind}; only files, directories and links can be copied or verified: remove it first", at.display());
                return Err(Error::Final(says));
            }
            if entry.path.to_str().is_none() {
                return Err(Error::Final(format!("the name of {} is not UTF-8, so no manifest can hold it; rename it", at.display())));
            }
        }
        Ok(())
    }
}

/// `root` and a path beneath it; an empty path is the root itself.
pub(super) fn beneath(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn entry(view: &View, at: &Path, path: PathBuf, metadata: &Metadata) -> Result<Entry, Error> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => What::File { size: metadata.len() },
        () if kind.is_dir() => What::Directory,
        () if kind.is_symlink() => What::Link(view.link(at)?),
        () if kind.is_socket() => What::Other("socket"),
        () if kind.is_fifo() => What::Other("named pipe"),
        () => What::Other("device"),
    };
    Ok(Entry { path, what, attributes: Attributes::of(metadata), device: metadata.dev() })
}
