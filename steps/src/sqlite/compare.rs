use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rusqlite::{Row, types::ValueRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    database::{Glance, Reader, quoted, tables},
    pages::hold,
};
use crate::{
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Compare>();

/// Rows whose hashes are held in memory at a time when two tables differ: 16 bytes each, on both sides.
const ROWS_AT_ONCE: u64 = 4 << 20;
/// How many differences are listed.
const LISTED: usize = 20;

/// Proves that two SQLite databases hold the same, or that a copy holds nothing that the original has not: schema and every value of
/// every row, whatever the order of the rows and the layout of the files.
///
/// Each side is read in one transaction, for reading only, so a database in WAL mode stays writable meanwhile; in the other modes writers wait. It
/// fails where the copy differs, and as well where there is nothing to compare: no table, no row, or twice the same file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Compare {
    /// The original.
    left: PathBuf,
    /// The copy.
    right: PathBuf,
    /// How alike they have to be.
    #[serde(default)]
    expect: Expect,
}

/// How alike two databases have to be.
#[derive(Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Expect {
    /// Each holds every row of the other.
    #[default]
    Same,
    /// The original holds every row of the copy, and may hold more: it went on after the copy was made.
    Subset,
}

/// The two databases.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {
    left: Glance,
    right: Glance,
}

/// What was compared.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Compared {
    /// Tables compared.
    tables: u64,
    /// Rows of the copy, each of which is in the original.
    rows: u64,
    /// Whether they hold the same. With `expect = "subset"` it may be false.
    identical: bool,
    /// Rows that only the original holds.
    newer_rows: u64,
    /// What differs and is tolerated, a line for each table.
    differences: Vec<String>,
    /// Seconds that it took.
    duration_s: f64,
}

impl Step for Compare {
    const NAME: &'static str = "sqlite.compare";
    const EXAMPLES: &'static [&'static str] =
        &["left = \"shop.db\"\nright = \"copy.db\"\n", "left = \"shop.db\"\nright = \"copy.db\"\nexpect = \"subset\"\n"];
    const VERIFIES: bool = true;
    const RERUN: bool = true;
    type Before = Before;
    type Output = Compared;

    fn effect(&self) -> Effect {
        Effect::Read
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let (left, right) = (self.left.clone(), self.right.clone());
        view.blocking(move |view| Ok(Before { left: view.sqlite_glance(left)?, right: view.sqlite_glance(right)? })).await
    }
    fn say(&self, before: &Before) -> String {
        let (left, right) = (self.left.display(), self.right.display());
        let wanted = match self.expect {
            Expect::Same => "they have to hold the same",
            Expect::Subset => "the second may lack rows of the first",
        };
        format!("compare all rows of {left} ({}) and {right} ({}): {wanted}", before.left.says(), before.right.says())
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Compared, Error> {
        let (left, right, expect) = (world.path(&self.left), world.path(&self.right), self.expect);
        world.blocking(move |world| compare(world, &left, &right, expect)).await
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}

fn compare(world: &World, left: &Path, right: &Path, expect: Expect) -> Result<Compared, Error> {
    let began = world.clock();
    refuse_one_file(world, left, right)?;
    let (l, r) = (world.sqlite_read(left)?, world.sqlite_read(right)?);
    let found = differences(world, &l, &r);
    let found = l.settle(world, found);
    let found = r.settle(world, found)?;
    let (intolerable, tolerated): (Vec<_>, Vec<_>) = found.differences.iter().partition(|d| expect == Expect::Same || !d.newer);
    if !intolerable.is_empty() {
        let listed: Vec<_> = intolerable.iter().take(LISTED).map(|d| d.says.as_str()).collect();
        let more = intolerable.len().saturating_sub(LISTED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        return Err(Error::Final(format!(
            "{} does not hold what {} holds: {}{more}; find out which of the two is wrong before you use the copy",
            right.display(),
            left.display(),
            listed.join("; ")
        )));
    }
    if found.tables == 0 || found.rows == 0 {
        let what = if found.tables == 0 { "table" } else { "row" };
        return Err(Error::Final(format!("{} holds no {what}, so nothing was compared; check the path", right.display())));
    }
    Ok(Compared {
        tables: found.tables,
        rows: found.rows,
        identical: found.differences.is_empty(),
        newer_rows: found.newer_rows,
        differences: tolerated.into_iter().map(|d| d.says.clone()).collect(),
        duration_s: began.elapsed().as_secs_f64(),
    })
}

fn refuse_one_file(world: &World, left: &Path, right: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    let id = |path| Ok(world.metadata(path)?.map(|m| (m.dev(), m.ino())));
    match (id(left)?, id(right)?) {
        (Some(a), Some(b)) if a == b => {
            Err(Error::Final(format!("{} and {} are one file: to compare it with itself proves nothing", left.display(), right.display())))
        }
        _ => Ok(()),
    }
}

struct Found {
    tables: u64,
    rows: u64,
    newer_rows: u64,
    differences: Vec<Difference>,
}

struct Difference {
    says: String,
    /// Whether it is only that the original holds more rows.
    newer: bool,
}

fn differences(world: &World, left: &Reader, right: &Reader) -> Result<Found, Error> {
    let (wrong_left, wrong_right) = (left.wrong("compare"), right.wrong("compare"));
    hold(left).map_err(&wrong_left)?;
    hold(right).map_err(&wrong_right)?;
    let mut differences = schema_differences(&schema(left).map_err(&wrong_left)?, &schema(right).map_err(&wrong_right)?);
    let left_tables = tables(left).map_err(&wrong_left)?;
    let tables = tables(right).map_err(&wrong_right)?;
    let shared: Vec<_> = tables.iter().map(|(name, _)| name).filter(|name| left_tables.iter().any(|(other, _)| other == *name)).collect();
    let (mut rows, mut newer_rows) = (0, 0);
    for table in &shared {
        world.go_on()?;
        let columns = columns(left, table).map_err(&wrong_left)?;
        if columns != self::columns(right, table).map_err(&wrong_right)? {
            continue;
        }
        let select = format!("SELECT {} FROM main.{}", columns.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(", "), quoted(table));
        let l = Sum::take(left, &select, |n| world.progress(rows + n, 0, "rows")).map_err(&wrong_left)?;
        let r = Sum::take(right, &select, |n| world.progress(rows + n, 0, "rows")).map_err(&wrong_right)?;
        rows += r.rows;
        if l != r {
            let (only_left, only_right) = count_apart(world, left, right, &select, l.rows.max(r.rows))?;
            newer_rows += only_left;
            differences.push(Difference {
                says: format!(
                    "{table}: {only_left} rows only in the original, {only_right} only in the copy ({} and {} in all)",
                    l.rows, r.rows
                ),
                newer: only_right == 0,
            });
        }
    }
    Ok(Found { tables: shared.len() as u64, rows, newer_rows, differences })
}

type Objects = BTreeMap<(String, String), String>;

/// The objects of a schema by type and name, and the numbers that applications keep with it.
fn schema(connection: &Reader) -> rusqlite::Result<Objects> {
    let mut objects = Objects::new();
    let mut all =
        connection.prepare("SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\'")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        objects.insert((row.get(0)?, row.get(1)?), normalised(&row.get::<_, String>(2)?));
    }
    for name in ["user_version", "application_id"] {
        let number: i64 = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
        objects.insert(("number".into(), name.into()), number.to_string());
    }
    Ok(objects)
}

fn schema_differences(left: &Objects, right: &Objects) -> Vec<Difference> {
    let mut keys: Vec<_> = left.keys().chain(right.keys()).collect();
    keys.sort();
    keys.dedup();
    let says = |(kind, name): &(String, String)| match (left.get(&(kind.clone(), name.clone())), right.get(&(kind.clone(), name.clone()))) {
        (Some(_), None) => Some(format!("the {kind} {name} is only in the original")),
        (None, Some(_)) => Some(format!("the {kind} {name} is only in the copy")),
        (Some(a), Some(b)) if a != b && kind == "number" => Some(format!("{name} is {a} in the original and {b} in the copy")),
        (Some(a), Some(b)) if a != b => Some(format!("the {kind} {name} is defined in another way")),
        _ => None,
    };
    keys.into_iter().filter_map(says).map(|says| Difference { says, newer: false }).collect()
}

/// A definition with each run of white space outside of quotes made one space.
fn normalised(sql: &str) -> String {
    let (mut out, mut quote, mut space) = (String::with_capacity(sql.len()), None, false);
    for c in sql.trim().chars() {
        if quote.is_none() && c.is_whitespace() {
            space = true;
            continue;
        }
        if std::mem::take(&mut space) {
            out.push(' ');
        }
        out.push(c);
        quote = match (quote, c) {
            (Some(end), c) if c == end => None,
            (None, '\'' | '"' | '`') => Some(c),
            (None, '[') => Some(']'),
            (open, _) => open,
        };
    }
    out
}

/// The columns that are stored, in the order of their names.
fn columns(connection: &Reader, table: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY name")?
        .query_map([table], |row| row.get(0))?
        .collect()
}

/// How many rows there are, and the sum of their hashes, which no order of the rows changes.
#[derive(Debug, PartialEq)]
struct Sum {
    rows: u64,
    sum: (u128, u128),
}

impl Sum {
    fn take(connection: &Reader, select: &str, mut every: impl FnMut(u64)) -> rusqlite::Result<Self> {
        let mut all = Self { rows: 0, sum: (0, 0) };
        each(connection, select, |hash| {
            all.rows += 1;
            all.sum = (all.sum.0.wrapping_add(half(hash, 0)), all.sum.1.wrapping_add(half(hash, 16)));
            if all.rows.is_multiple_of(50_000) {
                every(all.rows);
            }
        })?;
        every(all.rows);
        Ok(all)
    }
}

/// Rows that are only on the left, and only on the right, counted in as many passes as keep the memory bounded.
fn count_apart(world: &World, left: &Reader, right: &Reader, select: &str, rows: u64) -> Result<(u64, u64), Error> {
    let passes = u128::from(rows.div_ceil(ROWS_AT_ONCE).max(1));
    let (mut only_left, mut only_right) = (0, 0);
    for pass in 0..passes {
        world.go_on()?;
        let hashes = |side: &Reader| {
            let mut hashes = Vec::new();
            each(side, select, |hash| hashes.extend(Some(half(hash, 0)).filter(|h| h % passes == pass))).map_err(side.wrong("compare"))?;
            hashes.sort_unstable();
            Ok::<_, Error>(hashes)
        };
        let (l, r) = apart(&hashes(left)?, &hashes(right)?);
        (only_left, only_right) = (only_left + l, only_right + r);
    }
    Ok((only_left, only_right))
}

/// How many values of two sorted lists are only in the first, and only in the second; one that is there twice counts twice.
fn apart(left: &[u128], right: &[u128]) -> (u64, u64) {
    let (mut i, mut j, mut only) = (0, 0, (0, 0));
    while i < left.len() && j < right.len() {
        match left[i].cmp(&right[j]) {
            std::cmp::Ordering::Less => (i, only.0) = (i + 1, only.0 + 1),
            std::cmp::Ordering::Greater => (j, only.1) = (j + 1, only.1 + 1),
            std::cmp::Ordering::Equal => (i, j) = (i + 1, j + 1),
        }
    }
    (only.0 + (left.len() - i) as u64, only.1 + (right.len() - j) as u64)
}

/// The hash of each row.
fn each(connection: &Reader, select: &str, mut take: impl FnMut(&[u8; 32])) -> rusqlite::Result<()> {
    let mut all = connection.prepare(select)?;
    let columns = all.column_count();
    let mut rows = all.query([])?;
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        bytes.clear();
        write_row(&mut bytes, row, columns)?;
        take(blake3::hash(&bytes).as_bytes());
    }
    Ok(())
}

/// Type, length and bytes of each value, so that no two rows are written alike.
fn write_row(bytes: &mut Vec<u8>, row: &Row<'_>, columns: usize) -> rusqlite::Result<()> {
    for column in 0..columns {
        let mut put = |kind: u8, data: &[u8]| {
            bytes.push(kind);
            bytes.extend_from_slice(&(data.len() as u64).to_le_bytes());
            bytes.extend_from_slice(data);
        };
        match row.get_ref(column)? {
            ValueRef::Null => put(0, &[]),
            ValueRef::Integer(number) => put(1, &number.to_le_bytes()),
            ValueRef::Real(number) => put(2, &number.to_bits().to_le_bytes()),
            ValueRef::Text(text) => put(3, text),
            ValueRef::Blob(blob) => put(4, blob),
        }
    }
    Ok(())
}

fn half(hash: &[u8; 32], from: usize) -> u128 {
    u128::from_le_bytes(std::array::from_fn(|i| hash[from + i]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sqlite::bench::Bench;

    const NAME: &str = "sqlite.compare";

    fn with(expect: &str) -> serde_json::Value {
        json!({ "left": "shop.db", "right": "copy.db", "expect": expect })
    }

    #[tokio::test]
    async fn the_same_content_is_the_same_in_another_layout() {
        let bench = Bench::new();
        bench.sql("shop.db", "CREATE TABLE free (a, b); INSERT INTO free VALUES (1, 'x'), (1, 'x'), (2, null)");
        bench.sql("copy.db", "CREATE  TABLE free (a,\n b)");
        assert!(bench.fails(NAME, with("same")).await.contains("free: 3 rows only in the original"));
        bench.sql(
            "copy.db",
            "INSERT INTO free VALUES (2, null), (1, 'x'), (3, 'x'); PRAGMA page_size = 512; VACUUM; PRAGMA journal_mode = wal",
        );
        assert!(bench.fails(NAME, with("same")).await.contains("free: 1 rows only in the original, 1 only in the copy (3 and 3 in all)"));
        bench.sql("copy.db", "UPDATE free SET a = 1 WHERE a = 3");
        let out = bench.run(NAME, with("same")).await.unwrap();
        assert_eq!((&out["tables"], &out["rows"], &out["identical"]), (&json!(2), &json!(1003), &json!(true)));
    }

    #[tokio::test]
    async fn an_original_that_went_on_is_tolerated_where_that_is_said() {
        let bench = Bench::new();
        bench.sql("shop.db", "INSERT INTO orders VALUES (5000, 1, 'x'), (5001, 1, 'x')");
        assert!(bench.fails(NAME, with("same")).await.contains("orders: 2 rows only in the original, 0 only in the copy"));
        let out = bench.run(NAME, with("subset")).await.unwrap();
        assert_eq!((&out["newer_rows"], &out["identical"], &out["rows"]), (&json!(2), &json!(false), &json!(1000)));
    }

    #[tokio::test]
    async fn what_differs_turns_red() {
        for (change, why) in [
            ("UPDATE orders SET total = total + 1 WHERE id = 7", "orders: 1 rows only in the original, 1 only in the copy"),
            ("UPDATE orders SET total = CAST(total AS BLOB) WHERE id = 7", "1 only in the copy"),
            ("INSERT INTO orders VALUES (5000, 1, 'x')", "0 rows only in the original, 1 only in the copy"),
            ("DROP TABLE orders; CREATE TABLE other (x); INSERT INTO other VALUES (1)", "table orders is only in the original"),
            ("DROP INDEX by_total; CREATE INDEX by_total ON orders (total DESC)", "index by_total is defined in another way"),
            ("DROP INDEX by_total", "index by_total is only in the original"),
            ("CREATE TRIGGER t AFTER INSERT ON orders BEGIN SELECT 1; END", "trigger t is only in the copy"),
            ("PRAGMA user_version = 3", "user_version is 0 in the original and 3 in the copy"),
        ] {
            for expect in ["same", "subset"] {
                let bench = Bench::new();
                bench.sql("copy.db", change);
                let says = bench.fails(NAME, with(expect)).await;
                assert!(says.contains(why), "{change}: {says}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_to_compare_turns_red() {
        let bench = Bench::new();
        let says = bench.fails(NAME, json!({ "left": "shop.db", "right": "./shop.db" })).await;
        assert!(says.contains("one file"), "{says}");
        for name in ["shop.db", "copy.db"] {
            bench.sql(name, "DELETE FROM orders");
        }
        assert!(bench.fails(NAME, with("same")).await.contains("no row"));
        for name in ["shop.db", "copy.db"] {
            bench.sql(name, "DROP TABLE orders");
        }
        assert!(bench.fails(NAME, with("same")).await.contains("no table"));
        bench.damage("copy.db");
        bench.fails(NAME, with("same")).await;
    }

    #[test]
    fn rows_are_counted_as_often_as_they_are_there() {
        assert_eq!(apart(&[1, 1, 2], &[1, 3]), (2, 1));
        assert_eq!(apart(&[], &[3]), (0, 1));
        assert_eq!(normalised(" a\n  b 'x  y' [p  q] \"r  s\" "), "a b 'x  y' [p  q] \"r  s\"");
    }
}
