use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    database::{Glance, JOURNAL, Reader, WAL, beside, digest, tables},
    pages::{Pace, copy_pages, hold},
    place::Place,
};
use crate::{
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World, io_error},
};

pub(crate) const KIND: Kind = Kind::of::<Restore>();

/// Puts a copy of a SQLite database in place of a lost or a broken one.
///
/// The copy is read, its checksum compared with `sha256` where that is given, and all its pages are checked, before anything at `to` is
/// touched. What is at `to` (the database with its `-wal`, `-shm` and `-journal`) is set aside only with `overwrite = true`; the restored
/// file gets its owner and mode. Stop the application first: a database that another process is seen to use is refused. The undo removes
/// what was restored and puts back what was there.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The copy: a database file, also one with a `-wal` beside it.
    from: PathBuf,
    /// The database file to make.
    to: PathBuf,
    /// Whether `to` may exist. It is then set aside beside itself under the name that `set_aside` gives, and stays there.
    #[serde(default)]
    overwrite: bool,
    /// The SHA-256 that the copy must have, hex.
    sha256: Option<String>,
}

/// The copy and the place that it takes.
#[derive(Serialize, Deserialize)]
pub struct Before {
    from: Glance,
    place: Place,
}

/// The database that was restored.
#[derive(Serialize, JsonSchema)]
pub struct Restored {
    /// The database, absolute.
    path: String,
    /// Its bytes.
    bytes: u64,
    /// SHA-256 of its bytes, hex; that of the copy, if the copy had no write-ahead log.
    sha256: String,
    /// Tables in it.
    tables: u64,
    /// Where what was at `to` has gone; nothing when nothing was there.
    set_aside: Option<String>,
    /// Seconds that it took.
    duration_s: f64,
}

impl Step for Restore {
    const NAME: &'static str = "sqlite.restore";
    const EXAMPLES: &'static [&'static str] =
        &["from = \"copy.db\"\nto = \"restored.db\"\n", "from = \"copy.db\"\nto = \"shop.db\"\noverwrite = true\n"];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Restored;

    fn effect(&self) -> Effect {
        if self.overwrite { Effect::Destroy } else { Effect::Write }
    }
    fn reversal(&self) -> Reversal {
        Reversal::Exact
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let (from, to, overwrite) = (self.from.clone(), self.to.clone(), self.overwrite);
        view.blocking(move |view| {
            let place = Place::look(view, &to, overwrite)?;
            if place.is(view, &from)? {
                return Err(Error::Final(format!("`to` is the copy itself, {}; give another file", place.to().display())));
            }
            Ok(Before { from: view.sqlite_glance(from)?, place })
        })
        .await
    }
    fn say(&self, before: &Before) -> String {
        let (from, to) = (self.from.display(), before.place.to().display());
        format!("check {from} ({}) and restore it as {to}{}", before.from.says(), before.place.says())
    }
    async fn apply(&self, world: &World, before: &Before) -> Result<Restored, Error> {
        let (from, place, sha256) = (world.path(&self.from), before.place.clone(), self.sha256.clone());
        world.blocking(move |world| restore(world, &from, &place, sha256.as_deref())).await
    }
    async fn undo(&self, world: &World, before: &Before) -> Result<(), Error> {
        let place = before.place.clone();
        world.blocking(move |world| place.undo(world)).await
    }
}

fn restore(world: &World, from: &Path, place: &Place, wanted: Option<&str>) -> Result<Restored, Error> {
    let began = world.clock();
    let reader = world.sqlite_read(from)?;
    let mut file = place.begin(world)?;
    let taken = take(world, &reader, from, &mut file, place, wanted);
    let (bytes, sha256) = reader.settle(world, taken)?;
    let tables = check(world, from, place.partial())?;
    refuse_in_use(world, place)?;
    place.put(world, &file)?;
    Ok(Restored {
        path: place.to().display().to_string(),
        bytes,
        sha256,
        tables,
        set_aside: place.set_aside(),
        duration_s: began.elapsed().as_secs_f64(),
    })
}

/// Makes the new file: byte by byte, or through SQLite where part of the copy still lies in its log.
fn take(world: &World, reader: &Reader, from: &Path, file: &mut File, place: &Place, wanted: Option<&str>) -> Result<(u64, String), Error> {
    let logged = |suffix| Ok(world.metadata(beside(from, suffix))?.is_some_and(|m| m.len() > 0));
    if logged(WAL)? || logged(JOURNAL)? {
        refuse_other(wanted, &digest(world, from)?.1, from)?;
        copy_pages(world, reader, place.partial(), &Pace { pages: 1000, pause: std::time::Duration::ZERO, restarts: 0 })?;
        return digest(world, place.partial());
    }
    hold(reader).map_err(reader.wrong("read"))?;
    let (bytes, sha256) = copy_bytes(world, from, file, place.partial())?;
    refuse_other(wanted, &sha256, from)?;
    Ok((bytes, sha256))
}

fn copy_bytes(world: &World, from: &Path, to: &mut File, partial: &Path) -> Result<(u64, String), Error> {
    let total = world.metadata(from)?.map_or(0, |m| m.len());
    let (mut source, mut hash, mut bytes) = (world.open(from)?, Sha256::new(), 0);
    let mut chunk = vec![0; 1 << 20];
    loop {
        world.go_on()?;
        let n = source.read(&mut chunk).map_err(|e| io_error("read", from, &e))?;
        if n == 0 {
            return Ok((bytes, hex::encode(hash.finalize())));
        }
        to.write_all(&chunk[..n]).map_err(|e| io_error("write", partial, &e))?;
        hash.update(&chunk[..n]);
        bytes += n as u64;
        world.progress(bytes, total, "bytes");
    }
}

fn refuse_other(wanted: Option<&str>, sha256: &str, from: &Path) -> Result<(), Error> {
    match wanted {
        Some(wanted) if !wanted.trim().eq_ignore_ascii_case(sha256) => Err(Error::Final(format!(
            "{} has the SHA-256 {sha256} and not {}: it is another file, or it is damaged; nothing was touched",
            from.display(),
            wanted.trim()
        ))),
        _ => Ok(()),
    }
}

/// Checks the pages of what is about to be put in place, and counts its tables.
fn check(world: &World, from: &Path, partial: &Path) -> Result<u64, Error> {
    let bad = |why: &str| Error::Final(format!("{} is not fit to be restored: {why}; nothing was touched, so take another copy", from.display()));
    let reader = world.sqlite_read(partial)?;
    let said = reader.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let said = said.map_err(|e| if e.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) { Error::Stopped } else { bad(&e.to_string()) })?;
    if said != "ok" {
        return Err(bad(&said));
    }
    match tables(&reader).map_err(|e| bad(&e.to_string()))?.iter().filter(|(_, of_people)| *of_people).count() {
        0 => Err(bad("it holds no table")),
        tables => Ok(tables as u64),
    }
}

fn refuse_in_use(world: &World, place: &Place) -> Result<(), Error> {
    if !place.taken() || world.symlink_metadata(place.to())?.is_none() {
        return Ok(());
    }
    match world.sqlite_user(place.to())? {
        Some(pid) => Err(Error::Passing(format!(
            "{} is in use by process {pid}, which would go on with the old file; stop it and try again",
            place.to().display()
        ))),
        None => Ok(()),
    }
}
