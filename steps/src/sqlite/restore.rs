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
pub(crate) struct Restore {
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
pub(crate) struct Before {
    from: Glance,
    place: Place,
}

/// The database that was restored.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Restored {
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
    let logged = logged(world, from)?;
    if logged && wanted.is_some() {
        refuse_other(wanted, &digest(world, from)?.1, from)?;
    }
    let reader = world.sqlite_read(from)?;
    let mut file = place.begin(world)?;
    let taken = if logged { take_pages(world, &reader, place) } else { take_bytes(world, &reader, from, &mut file, place, wanted) };
    let (bytes, sha256) = reader.settle(world, taken)?;
    let tables = check(world, from, place.partial())?;
    if place.filled(world)? {
        refuse_changed(world, place, &sha256)?;
        place.drop_partial(world)?;
    } else {
        refuse_in_use(world, place)?;
        place.put(world, &file)?;
    }
    Ok(Restored {
        path: place.to().display().to_string(),
        bytes,
        sha256,
        tables,
        set_aside: place.set_aside(),
        duration_s: began.elapsed().as_secs_f64(),
    })
}

/// Whether part of the copy still lies in its log.
fn logged(world: &World, from: &Path) -> Result<bool, Error> {
    let holds = |suffix| Ok(world.metadata(beside(from, suffix))?.is_some_and(|m| m.len() > 0));
    Ok(holds(WAL)? || holds(JOURNAL)?)
}

fn take_pages(world: &World, reader: &Reader, place: &Place) -> Result<(u64, String), Error> {
    copy_pages(world, reader, place.partial(), &Pace { pages: 1000, pause: std::time::Duration::ZERO, restarts: 0 })?;
    digest(world, place.partial())
}

fn take_bytes(
    world: &World,
    reader: &Reader,
    from: &Path,
    file: &mut File,
    place: &Place,
    wanted: Option<&str>,
) -> Result<(u64, String), Error> {
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
    let bad =
        |why: &str| Error::Final(format!("{} is not fit to be restored: {why}; nothing was touched, so take another copy", from.display()));
    let reader = world.sqlite_read(partial)?;
    let said = reader.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let said = said.map_err(|e| {
        if e.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) { Error::Stopped } else { bad(&e.to_string()) }
    })?;
    if said != "ok" {
        return Err(bad(&said));
    }
    match tables(&reader).map_err(|e| bad(&e.to_string()))?.iter().filter(|(_, of_people)| *of_people).count() {
        0 => Err(bad("it holds no table")),
        tables => Ok(tables as u64),
    }
}

/// Refuses to replace what is no longer what an earlier attempt restored: somebody may have written to it since.
fn refuse_changed(world: &World, place: &Place, sha256: &str) -> Result<(), Error> {
    let written = logged(world, place.to())?;
    if written || digest(world, place.to())?.1 != sha256 {
        return Err(Error::Final(format!(
            "{} was put there since this step first looked, and it is not what would be restored: keep it, or move it away and try again",
            place.to().display()
        )));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sqlite::{bench::Bench, database::count};

    const NAME: &str = "sqlite.restore";

    #[tokio::test]
    async fn there_and_back() {
        let bench = Bench::new();
        let after = bench.there_and_back(NAME, json!({ "from": "copy.db", "to": "new.db" })).await;
        assert_eq!(after.keys().collect::<Vec<_>>(), ["copy.db", "new.db", "shop.db"]);
        assert_eq!(after["new.db"], after["copy.db"]);
        bench.sql("shop.db", "DELETE FROM orders");
        bench.write("shop.db-wal", b"stale");
        bench.write("shop.db-shm", b"stale");
        let after = bench.there_and_back(NAME, json!({ "from": "copy.db", "to": "shop.db", "overwrite": true })).await;
        assert_eq!(after["shop.db"], after["copy.db"]);
        assert_eq!(after.len(), 5, "{:?}", after.keys());
        assert!(!after.contains_key("shop.db-wal"));
    }

    #[tokio::test]
    async fn undo_puts_back_after_half_a_restore_and_after_the_new_one_was_used() {
        let bench = Bench::new();
        bench.write("shop.db-wal", b"old log");
        let start = bench.tree();
        let step = bench.step(NAME, json!({ "from": "copy.db", "to": "shop.db", "overwrite": true }));
        let before = step.look(&bench.world).await.unwrap();
        let place: Place = serde_json::from_value(before["place"].clone()).unwrap();
        step.undo(&bench.world, &before).await.unwrap();
        assert!(bench.tree() == start, "an undo without an apply did harm");
        let aside = place.set_aside().unwrap();
        bench.world.rename("shop.db-wal", format!("{aside}-wal")).unwrap();
        step.undo(&bench.world, &before).await.unwrap();
        assert!(bench.tree() == start, "an undo after the log was set aside did harm");
        bench.world.rename("shop.db-wal", format!("{aside}-wal")).unwrap();
        bench.world.rename("shop.db", &aside).unwrap();
        step.undo(&bench.world, &before).await.unwrap();
        assert!(bench.tree() == start, "an undo after all was set aside did harm");
        step.apply(&bench.world, &before).await.unwrap();
        for suffix in [WAL, "-shm", JOURNAL] {
            bench.write(&format!("shop.db{suffix}"), b"of the new one");
        }
        step.undo(&bench.world, &before).await.unwrap();
        assert!(bench.tree() == start, "an undo after the new one was used did harm: {:?}", bench.tree().keys());
    }

    #[tokio::test]
    async fn what_was_written_since_is_never_replaced() {
        let bench = Bench::new();
        for with in [json!({ "from": "copy.db", "to": "shop.db", "overwrite": true }), json!({ "from": "copy.db", "to": "new.db" })] {
            let step = bench.step(NAME, with.clone());
            let before = step.look(&bench.world).await.unwrap();
            step.apply(&bench.world, &before).await.unwrap();
            let to = with["to"].as_str().unwrap();
            bench.sql(to, "INSERT INTO orders VALUES (5000, 1, 'x')");
            let written = bench.read(to);
            assert!(matches!(step.apply(&bench.world, &before).await, Err(Error::Final(says)) if says.contains("put there since")));
            assert!(bench.read(to) == written);
        }
    }

    /// Another process that uses a database: this very test, started once more with the path of one.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn another_process_uses_a_database() {
        let Ok(path) = std::env::var("RUNSHEET_TEST_USES") else { return };
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = wal; UPDATE orders SET total = 1 WHERE id = 1").unwrap();
        println!("ready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods)]
    async fn a_database_in_use_is_not_replaced() {
        use std::{
            io::BufRead,
            process::{Command, Stdio},
        };
        let bench = Bench::new();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--nocapture", "--exact", "sqlite::restore::tests::another_process_uses_a_database"]);
        command.env("RUNSHEET_TEST_USES", bench.path("shop.db")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut user = command.spawn().unwrap();
        let mut lines = std::io::BufReader::new(user.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready")));
        let with = json!({ "from": "copy.db", "to": "shop.db", "overwrite": true });
        let used = bench.run(NAME, with.clone()).await;
        assert!(matches!(&used, Err(Error::Passing(says)) if says.contains(&format!("process {}", user.id()))), "{used:?}");
        user.stdin.take();
        user.wait().unwrap();
        bench.run(NAME, with).await.unwrap();
    }

    #[tokio::test]
    async fn a_copy_with_a_log_is_restored_whole() {
        let bench = Bench::new();
        let writer = bench.open("shop.db");
        writer.execute_batch("PRAGMA journal_mode = wal; INSERT INTO orders VALUES (5000, 1, 'x')").unwrap();
        bench.write("crash.db", &bench.read("shop.db"));
        bench.write("crash.db-wal", &bench.read("shop.db-wal"));
        drop(writer);
        bench.run(NAME, json!({ "from": "crash.db", "to": "new.db" })).await.unwrap();
        assert_eq!(count(&bench.world.sqlite_read("new.db").unwrap(), "SELECT count(*) FROM orders").unwrap(), 1001);
    }

    #[tokio::test]
    async fn a_bad_copy_never_touches_the_target() {
        let bench = Bench::new();
        bench.write("empty.db", b"");
        bench.write("notes.txt", &[b"plain text ".as_slice(); 500].concat());
        bench.write("cut.db", &bench.read("shop.db")[..8192]);
        bench.write("damaged.db", &bench.read("shop.db"));
        bench.damage("damaged.db");
        bench.sql("bare.db", "PRAGMA user_version = 1");
        let target = bench.read("shop.db");
        for (from, why) in [
            ("none.db", "does not exist"),
            ("empty.db", "empty"),
            ("notes.txt", "no SQLite database"),
            ("cut.db", "damaged"),
            ("damaged.db", "not fit"),
            ("bare.db", "no table"),
            ("shop.db", "itself"),
        ] {
            let says = bench.fails(NAME, json!({ "from": from, "to": "shop.db", "overwrite": true })).await;
            assert!(says.contains(why), "{from}: {says}");
            assert!(bench.read("shop.db") == target);
        }
        let says = bench.fails(NAME, json!({ "from": "copy.db", "to": "shop.db", "overwrite": true, "sha256": "00" })).await;
        assert!(says.contains("SHA-256"), "{says}");
        assert!(bench.read("shop.db") == target);
        assert!(bench.fails(NAME, json!({ "from": "copy.db", "to": "shop.db" })).await.contains("exists already"));
        bench.write("gone.db-wal", b"stale");
        assert!(bench.fails(NAME, json!({ "from": "copy.db", "to": "gone.db" })).await.contains("without its database"));
        let sha256 = digest(&bench.world, &bench.path("copy.db")).unwrap().1.to_uppercase();
        bench.run(NAME, json!({ "from": "copy.db", "to": "gone.db", "overwrite": true, "sha256": sha256 })).await.unwrap();
    }
}
