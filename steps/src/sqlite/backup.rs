use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    database::{Glance, digest, seconds},
    pages::{Copied, Pace, copy_pages},
    place::Place,
};
use crate::{
    setting::Length,
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Backup>();

/// Copies a SQLite database that may be in use, by SQLite's own backup interface, to a file that is whole or not there.
///
/// The copy is the database as it was at one moment, committed transactions only; its write-ahead log is within it. In WAL mode
/// readers and writers go on meanwhile. In the other modes they get a pause after every `pages_per_step` pages, and each write makes
/// the copy begin anew; after `restarts` of those, writers wait until it is done. The copy is built beside `to`, synced and then
/// renamed, readable by its owner only. The undo removes it and puts back what was there before.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backup {
    /// The database file to copy.
    database: PathBuf,
    /// The file to make.
    to: PathBuf,
    /// Whether `to` may exist. It is then set aside beside itself under the name that `set_aside` gives, and stays there.
    #[serde(default)]
    overwrite: bool,
    /// Pages copied in one go, during which writers of a database that is not in WAL mode have to wait.
    #[serde(default = "pages_per_step")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pages_per_step: u32,
    /// The time that writers get after every `pages_per_step` pages.
    #[serde(default = "pause")]
    pause: Length,
    /// How often a writer may make the copy begin anew before writers have to wait.
    #[serde(default = "restarts")]
    restarts: u32,
}

fn pages_per_step() -> u32 {
    1000
}

fn pause() -> Length {
    Length(std::time::Duration::from_millis(10))
}

fn restarts() -> u32 {
    10
}

/// The database and the place of its copy.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {
    database: Glance,
    place: Place,
}

/// The copy.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Made {
    /// The copy, absolute.
    path: String,
    /// Its bytes.
    bytes: u64,
    /// Its pages.
    pages: u64,
    /// SHA-256 of its bytes, hex.
    sha256: String,
    /// How often a writer made the copy begin anew.
    restarts: u32,
    /// Where what was at `to` has gone; nothing when nothing was there.
    set_aside: Option<String>,
    /// When the copy began, in seconds of the epoch: nothing committed before is missing in it.
    started_at: f64,
    /// When the copy ended, in seconds of the epoch: nothing committed later is in it.
    ended_at: f64,
    /// Seconds that it took.
    duration_s: f64,
}

impl Step for Backup {
    const NAME: &'static str = "sqlite.backup";
    const EXAMPLES: &'static [&'static str] = &[
        "database = \"shop.db\"\nto = \"shop-backup.db\"\n",
        "database = \"shop.db\"\nto = \"copy.db\"\noverwrite = true\npages_per_step = 250\npause = \"20ms\"\n",
    ];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Made;

    fn effect(&self) -> Effect {
        Effect::Write
    }
    fn reversal(&self) -> Reversal {
        Reversal::Exact
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let (database, to, overwrite) = (self.database.clone(), self.to.clone(), self.overwrite);
        view.blocking(move |view| {
            let place = Place::look(view, &to, overwrite)?;
            if place.is(view, &database)? {
                return Err(Error::Final(format!("`to` is the database itself, {}; give another file", place.to().display())));
            }
            Ok(Before { database: view.sqlite_glance(database)?, place })
        })
        .await
    }
    fn say(&self, before: &Before) -> String {
        let (from, to) = (self.database.display(), before.place.to().display());
        format!("copy {from} ({}) to {to} while it stays in use{}", before.database.says(), before.place.says())
    }
    async fn apply(&self, world: &World, before: &Before) -> Result<Made, Error> {
        let (database, place) = (world.path(&self.database), before.place.clone());
        let pages = i32::try_from(self.pages_per_step).ok().filter(|n| *n > 0);
        let pages = pages.ok_or_else(|| Error::Final("`pages_per_step` is a number from 1 to a million".into()))?;
        let pace = Pace { pages, pause: self.pause.0, restarts: self.restarts };
        world.blocking(move |world| make(world, &database, &place, &pace)).await
    }
    async fn undo(&self, world: &World, before: &Before) -> Result<(), Error> {
        let place = before.place.clone();
        world.blocking(move |world| place.undo(world)).await
    }
}

fn make(world: &World, database: &std::path::Path, place: &Place, pace: &Pace) -> Result<Made, Error> {
    let (began, mut started_at) = (world.clock(), world.now());
    let mut reader = world.sqlite_read(database)?;
    let mut file = place.begin(world)?;
    let mut copied = copy_pages(world, &reader, place.partial(), pace);
    let disturbed = reader.disturbed(world)?;
    if disturbed && !matches!(copied, Err(Error::Stopped)) {
        // It was at rest, so it was read without locks, and then a writer came: once more, with locks that writers respect.
        started_at = world.now();
        reader = world.sqlite_read_among_writers(database)?;
        file = place.begin(world)?;
        copied = copy_pages(world, &reader, place.partial(), pace);
    }
    let Copied { pages, restarts } = reader.settle(world, copied)?;
    let restarts = restarts + u32::from(disturbed);
    let ended_at = world.now();
    let (bytes, sha256) = digest(world, place.partial())?;
    place.put(world, &file)?;
    Ok(Made {
        path: place.to().display().to_string(),
        bytes,
        pages,
        sha256,
        restarts,
        set_aside: place.set_aside(),
        started_at: seconds(started_at),
        ended_at: seconds(ended_at),
        duration_s: began.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests touch the machine from outside")]
mod tests {
    use serde_json::json;

    use crate::{
        sqlite::{bench::Bench, database::count},
        step::Error,
    };

    const NAME: &str = "sqlite.backup";

    #[tokio::test]
    async fn there_and_back() {
        let bench = Bench::new();
        let after = bench.there_and_back(NAME, json!({ "database": "shop.db", "to": "new.db", "pages_per_step": 2 })).await;
        assert_eq!(after.keys().collect::<Vec<_>>(), ["copy.db", "new.db", "shop.db"]);
        bench.write("copy.db-wal", b"stale");
        let after = bench.there_and_back(NAME, json!({ "database": "shop.db", "to": "copy.db", "overwrite": true })).await;
        assert_eq!(after.len(), 4);
        assert!(!after.contains_key("copy.db-wal"));
    }

    #[tokio::test]
    async fn the_log_of_a_database_in_use_is_in_the_copy() {
        let bench = Bench::new();
        let writer = bench.open("shop.db");
        writer.execute_batch("PRAGMA journal_mode = wal; INSERT INTO orders VALUES (5000, 1, 'x'); BEGIN; DELETE FROM orders").unwrap();
        let out = bench.run(NAME, json!({ "database": "shop.db", "to": "new.db", "pages_per_step": 1 })).await.unwrap();
        assert_eq!((&out["restarts"], &out["bytes"]), (&json!(0), &json!(bench.read("new.db").len())));
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(count(&bench.world.sqlite_read("new.db").unwrap(), "SELECT count(*) FROM orders").unwrap(), 1001);
    }

    #[tokio::test]
    async fn a_writer_that_never_rests_does_not_hold_the_copy_up_for_ever() {
        let bench = Bench::new();
        let path = bench.path("shop.db");
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            let connection = rusqlite::Connection::open(path).unwrap();
            connection.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
            while ended.recv_timeout(std::time::Duration::from_millis(1)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                connection.execute_batch("PRAGMA synchronous = off; UPDATE orders SET total = total + 1 WHERE id = 1").unwrap();
            }
        });
        let with = json!({ "database": "shop.db", "to": "new.db", "pages_per_step": 1, "pause": "20ms", "restarts": 3 });
        let step = bench.step(NAME, with);
        let before = step.look(&bench.world).await.unwrap();
        let out = step.apply(&bench.world, &before).await.unwrap();
        end.send(()).unwrap();
        writer.join().unwrap();
        assert!(out["restarts"].as_u64().unwrap() > 3, "{out}");
        bench.run("sqlite.integrity", json!({ "database": "new.db", "least_rows": { "orders": 1000 } })).await.unwrap();
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods)]
    async fn a_writer_who_comes_and_goes_does_not_end_a_copy() {
        let bench = Bench::new();
        bench.sql("shop.db", "PRAGMA journal_mode = wal; INSERT INTO orders SELECT id + 5000, 1, hex(zeroblob(2000)) FROM orders");
        let path = bench.path("shop.db");
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            while ended.recv_timeout(std::time::Duration::from_millis(1)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let connection = rusqlite::Connection::open(&path).unwrap();
                connection.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
                connection.execute_batch("PRAGMA synchronous = off; UPDATE orders SET total = total + 1 WHERE id < 100").unwrap();
            }
        });
        let mut copies = Vec::new();
        for n in 0..20 {
            let to = format!("new{n}.db");
            let step = bench.step(NAME, json!({ "database": "shop.db", "to": to, "pages_per_step": 100 }));
            let before = step.look(&bench.world).await.unwrap();
            step.apply(&bench.world, &before).await.unwrap();
            copies.push(to);
        }
        end.send(()).unwrap();
        writer.join().unwrap();
        for copy in copies {
            bench.run("sqlite.integrity", json!({ "database": copy, "least_rows": { "orders": 2000 } })).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_cannot_be_copied_leaves_nothing() {
        let bench = Bench::new();
        bench.write("notes.txt", &[b"plain text ".as_slice(); 500].concat());
        for (from, to, why) in [
            ("shop.db", "copy.db", "exists already"),
            ("none.db", "new.db", "does not exist"),
            ("notes.txt", "new.db", "no SQLite database"),
        ] {
            let start = bench.tree();
            let says = bench.fails(NAME, json!({ "database": from, "to": to })).await;
            assert!(says.contains(why), "{says}");
            assert!(bench.tree() == start);
        }
        assert!(bench.fails(NAME, json!({ "database": "shop.db", "to": "shop.db", "overwrite": true })).await.contains("itself"));
    }

    #[tokio::test]
    async fn a_stopped_copy_is_undone() {
        let bench = Bench::new();
        let start = bench.tree();
        let step =
            bench.step(NAME, json!({ "database": "shop.db", "to": "copy.db", "overwrite": true, "pages_per_step": 1, "pause": "50ms" }));
        let before = step.look(&bench.world).await.unwrap();
        let (result, ()) = tokio::join!(step.apply(&bench.world, &before), async {
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
            bench.stop.send(true).unwrap();
        });
        assert_eq!(result, Err(Error::Stopped));
        step.undo(&bench.world, &before).await.unwrap();
        assert!(bench.tree() == start);
    }
}
