//! A small file as it was, kept in the record of the run, and how it is put back.

use std::{
    io::{Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{
    attributes::Attributes,
    digest::{Algorithm, of_bytes},
    place::Place,
};
use crate::{
    step::Error,
    world::{View, World, io_error},
};

/// The biggest file that is kept.
pub(super) const KEPT_MAX: u64 = 1 << 20;

/// Content and attributes.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    /// The content, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The content in hex, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    /// Tells whether the record still holds what the file held: a secret would have been taken out.
    sha256: String,
    pub(super) attributes: Attributes,
}

impl Kept {
    /// Keeps the plain file at `path`; nothing when nothing is there. Errors: it is something else, or too big.
    pub(super) fn look(view: &View, path: &Path) -> Result<Option<Self>, Error> {
        let Some(there) = view.symlink_metadata(path)? else { return Ok(None) };
        let refuse = |says: &str| Err(Error::Final(format!("{} {says}", path.display())));
        if there.is_symlink() {
            return refuse(&format!("is a link to {}; give the path of the file itself", view.link(path)?.display()));
        }
        if !there.is_file() {
            return refuse("is not a plain file; give the path of a file");
        }
        if there.len() > KEPT_MAX {
            return refuse(&format!("has {} bytes; up to 1 MiB can be kept to be put back", there.len()));
        }
        let bytes = read(view, path)?;
        let sha256 = of_bytes(Algorithm::Sha256, &bytes);
        let (text, hex) = match String::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(e) => (None, Some(hex::encode(e.as_bytes()))),
        };
        Ok(Some(Self { text, hex, sha256, attributes: Attributes::of(&there) }))
    }
    /// The content. Errors: the record no longer holds it as it was.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes = match (&self.text, &self.hex) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, hex) => hex.as_deref().and_then(|hex| hex::decode(hex).ok()).unwrap_or_default(),
        };
        if of_bytes(Algorithm::Sha256, &bytes) == self.sha256 {
            return Ok(bytes);
        }
        Err(Error::Final(
            "what the file held is not in the record as it was, since a secret was taken out; put the file back by hand".to_owned(),
        ))
    }
    /// Whether the file at `path` holds this.
    pub(super) fn is_at(&self, view: &View, path: &Path) -> Result<bool, Error> {
        Ok(content(view, path)?.is_some_and(|bytes| of_bytes(Algorithm::Sha256, &bytes) == self.sha256))
    }
    /// Puts the file back as it was.
    pub(super) fn restore(&self, world: &World, place: &Place) -> Result<(), Error> {
        write(world, place, &self.bytes()?)?;
        self.attributes.put_on(world, &place.staged)?;
        world.rename(&place.staged, &place.path)
    }
}

/// What a small plain file holds; nothing when none is there or it has grown far beyond what any step of this family writes.
pub(super) fn content(view: &View, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match view.symlink_metadata(path)? {
        Some(there) if there.is_file() && there.len() <= 64 * KEPT_MAX => read(view, path).map(Some),
        _ => Ok(None),
    }
}

/// Writes and syncs the staged file of a place.
pub(super) fn write(world: &World, place: &Place, bytes: &[u8]) -> Result<(), Error> {
    place.prepare(world)?;
    let mut file = world.create_new(&place.staged)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| io_error("write", &place.staged, &e))
}

fn read(view: &View, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    view.open_plain(path)?.read_to_end(&mut bytes).map_err(|e| io_error("read", path, &e))?;
    Ok(bytes)
}
