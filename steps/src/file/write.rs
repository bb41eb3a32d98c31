use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    attributes::Attributes,
    digest::{Algorithm, of_bytes},
    kept::{self, Kept},
    place::Place,
};
use crate::{
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Write>();

/// Writes text to a file, whole or not at all, and keeps what the file held.
///
/// The text is written beside the file, synced and moved into its place, so that a reader sees the old file or the new one.
/// Missing directories on the way are made, mode 0700. A file that is replaced keeps its owner and, where `mode` is not said,
/// its mode. What it held is kept in the record of the run, so it may have up to 1 MiB; a link is refused. The undo puts back
/// content, owner, mode and time, and refuses where something else has changed the file since.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    /// The file to write.
    path: String,
    /// The text it is to hold, byte for byte: no line break is added.
    text: String,
    /// The permission bits, as octal text: `"0640"`. Not said: those of the file that is there, or `"0600"`.
    mode: Option<Mode>,
    /// Whether the text comes after what the file holds, instead of in its place.
    #[serde(default)]
    append: bool,
}

/// Permission bits, written in octal.
#[derive(Clone, Copy)]
struct Mode(u32);

/// The place, and what was there.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {
    place: Place,
    was: Option<Kept>,
}

/// The file as it was written.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Written {
    /// The absolute path of the file.
    path: String,
    /// Bytes that the file now holds.
    bytes: u64,
    /// The SHA-256 of all that the file now holds, in hex.
    sha256: String,
}

impl Step for Write {
    const NAME: &'static str = "file.write";
    const EXAMPLES: &'static [&'static str] = &[
        "path = \"motd\"\ntext = \"Recovery under way.\\n\"\n",
        "path = \"old.txt\"\ntext = \"one more line\\n\"\nappend = true\nmode = \"0640\"\n",
    ];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Written;

    fn effect(&self) -> Effect {
        Effect::Write
    }
    fn reversal(&self) -> Reversal {
        Reversal::Exact
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let path = self.path.clone();
        view.blocking(move |view| {
            let place = Place::look(view, &path)?;
            Ok(Before { was: Kept::look(view, &place.path)?, place })
        })
        .await
    }
    fn say(&self, before: &Before) -> String {
        let (path, bytes) = (before.place.path.display(), self.text.len());
        match &before.was {
            None => format!("create {path} with {bytes} bytes"),
            Some(_) if self.append => format!("append {bytes} bytes to {path}"),
            Some(was) if was.bytes().is_ok_and(|was| was == self.text.as_bytes()) && self.mode(before) == was.attributes.mode => {
                format!("leave {path} as it is")
            }
            Some(_) => format!("replace {path} by {bytes} bytes"),
        }
    }
    async fn apply(&self, world: &World, before: &Before) -> Result<Written, Error> {
        let Before { place, was } = before;
        let wanted = self.wanted(before)?;
        let now = kept::content(world, &place.path)?;
        let there = world.symlink_metadata(&place.path)?;
        let done = now.as_ref() == Some(&wanted) && there.as_ref().is_some_and(|there| Attributes::of(there).mode == self.mode(before));
        if !done {
            let unchanged = match was {
                None => there.is_none() || now.as_ref() == Some(&wanted),
                Some(was) => was.is_at(world, &place.path)? || now.as_ref() == Some(&wanted),
            };
            if !unchanged {
                return Err(changed(place, "it is not overwritten; look at it and start again"));
            }
            self.put(world, before, &wanted)?;
        }
        let sha256 = of_bytes(Algorithm::Sha256, &wanted);
        Ok(Written { path: place.path.display().to_string(), bytes: wanted.len() as u64, sha256 })
    }
    async fn undo(&self, world: &World, before: &Before) -> Result<(), Error> {
        let Before { place, was } = before;
        let there = world.symlink_metadata(&place.path)?;
        let ours = there.is_some() && kept::content(world, &place.path)? == self.wanted(before).ok();
        match was {
            None if ours => world.remove_file(&place.path)?,
            None if there.is_none() => {}
            Some(was) if ours || there.is_none() => was.restore(world, place)?,
            Some(was) if was.is_at(world, &place.path)? => was.attributes.put_on(world, &place.path)?,
            None => return Err(changed(place, "it was not there before; if it is not wanted, remove it by hand")),
            Some(_) => return Err(changed(place, "what it held before is in the record of the run, to be put back by hand")),
        }
        place.tidy(world)
    }
}

impl Write {
    /// All that the file is to hold.
    fn wanted(&self, before: &Before) -> Result<Vec<u8>, Error> {
        let mut wanted = match &before.was {
            Some(was) if self.append => was.bytes()?,
            _ => Vec::new(),
        };
        wanted.extend_from_slice(self.text.as_bytes());
        Ok(wanted)
    }
    fn mode(&self, before: &Before) -> u32 {
        self.mode.map_or_else(|| before.was.as_ref().map_or(0o600, |was| was.attributes.mode), |mode| mode.0)
    }
    fn put(&self, world: &World, before: &Before, bytes: &[u8]) -> Result<(), Error> {
        let place = &before.place;
        kept::write(world, place, bytes)?;
        if let (Some(was), Some(made)) = (&before.was, world.symlink_metadata(&place.staged)?) {
            let made = Attributes::of(&made);
            Attributes { user: was.attributes.user, group: was.attributes.group, ..made }.put_on(world, &place.staged)?;
        }
        world.set_mode(&place.staged, self.mode(before))?;
        world.rename(&place.staged, &place.path)
    }
}

fn changed(place: &Place, what_now: &str) -> Error {
    Error::Final(format!("{} was changed by something else since this step looked at it; {what_now}", place.path.display()))
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let octal = ((3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7')))
            .then(|| u32::from_str_radix(&text, 8).ok())
            .flatten();
        octal.map(Self).ok_or_else(|| D::Error::custom(format!("`{text}` is no mode; write three or four octal digits, as in \"0640\"")))
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-7]{3,4}$" })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use serde_json::json;

    use super::{super::stage::*, *};

    #[tokio::test]
    async fn what_is_there_afterwards() {
        for (with, path, holds, mode) in [
            (json!({ "path": "new", "text": "a" }), "new", "a", 0o600),
            (json!({ "path": "deep/er/new", "text": "a", "mode": "0644" }), "deep/er/new", "a", 0o644),
            (json!({ "path": "old.txt", "text": "x\n" }), "old.txt", "x\n", 0o640),
            (json!({ "path": "old.txt", "text": "x\n", "append": true }), "old.txt", "old\nx\n", 0o640),
            (json!({ "path": "old.txt", "text": "old\n" }), "old.txt", "old\n", 0o640),
            (json!({ "path": "old.txt", "text": "old\n", "mode": "0755" }), "old.txt", "old\n", 0o755),
        ] {
            let stage = Stage::new();
            std::fs::set_permissions(stage.path("old.txt"), std::fs::Permissions::from_mode(0o640)).unwrap();
            let out = stage.round(&step::<Write>(with.clone())).await.unwrap();
            let (seen, bytes) = stage.seen()[std::path::Path::new(path)].clone();
            assert_eq!((seen & 0o7777, String::from_utf8(bytes).unwrap().as_str()), (mode, holds), "{with}");
            assert_eq!(out["sha256"], of_bytes(Algorithm::Sha256, holds.as_bytes()));
        }
    }

    #[tokio::test]
    async fn what_is_refused() {
        let stage = Stage::new();
        symlink("old.txt", stage.path("link")).unwrap();
        stage.put("big", vec![0; (1 << 20) + 1]);
        for (path, says) in
            [("data", "not a plain file"), ("link", "is a link to old.txt"), ("big", "1 MiB"), ("..", "no name"), ("", "no name")]
        {
            let e = stage.round(&step::<Write>(json!({ "path": path, "text": "" }))).await.unwrap_err();
            assert!(e.says().contains(says), "{path}: {}", e.says());
        }
        for mode in ["0", "888", "00644", "rw", "+640"] {
            assert!(Write::deserialize(json!({ "path": "a", "text": "", "mode": mode })).is_err(), "{mode}");
        }
    }

    #[tokio::test]
    async fn what_others_wrote_is_left_alone() {
        let stage = Stage::new();
        let write: Write = step(json!({ "path": "old.txt", "text": "new" }));
        let before = write.look(&stage.world).await.unwrap();
        stage.put("old.txt", "other");
        assert!(matches!(write.apply(&stage.world, &before).await, Err(Error::Final(_))));
        assert!(matches!(write.undo(&stage.world, &before).await, Err(Error::Final(_))));
        assert_eq!(std::fs::read(stage.path("old.txt")).unwrap(), b"other");
    }

    #[tokio::test]
    async fn a_record_without_its_secret_is_not_put_back() {
        let stage = Stage::new();
        let write: Write = step(json!({ "path": "old.txt", "text": "new" }));
        let before = write.look(&stage.world).await.unwrap();
        write.apply(&stage.world, &before).await.unwrap();
        let redacted = serde_json::to_string(&before).unwrap().replace("old\\n", "‹secret›");
        let before: Before = serde_json::from_str(&redacted).unwrap();
        let e = write.undo(&stage.world, &before).await.unwrap_err();
        assert!(e.says().contains("secret was taken out"), "{}", e.says());
        assert_eq!(std::fs::read(stage.path("old.txt")).unwrap(), b"new");
    }
}
