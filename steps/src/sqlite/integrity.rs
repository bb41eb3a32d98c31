use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, civil, tz::TimeZone};
use rusqlite::types::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database::{Glance, Reader, count, pragma, quoted, seconds, tables};
use crate::{
    setting::Length,
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Integrity>();

/// How many problems an error lists.
const LISTED: usize = 20;

/// Proves that a SQLite database or a copy of one is sound and holds what it should: its pages, its indexes, its foreign keys,
/// its rows and, with `newest`, how fresh they are.
///
/// It fails on damage, and as well on a database that holds no table or no row, since looking at nothing proves nothing. All is
/// read in one transaction, for reading only; a database in WAL mode stays writable meanwhile, in the other modes writers wait.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Integrity {
    /// The database file.
    database: PathBuf,
    /// How thoroughly pages and indexes are checked.
    #[serde(default)]
    check: Check,
    /// Whether each row that refers to another must find it.
    #[serde(default = "yes")]
    foreign_keys: bool,
    /// The least number of tables.
    #[serde(default = "one")]
    least_tables: u64,
    /// The least number of rows, by table. A table that is not there is a failure.
    #[serde(default)]
    least_rows: BTreeMap<String, u64>,
    /// How fresh the newest row has to be.
    newest: Option<Newest>,
}

fn yes() -> bool {
    true
}

fn one() -> u64 {
    1
}

/// How thoroughly pages and indexes are checked.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Check {
    /// `PRAGMA integrity_check`: every page, every row, and every index against its table.
    #[default]
    Full,
    /// `PRAGMA quick_check`: as `full`, but without comparing indexes with tables; several times as fast.
    Quick,
}

/// How fresh the newest row has to be: its time may be at most `within` before or after `against`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Newest {
    /// The table.
    table: String,
    /// The column that holds when a row was written: text in ISO 8601 form, all in one form and zone, or numbers since the epoch. Where text names no zone it is taken for UTC.
    column: String,
    /// What numbers in the column count; not used for text.
    #[serde(default)]
    unit: Unit,
    /// How far the newest value may be from `against`. One that lies farther in the future is as wrong as an old one.
    within: Length,
    /// The moment that counts: text with a zone, or seconds since the epoch. Not said, it is now.
    #[schemars(with = "Option<Moment>")]
    against: Option<Moment>,
}

/// What a number since the epoch counts.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Seconds.
    #[default]
    Seconds,
    /// Thousandths of a second.
    Milliseconds,
    /// Millionths of a second.
    Microseconds,
}

/// What was proven.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Sound {
    /// Always `ok`: damage is a failure.
    check: String,
    /// Tables.
    tables: u64,
    /// Rows of all tables together.
    rows: u64,
    /// Pages.
    pages: u64,
    /// The newest value of the column of `newest`, in seconds of the epoch; nothing without `newest`.
    newest_at: Option<f64>,
    /// Seconds from the newest value to the moment that counts; negative if it is later; nothing without `newest`.
    age_s: Option<f64>,
    /// Seconds that it took.
    duration_s: f64,
}

impl Step for Integrity {
    const NAME: &'static str = "sqlite.integrity";
    const EXAMPLES: &'static [&'static str] = &[
        "database = \"shop.db\"\n",
        "database = \"copy.db\"\ncheck = \"quick\"\nleast_tables = 1\nleast_rows = { orders = 1000 }\n",
        "database = \"copy.db\"\nleast_rows.orders = 1\nnewest = { table = \"orders\", column = \"placed_at\", within = \"36500d\" }\n",
    ];
    const VERIFIES: bool = true;
    const RERUN: bool = true;
    type Before = Glance;
    type Output = Sound;

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
        let check = match self.check {
            Check::Full => "all pages, rows and indexes",
            Check::Quick => "all pages and rows",
        };
        let keys = if self.foreign_keys { " and foreign keys" } else { "" };
        let newest = self.newest.as_ref().map_or(String::new(), |n| format!(", and how fresh {}.{} is", n.table, n.column));
        format!("check {check}{keys} of {} ({}){newest}", self.database.display(), before.says())
    }
    async fn apply(&self, world: &World, _: &Glance) -> Result<Sound, Error> {
        let wanted = Wanted {
            database: world.path(&self.database),
            check: self.check,
            foreign_keys: self.foreign_keys,
            least_tables: self.least_tables,
            least_rows: self.least_rows.clone(),
            newest: self.newest.clone(),
        };
        world
            .blocking(move |world| {
                let reader = world.sqlite_read(&wanted.database)?;
                let sound = wanted.prove(world, &reader);
                reader.settle(world, sound)
            })
            .await
    }
    async fn undo(&self, _: &World, _: &Glance) -> Result<(), Error> {
        Ok(())
    }
}

struct Wanted {
    database: PathBuf,
    check: Check,
    foreign_keys: bool,
    least_tables: u64,
    least_rows: BTreeMap<String, u64>,
    newest: Option<Newest>,
}

impl Wanted {
    fn prove(&self, world: &World, reader: &Reader) -> Result<Sound, Error> {
        let began = world.clock();
        let wrong = reader.wrong("check");
        reader.execute_batch("BEGIN").map_err(&wrong)?;
        let all = tables(reader).map_err(&wrong)?;
        self.refuse_damage(reader)?;
        if self.foreign_keys {
            self.refuse_orphans(reader)?;
        }
        let counted = self.count(world, reader, &all)?;
        let (newest_at, age_s) = match &self.newest {
            Some(newest) => newest.fresh(world, reader, &self.database).map(|(at, age)| (Some(seconds(at)), Some(age)))?,
            None => (None, None),
        };
        Ok(Sound {
            check: "ok".into(),
            tables: all.iter().filter(|(_, of_people)| *of_people).count() as u64,
            rows: counted,
            pages: pragma(reader, "page_count").map_err(&wrong)?,
            newest_at,
            age_s,
            duration_s: began.elapsed().as_secs_f64(),
        })
    }
    fn refuse_damage(&self, reader: &Reader) -> Result<(), Error> {
        let check = match self.check {
            Check::Full => "integrity_check",
            Check::Quick => "quick_check",
        };
        let problems = lines(reader, &format!("PRAGMA {check}({LISTED})"), |row| row.get(0))?;
        if problems == ["ok"] { Ok(()) } else { Err(self.failed("is damaged", &problems, "restore it from a backup")) }
    }
    fn refuse_orphans(&self, reader: &Reader) -> Result<(), Error> {
        let orphans = lines(reader, "PRAGMA foreign_key_check", |row| {
            let (table, row_id, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let at = row_id.map_or(String::new(), |id| format!(" row {id}"));
            Ok(format!("{table}{at} refers to a row of {parent} that is not there"))
        })?;
        if orphans.is_empty() { Ok(()) } else { Err(self.failed("breaks its foreign keys", &orphans, "compare it with another backup")) }
    }
    /// Counts all rows, and holds what was asked of tables and rows against them.
    fn count(&self, world: &World, reader: &Reader, all: &[(String, bool)]) -> Result<u64, Error> {
        let (mut short, mut total) = (Vec::new(), 0);
        let of_people = all.iter().filter(|(_, of_people)| *of_people);
        if (of_people.clone().count() as u64) < self.least_tables.max(1) {
            short.push(format!("it has {} tables, and {} is the least", of_people.clone().count(), self.least_tables.max(1)));
        }
        for table in self.least_rows.keys().filter(|name| !all.iter().any(|(table, _)| table.eq_ignore_ascii_case(name))) {
            short.push(format!("it has no table {table}"));
        }
        for (done, (table, of_people)) in all.iter().enumerate() {
            world.go_on()?;
            let rows = count(reader, &format!("SELECT count(*) FROM main.{}", quoted(table))).map_err(reader.wrong("count the rows of"))?;
            total += if *of_people { rows } else { 0 };
            let least = self.least_rows.iter().find(|(name, _)| table.eq_ignore_ascii_case(name)).map_or(0, |(_, least)| *least);
            if rows < least {
                short.push(format!("{table} has {rows} rows, and {least} is the least"));
            }
            world.progress(done as u64 + 1, all.len() as u64, "tables");
        }
        if total == 0 {
            short.push("it has no rows at all, so nothing was verified".into());
        }
        if short.is_empty() {
            Ok(total)
        } else {
            Err(self.failed("holds less than it should", &short, "check the path, or restore another backup"))
        }
    }
    fn failed(&self, how: &str, problems: &[String], advice: &str) -> Error {
        let more = if problems.len() > LISTED { "; and more" } else { "" };
        let listed = problems.iter().take(LISTED).map(|p| p.replace('\n', " ")).collect::<Vec<_>>().join("; ");
        Error::Final(format!("{} {how}: {listed}{more}; {advice}", self.database.display()))
    }
}

/// The first lines of an answer, one more than are listed.
fn lines(reader: &Reader, sql: &str, line: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<String>) -> Result<Vec<String>, Error> {
    let read = || -> rusqlite::Result<Vec<String>> { reader.prepare(sql)?.query_map([], line)?.take(LISTED + 1).collect() };
    read().map_err(reader.wrong("check"))
}

impl Newest {
    /// The newest value and its age. Errors: too old, too far in the future, or no time at all.
    fn fresh(&self, world: &World, reader: &Reader, database: &Path) -> Result<(Timestamp, f64), Error> {
        let place = format!("{}.{} of {}", self.table, self.column, database.display());
        let newest = format!("SELECT max(t.{}) FROM main.{} t", quoted(&self.column), quoted(&self.table));
        let value: Value = reader.query_row(&newest, [], |row| row.get(0)).map_err(reader.wrong("find the newest row of"))?;
        let at = moment(&value, self.unit).map_err(|why| Error::Final(format!("the newest value of {place} {why}")))?;
        let against = self.against.as_ref().map_or_else(|| world.now(), |moment| moment.0);
        let age = against.duration_since(at).as_secs_f64();
        let (within, at_text) = (self.within.0.as_secs_f64(), format!("the newest value of {place} is {at}"));
        if age > within {
            return Err(Error::Final(format!(
                "{at_text}, {age:.0} s before {against}; it may be {within:.0} s old: the data is stale, so look for a newer backup"
            )));
        }
        if -age > within {
            return Err(Error::Final(format!(
                "{at_text}, {:.0} s after {against}: a time in the future proves nothing; check the column, its unit and the clocks",
                -age
            )));
        }
        Ok((at, age))
    }
}

/// The time that a value of a column means, or why it means none.
fn moment(value: &Value, unit: Unit) -> Result<Timestamp, String> {
    let per_second = match unit {
        Unit::Seconds => 1,
        Unit::Milliseconds => 1_000,
        Unit::Microseconds => 1_000_000,
    };
    let nanoseconds =
        |number: i128| Timestamp::from_nanosecond(number).map_err(|_| "is no time in the unit that was given; check `unit`".to_owned());
    match value {
        Value::Null => Err("is null, or there is no row: it proves nothing".into()),
        Value::Integer(number) => nanoseconds(i128::from(*number) * i128::from(1_000_000_000 / per_second)),
        Value::Real(number) => nanoseconds((number * 1e9 / per_second as f64) as i128),
        Value::Text(text) => text_moment(text).ok_or_else(|| format!("is `{text}`, which is no ISO 8601 time")),
        Value::Blob(_) => Err("is a blob, which is no time".into()),
    }
}

fn text_moment(text: &str) -> Option<Timestamp> {
    let utc = |at: civil::DateTime| at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    text.parse::<Timestamp>().ok().or_else(|| text.parse::<civil::DateTime>().ok().and_then(utc))
}

/// A moment: text with a zone, or seconds since the epoch.
#[derive(Clone, Deserialize)]
#[serde(try_from = "serde_json::Value")]
struct Moment(Timestamp);

impl TryFrom<serde_json::Value> for Moment {
    type Error = String;
    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        let wrong = || "a moment is text with a zone, as in \"2026-03-01T12:00:00Z\", or seconds since the epoch".to_owned();
        match &value {
            serde_json::Value::String(text) => text.parse().map(Self).map_err(|_| wrong()),
            serde_json::Value::Number(number) => {
                number.as_f64().and_then(|s| Timestamp::from_nanosecond((s * 1e9) as i128).ok()).map(Self).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Moment".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number"], "format": "timestamp" })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sqlite::bench::Bench;

    const NAME: &str = "sqlite.integrity";

    #[tokio::test]
    async fn a_sound_copy_is_proven() {
        let bench = Bench::new();
        let newest = json!({ "table": "orders", "column": "placed_at", "within": "1h", "against": "2023-11-14T22:40:00Z" });
        let out = bench.run(NAME, json!({ "database": "copy.db", "least_rows": { "Orders": 1000 }, "newest": newest })).await.unwrap();
        assert_eq!(
            (&out["rows"], &out["tables"], &out["check"], &out["newest_at"]),
            (&json!(1000), &json!(1), &json!("ok"), &json!(1_700_001_000.0))
        );
        assert_eq!(out["age_s"], json!(600.0));
    }

    #[tokio::test]
    async fn what_is_not_as_it_should_be_turns_red() {
        let bench = Bench::new();
        bench.write("empty.db", b"");
        bench.write("notes.txt", &[b"plain text ".as_slice(); 500].concat());
        bench.write("cut.db", &bench.read("shop.db")[..8192]);
        bench.write("damaged.db", &bench.read("shop.db"));
        bench.damage("damaged.db");
        bench.sql("bare.db", "PRAGMA user_version = 1");
        bench.sql("norows.db", "CREATE TABLE orders (id INTEGER)");
        bench.sql(
            "orphan.db",
            "PRAGMA foreign_keys = off; CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a REFERENCES a); INSERT INTO b VALUES (7)",
        );
        for (name, why) in [
            ("none.db", "does not exist"),
            ("empty.db", "empty"),
            ("notes.txt", "no SQLite database"),
            ("cut.db", "damaged"),
            ("damaged.db", "damaged"),
            ("bare.db", "0 tables"),
            ("norows.db", "no rows at all"),
            ("orphan.db", "b row 1 refers to a row of a"),
        ] {
            for check in ["full", "quick"] {
                let says = bench.fails(NAME, json!({ "database": name, "check": check })).await;
                assert!(says.contains(why), "{name}: {says}");
            }
        }
        let says =
            bench.fails(NAME, json!({ "database": "shop.db", "least_rows": { "orders": 1001, "invoices": 0 }, "least_tables": 2 })).await;
        assert!(says.contains("orders has 1000 rows") && says.contains("no table invoices") && says.contains("1 tables"), "{says}");
    }

    #[tokio::test]
    async fn an_index_that_lost_a_row_is_found_by_the_full_check() {
        let bench = Bench::new();
        bench.sql("shop.db", "CREATE TABLE twin (total INTEGER)");
        bench.sql(
            "shop.db",
            "PRAGMA writable_schema = on;
             UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'twin') WHERE name = 'none';
             CREATE INDEX late ON twin (total);
             INSERT INTO twin VALUES (1);
             UPDATE sqlite_schema SET sql = 'CREATE INDEX late ON twin (total DESC, 1)' WHERE name = 'late';",
        );
        let says = bench.fails(NAME, json!({ "database": "shop.db" })).await;
        assert!(says.contains("damaged"), "{says}");
    }

    #[tokio::test]
    async fn stale_future_and_absent_times_turn_red() {
        let bench = Bench::new();
        bench.sql("shop.db", "CREATE TABLE t (none, word, seconds, late); INSERT INTO t VALUES (null, 'soon', 1700000000, 9000000000)");
        for (table, column, why) in [
            ("orders", "placed_at", "stale"),
            ("t", "none", "null"),
            ("t", "word", "no ISO 8601"),
            ("t", "late", "future"),
            ("t", "absent", "no such column"),
        ] {
            let newest = json!({ "table": table, "column": column, "within": "1h" });
            let says = bench.fails(NAME, json!({ "database": "shop.db", "newest": newest })).await;
            assert!(says.contains(why), "{column}: {says}");
        }
        let newest = json!({ "table": "t", "column": "seconds", "within": "1s", "against": 1_700_000_001 });
        assert_eq!(bench.run(NAME, json!({ "database": "shop.db", "newest": newest })).await.unwrap()["age_s"], json!(1.0));
    }

    #[test]
    fn times_are_read_in_every_usual_form() {
        let at = |value: Value, unit| moment(&value, unit).map(|at| at.as_second());
        for text in
            ["2023-11-14T22:13:20Z", "2023-11-14 22:13:20", "2023-11-14T22:13:20", "2023-11-14T23:13:20+01:00", "2023-11-14 22:13:20.000"]
        {
            assert_eq!(at(Value::Text(text.into()), Unit::Seconds), Ok(1_700_000_000), "{text}");
        }
        assert_eq!(at(Value::Text("2023-11-14".into()), Unit::Seconds), Ok(1_699_920_000));
        assert_eq!(at(Value::Integer(1_700_000_000_000), Unit::Milliseconds), Ok(1_700_000_000));
        assert_eq!(at(Value::Real(1_700_000_000.5), Unit::Seconds), Ok(1_700_000_000));
        assert!(at(Value::Integer(i64::MAX), Unit::Seconds).is_err());
    }
}
