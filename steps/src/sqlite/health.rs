use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database::{Glance, Reader, WAL, beside, pragma, tables};
use crate::{
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Health>();

/// Reads what a SQLite database says of itself, in an instant: that it opens, its size, its journal mode, its tables.
///
/// It fails when the file is missing, is no SQLite database, is damaged where it looks, or holds no table. A database that is
/// locked, or whose last writer died and left a hot journal, is worth another try. It proves little about what the tables hold:
/// for that there is `sqlite.integrity`. The database is opened for reading only.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    /// The database file.
    database: PathBuf,
    /// Whether to go through all pages as well (`PRAGMA quick_check`): seconds for a gigabyte.
    #[serde(default)]
    quick_check: bool,
    /// Whether a database without any table is well.
    #[serde(default)]
    allow_empty: bool,
}

/// What the database says of itself.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Facts {
    /// The database file, absolute.
    path: String,
    /// Bytes on disk: the file and its write-ahead log.
    database_bytes: u64,
    /// Bytes of its write-ahead log; 0 when there is none.
    wal_bytes: u64,
    /// How it keeps its journal: `delete`, `truncate`, `persist` or `wal`.
    journal_mode: String,
    /// Bytes of a page.
    page_size: u64,
    /// Pages in the database.
    page_count: u64,
    /// Pages that hold nothing and that `VACUUM` would give back.
    freelist_pages: u64,
    /// Tables.
    tables: u64,
    /// The number that the application keeps its version of the schema in.
    user_version: i64,
    /// The number by which an application marks its files; 0 when it does not.
    application_id: i64,
    /// How text is kept: `UTF-8`, `UTF-16le` or `UTF-16be`.
    encoding: String,
    /// The version of SQLite that read it: the one within this program.
    sqlite_version: String,
}

impl Step for Health {
    const NAME: &'static str = "sqlite.health";
    const EXAMPLES: &'static [&'static str] = &["database = \"shop.db\"\n", "database = \"shop.db\"\nquick_check = true\n"];
    const RERUN: bool = true;
    type Before = Glance;
    type Output = Facts;

    fn effect(&self) -> Effect {
        Effect::Read
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    async fn look(&self, view: &View) -> Result<Glance, Error> {
        let database = self.database.clone();
        view.blocking(move |view| view.sqlite_glance(database)).await
    }
    fn say(&self, before: &Glance) -> String {
        let pages = if self.quick_check { " and go through all its pages" } else { "" };
        format!("read the facts of {} ({}){pages}", self.database.display(), before.says())
    }
    async fn apply(&self, world: &World, _: &Glance) -> Result<Facts, Error> {
        let (database, quick_check, allow_empty) = (world.path(&self.database), self.quick_check, self.allow_empty);
        world
            .blocking(move |world| {
                let reader = world.sqlite_read(&database)?;
                let facts = facts(world, &reader, &database, quick_check);
                let facts = reader.settle(world, facts)?;
                if facts.tables == 0 && !allow_empty {
                    return Err(Error::Final(format!(
                        "{} holds no table; check the path, or say `allow_empty = true` if that is as it should be",
                        database.display()
                    )));
                }
                Ok(facts)
            })
            .await
    }
    async fn undo(&self, _: &World, _: &Glance) -> Result<(), Error> {
        Ok(())
    }
}

fn facts(world: &World, reader: &Reader, database: &std::path::Path, quick_check: bool) -> Result<Facts, Error> {
    let wrong = reader.wrong("read");
    let bytes = |suffix| Ok(world.metadata(beside(database, suffix))?.map_or(0, |m| m.len()));
    let number = |name: &str| pragma(reader, name).map_err(&wrong);
    let signed = |name: &str| reader.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).map_err(&wrong);
    let text = |name: &str| reader.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, String>(0)).map_err(&wrong);
    let tables = tables(reader).map_err(&wrong)?;
    if quick_check {
        let said = text("quick_check(1)")?;
        if said != "ok" {
            return Err(Error::Final(format!("{} is damaged: {said}; restore it from a backup", database.display())));
        }
    }
    let wal_bytes = bytes(WAL)?;
    let file_bytes: u64 = bytes("")?;
    Ok(Facts {
        path: database.display().to_string(),
        database_bytes: file_bytes + wal_bytes,
        wal_bytes,
        journal_mode: if reader.wal_at_rest() { "wal".into() } else { text("journal_mode")? },
        page_size: number("page_size")?,
        page_count: number("page_count")?,
        freelist_pages: number("freelist_count")?,
        tables: tables.iter().filter(|(_, of_people)| *of_people).count() as u64,
        user_version: signed("user_version")?,
        application_id: signed("application_id")?,
        encoding: text("encoding")?,
        sqlite_version: rusqlite::version().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{sqlite::bench::Bench, step::Error};

    const NAME: &str = "sqlite.health";

    #[tokio::test]
    async fn a_healthy_database_tells_its_facts() {
        let bench = Bench::new();
        let out = bench.run(NAME, json!({ "database": "shop.db", "quick_check": true })).await.unwrap();
        assert_eq!(
            (&out["tables"], &out["journal_mode"], &out["encoding"], &out["wal_bytes"]),
            (&json!(1), &json!("delete"), &json!("UTF-8"), &json!(0))
        );
        assert_eq!(out["database_bytes"], json!(bench.read("shop.db").len()));
    }

    #[tokio::test]
    async fn wal_mode_is_told_at_rest_and_in_use() {
        let bench = Bench::new();
        bench.sql("shop.db", "PRAGMA journal_mode = wal");
        let with = json!({ "database": "shop.db" });
        assert_eq!(bench.run(NAME, with.clone()).await.unwrap()["journal_mode"], "wal");
        let writer = bench.open("shop.db");
        writer.execute_batch("INSERT INTO orders VALUES (5000, 1, 'x')").unwrap();
        let out = bench.run(NAME, with).await.unwrap();
        assert_eq!(out["journal_mode"], "wal");
        assert!(out["wal_bytes"].as_u64().unwrap() > 0);
    }

    #[tokio::test]
    async fn what_is_no_healthy_database_fails() {
        let bench = Bench::new();
        bench.write("empty.db", b"");
        bench.write("notes.txt", &[b"plain text ".as_slice(); 500].concat());
        bench.write("cut.db", &bench.read("shop.db")[..8192]);
        bench.sql("bare.db", "PRAGMA user_version = 1");
        for (name, why) in [
            ("none.db", "does not exist"),
            ("empty.db", "empty"),
            ("notes.txt", "no SQLite database"),
            ("cut.db", "damaged"),
            ("bare.db", "no table"),
        ] {
            let says = bench.fails(NAME, json!({ "database": name })).await;
            assert!(says.contains(why), "{name}: {says}");
        }
        bench.run(NAME, json!({ "database": "bare.db", "allow_empty": true })).await.unwrap();
        bench.damage("shop.db");
        assert!(bench.fails(NAME, json!({ "database": "shop.db", "quick_check": true })).await.contains("damaged"));
    }

    #[tokio::test]
    async fn a_locked_database_is_worth_another_try() {
        let bench = Bench::new();
        let writer = bench.open("shop.db");
        writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(matches!(bench.run(NAME, json!({ "database": "shop.db" })).await, Err(Error::Passing(_))));
    }

    #[tokio::test]
    async fn a_hot_journal_is_worth_another_try() {
        let bench = Bench::new();
        let writer = bench.open("shop.db");
        writer.execute_batch("PRAGMA cache_size = 1; BEGIN; UPDATE orders SET placed_at = placed_at || hex(zeroblob(200))").unwrap();
        bench.write("hot.db", &bench.read("shop.db"));
        bench.write("hot.db-journal", &bench.read("shop.db-journal"));
        let start = bench.tree();
        let said = bench.run(NAME, json!({ "database": "hot.db" })).await;
        assert!(matches!(&said, Err(Error::Passing(says)) if says.contains("hot journal")), "{said:?}");
        assert!(bench.tree() == start);
    }
}
