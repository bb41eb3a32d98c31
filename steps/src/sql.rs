use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use rusqlite::{
    Batch, Connection, Statement,
    fallible_iterator::FallibleIterator,
    hooks::{AuthAction, AuthContext, Authorization},
    types::{Value as Cell, ValueRef},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use crate::{
    setting::{Literal, Secret},
    sqlite::database::{Glance, sqlite_error},
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Sql>();

/// Bytes of all values together that an answer may hold: it is recorded, and read by people.
const LARGEST_ANSWER: usize = 8 << 20;
/// Pragmas that reach beyond the connection, into this program.
const OUT_OF_REACH: [&str; 4] = ["temp_store_directory", "data_store_directory", "soft_heap_limit", "hard_heap_limit"];

/// Runs SQL on a database and gives the rows.
///
/// A query reads only: the database is opened so that it cannot be changed, and a statement that would change it is refused. With
/// `write = true` there may be several statements; all of them take effect together or none does, so they may not begin or end a
/// transaction. A database that is locked is worth another try. A write cannot be undone by itself: give the step a `rollback`.
/// Values never become part of the SQL: they are bound by `params`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
#[schemars(rename = "Sql")]
pub(crate) struct Sql {
    /// The database: `sqlite:PATH`, where a relative path starts from the playbook's directory.
    connection: Secret,
    /// One statement, or several with `write`. Write `?1` or `:name` where a value belongs.
    query: Literal,
    /// The values: a list for `?1`, `?2`, … or a table for `:name`. Each is text, a number, a bool (1 or 0) or null; each must be used.
    #[serde(default)]
    params: Params,
    /// Whether there must be exactly one row; `row` is that one.
    #[serde(default)]
    one: bool,
    /// Whether the database may be changed.
    #[serde(default)]
    write: bool,
    /// With `write`: whether all statements are one transaction. `false` is for the few that cannot stand in one, such as `VACUUM` and
    /// `PRAGMA journal_mode = wal`. There may be only one statement then, and what it did stays, even if its answer is not as wanted.
    #[serde(default = "yes")]
    transaction: bool,
    /// The most rows that may come back; more are a failure, since half an answer is none.
    #[serde(default = "max_rows")]
    max_rows: u64,
}

fn yes() -> bool {
    true
}

fn max_rows() -> u64 {
    10_000
}

impl<'de> Deserialize<'de> for Sql {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let this = Self::deserialize(from)?;
        if !this.transaction && !this.write {
            return Err(de::Error::custom("`transaction` is for a step with `write = true`; a query that only reads needs none"));
        }
        Ok(this)
    }
}

/// The answer.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Answer {
    /// The rows, each with its values by column. Integers, numbers, text and null stay what they are; a blob is given in hex.
    rows: Vec<Map<String, Value>>,
    /// The row, when there is exactly one.
    row: Option<Map<String, Value>>,
    /// Rows that came back; with `write`, rows that were changed, those changed by triggers included.
    count: u64,
}

impl Step for Sql {
    const NAME: &'static str = "sql";
    const EXAMPLES: &'static [&'static str] = &[
        "connection = \"sqlite:shop.db\"\nquery = \"select count(*) as orders, max(placed_at) as newest from orders\"\none = true\n",
        "connection = \"sqlite:shop.db\"\nquery = \"select id, total from orders where total >= ?1 order by id limit ?2\"\nparams = [10, 5]\n",
        "connection = \"sqlite:shop.db\"\nquery = \"update orders set total = :total where id = :id\"\nparams = { id = 1, total = 25 }\nwrite = true\n",
    ];
    type Before = Glance;
    type Output = Answer;

    fn effect(&self) -> Effect {
        if self.write { Effect::Write } else { Effect::Read }
    }
    fn reversal(&self) -> Reversal {
        if self.write { Reversal::Never } else { Reversal::Nothing }
    }
    async fn look(&self, view: &View) -> Result<Glance, Error> {
        let database = database(&self.connection)?;
        view.blocking(move |view| view.sqlite_glance(database)).await
    }
    fn say(&self, before: &Glance) -> String {
        let how = if self.write { "change the database" } else { "ask the database" };
        format!("{how} ({}): {}", before.says(), short(&self.query.0))
    }
    async fn apply(&self, world: &World, _: &Glance) -> Result<Answer, Error> {
        let ask = Ask {
            database: world.path(database(&self.connection)?),
            query: self.query.0.clone(),
            params: self.params.clone(),
            one: self.one,
            max_rows: self.max_rows,
        };
        let (write, transaction) = (self.write, self.transaction);
        world.blocking(move |world| if write { ask.write(world, transaction) } else { ask.read(world) }).await
    }
    async fn undo(&self, _: &World, _: &Glance) -> Result<(), Error> {
        Ok(())
    }
}

/// The file that a connection names.
fn database(connection: &Secret) -> Result<PathBuf, Error> {
    let Some(path) = connection.expose().strip_prefix("sqlite:") else {
        let says = "`connection` is `sqlite:PATH`; PostgreSQL and MySQL are not spoken here yet, so use `command` with `psql` or `mariadb`";
        return Err(Error::Final(says.into()));
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.starts_with(':') || path.contains('?') {
        return Err(Error::Final("`connection` is `sqlite:PATH` with the path of a file, and nothing after it".into()));
    }
    Ok(PathBuf::from(path))
}

/// The beginning of a query on one line.
fn short(query: &str) -> String {
    let line = query.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

struct Ask {
    database: PathBuf,
    query: String,
    params: Params,
    one: bool,
    max_rows: u64,
}

impl Ask {
    fn read(&self, world: &World) -> Result<Answer, Error> {
        let mut reader = world.sqlite_read(&self.database)?;
        reader.guard(|context| if reads(&context.action) { Authorization::Allow } else { Authorization::Deny })?;
        let rows = self.read_rows(world, &reader);
        let rows = reader.settle(world, rows)?;
        let count = rows.len() as u64;
        Ok(answer(rows, count))
    }
    fn read_rows(&self, world: &World, connection: &Connection) -> Result<Vec<Map<String, Value>>, Error> {
        let mut batch = Batch::new(connection, &self.query);
        let statement = batch.next().map_err(|e| self.refused(&e))?;
        let mut statement = statement.ok_or_else(|| Error::Final("`query` holds no statement".into()))?;
        if !statement.readonly() {
            return Err(Error::Final(format!("`{}` would change the database; say `write = true` if it is to", short(&self.query))));
        }
        if batch.next().map_err(|e| self.refused(&e))?.is_some() {
            return Err(Error::Final("`query` holds several statements; only with `write = true` may it".into()));
        }
        let mut used = BTreeSet::new();
        let rows = self.rows(world, &mut statement, &mut used)?;
        self.params.refuse_unused(&used)?;
        self.check_one(rows)
    }
    fn write(&self, world: &World, transaction: bool) -> Result<Answer, Error> {
        let mut connection = world.sqlite_write(&self.database)?;
        let wrong = |e: rusqlite::Error| sqlite_error("write to", &self.database, &e);
        if transaction {
            connection.execute_batch("BEGIN IMMEDIATE").map_err(wrong)?;
        } else {
            self.refuse_several(&connection)?;
        }
        // `VACUUM` begins a transaction of its own.
        let own = move |action: &AuthAction<'_>| !transaction && matches!(action, AuthAction::Transaction { .. });
        let guard = move |context: AuthContext<'_>| {
            if stays(&context.action) || own(&context.action) { Authorization::Allow } else { Authorization::Deny }
        };
        connection.authorizer(Some(guard)).map_err(wrong)?;
        let (mut used, mut rows, mut any) = (BTreeSet::new(), Vec::new(), false);
        let changes = connection.total_changes();
        let mut batch = Batch::new(&connection, &self.query);
        while let Some(mut statement) = batch.next().map_err(|e| self.refused(&e))? {
            world.go_on()?;
            let answered = self.rows(world, &mut statement, &mut used)?;
            any = true;
            if statement.column_count() > 0 {
                rows = answered;
            }
        }
        if !any {
            return Err(Error::Final("`query` holds no statement".into()));
        }
        self.params.refuse_unused(&used)?;
        let rows = self.check_one(rows)?;
        let count = connection.total_changes() - changes;
        connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(wrong)?;
        if transaction {
            connection.execute_batch("COMMIT").map_err(wrong)?;
        } else if !connection.is_autocommit() {
            return Err(Error::Final("`query` begins a transaction and nothing ends it; leave `transaction = false` out".into()));
        }
        Ok(answer(rows, count))
    }
    fn refuse_several(&self, connection: &Connection) -> Result<(), Error> {
        let mut batch = Batch::new(connection, &self.query);
        batch.next().map_err(|e| self.refused(&e))?;
        match batch.next() {
            Ok(None) => Ok(()),
            _ => Err(Error::Final("`query` holds several statements; without a transaction it may hold one only".into())),
        }
    }
    /// Runs one statement to its end.
    fn rows(&self, world: &World, statement: &mut Statement<'_>, used: &mut BTreeSet<String>) -> Result<Vec<Map<String, Value>>, Error> {
        self.params.bind(statement, used)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        if let Some(twice) = columns.iter().enumerate().find_map(|(i, name)| columns[..i].contains(name).then_some(name)) {
            return Err(Error::Final(format!("two columns of the answer are called `{twice}`; give one another name with `as`")));
        }
        let (mut all, mut bytes) = (Vec::new(), 0);
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|e| self.refused(&e))? {
            if all.len() as u64 == self.max_rows {
                return Err(Error::Final(format!("the answer has more than {} rows; ask for less, or raise `max_rows`", self.max_rows)));
            }
            let mut fields = Map::new();
            for (index, name) in columns.iter().enumerate() {
                let (value, size) = json(row.get_ref(index).map_err(|e| self.refused(&e))?);
                bytes += size + name.len();
                fields.insert(name.clone(), value);
            }
            if bytes > LARGEST_ANSWER {
                return Err(Error::Final(format!(
                    "the answer is larger than {} MiB, and it is recorded; ask for less",
                    LARGEST_ANSWER >> 20
                )));
            }
            all.push(fields);
            if all.len().is_multiple_of(1000) {
                world.progress(all.len() as u64, 0, "rows");
            }
        }
        Ok(all)
    }
    fn check_one(&self, rows: Vec<Map<String, Value>>) -> Result<Vec<Map<String, Value>>, Error> {
        if self.one && rows.len() != 1 {
            return Err(Error::Final(format!("the answer has {} rows where `one` asks for exactly one", rows.len())));
        }
        Ok(rows)
    }
    fn refused(&self, e: &rusqlite::Error) -> Error {
        if e.sqlite_error_code() == Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) {
            let says = "`query` has a statement that is not for it: BEGIN, COMMIT and ROLLBACK are the step's own, what changes the database or \
                        attaches another wants `write = true`, and settings of the whole program are out of reach";
            return Error::Final(says.into());
        }
        sqlite_error("run the query on", &self.database, e)
    }
}

/// What a query may do that only reads.
fn reads(action: &AuthAction<'_>) -> bool {
    stays(action) && !matches!(action, AuthAction::Attach { .. } | AuthAction::Detach { .. } | AuthAction::Savepoint { .. })
}

/// What stays within the step's transaction and the database's files.
fn stays(action: &AuthAction<'_>) -> bool {
    match action {
        AuthAction::Transaction { .. } => false,
        AuthAction::Pragma { pragma_name, .. } => !OUT_OF_REACH.iter().any(|name| pragma_name.eq_ignore_ascii_case(name)),
        _ => true,
    }
}

fn answer(rows: Vec<Map<String, Value>>, count: u64) -> Answer {
    let row = if let [row] = rows.as_slice() { Some(row.clone()) } else { None };
    Answer { rows, row, count }
}

/// A value and about how many bytes it takes.
fn json(cell: ValueRef<'_>) -> (Value, usize) {
    match cell {
        ValueRef::Null => (Value::Null, 4),
        ValueRef::Integer(number) => (number.into(), 8),
        // JSON has no infinity.
        ValueRef::Real(number) => (serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number), 8),
        ValueRef::Text(text) => (String::from_utf8_lossy(text).into(), text.len()),
        ValueRef::Blob(blob) => (hex::encode(blob).into(), blob.len() * 2),
    }
}

/// The values of a query.
#[derive(Clone)]
enum Params {
    List(Vec<Scalar>),
    Table(BTreeMap<String, Scalar>),
}

impl Default for Params {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Params {
    /// Gives a statement its values, and notes which were used.
    fn bind(&self, statement: &mut Statement<'_>, used: &mut BTreeSet<String>) -> Result<(), Error> {
        for index in 1..=statement.parameter_count() {
            let name = statement.parameter_name(index).map(str::to_owned);
            let named = name.as_deref().filter(|name| !name.starts_with('?'));
            let (key, value) = match (self, named) {
                (Self::List(list), None) => (index.to_string(), list.get(index - 1)),
                (Self::Table(table), Some(name)) => (name[1..].to_owned(), table.get(&name[1..])),
                (Self::List(list), Some(name)) if list.is_empty() => (name.to_owned(), None),
                (Self::List(_), Some(name)) => {
                    return Err(Error::Final(format!("the query asks for `{name}` by name, and `params` is a list; write it as a table")));
                }
                (Self::Table(_), None) => {
                    return Err(Error::Final(
                        "the query asks for a value by its place, and `params` is a table; write `:name` in the query".into(),
                    ));
                }
            };
            let value = value.ok_or_else(|| Error::Final(format!("the query asks for the value `{key}`, which `params` does not hold")))?;
            statement.raw_bind_parameter(index, &value.0).map_err(|e| Error::Final(format!("the value `{key}` cannot be bound: {e}")))?;
            used.insert(key);
        }
        Ok(())
    }
    fn refuse_unused(&self, used: &BTreeSet<String>) -> Result<(), Error> {
        let given: Vec<String> = match self {
            Self::List(list) => (1..=list.len()).map(|n| n.to_string()).collect(),
            Self::Table(table) => table.keys().cloned().collect(),
        };
        match given.iter().find(|key| !used.contains(*key)) {
            Some(key) => Err(Error::Final(format!("the value `{key}` of `params` is not used by the query; take it out, or use it"))),
            None => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Params;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of values, or a table of them")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Params, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Params::List)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, table: A) -> Result<Params, A::Error> {
                Deserialize::deserialize(de::value::MapAccessDeserializer::new(table)).map(Params::Table)
            }
        }
        from.deserialize_any(Visitor)
    }
}

impl JsonSchema for Params {
    fn schema_name() -> Cow<'static, str> {
        "Params".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let scalar = ["string", "number", "integer", "boolean", "null"];
        json_schema!({ "type": ["array", "object"], "items": { "type": scalar }, "additionalProperties": { "type": scalar } })
    }
}

/// One value, as SQLite takes it.
#[derive(Clone)]
struct Scalar(Cell);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::Null => Ok(Self(Cell::Null)),
            Value::Bool(yes) => Ok(Self(Cell::Integer(yes.into()))),
            Value::String(text) => Ok(Self(Cell::Text(text))),
            Value::Number(number) => match (number.as_i64(), number.is_f64(), number.as_f64()) {
                (Some(whole), _, _) => Ok(Self(Cell::Integer(whole))),
                (None, true, Some(real)) => Ok(Self(Cell::Real(real))),
                _ => Err(de::Error::custom("this number is larger than SQL can hold")),
            },
            Value::Array(_) | Value::Object(_) => {
                Err(de::Error::custom("a list or a table is no value of SQL; give text, a number, a bool or null"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sqlite::bench::Bench;

    fn ask(query: &str) -> Value {
        json!({ "connection": "sqlite:shop.db", "query": query })
    }
    fn change(query: &str) -> Value {
        json!({ "connection": "sqlite:shop.db", "query": query, "write": true })
    }

    #[tokio::test]
    async fn values_come_back_as_what_they_are() {
        let bench = Bench::new();
        let out = bench
            .run("sql", ask("SELECT 9007199254740993 AS i, 1.5 AS r, 'x' AS t, x'00ff' AS b, null AS n, 1e999 AS much"))
            .await
            .unwrap();
        assert_eq!(out["row"], json!({ "i": 9007199254740993_i64, "r": 1.5, "t": "x", "b": "00ff", "n": null, "much": "inf" }));
        assert_eq!(out["count"], 1);
        let out = bench.run("sql", ask("SELECT id FROM orders WHERE id < 3 ORDER BY id")).await.unwrap();
        assert_eq!((&out["rows"], &out["row"]), (&json!([{ "id": 1 }, { "id": 2 }]), &Value::Null));
    }

    #[tokio::test]
    async fn values_are_bound_and_never_become_sql() {
        let bench = Bench::new();
        let evil = "x'); DROP TABLE orders; --";
        for (query, params) in [("SELECT ?2 AS v, ?1 AS w", json!([true, evil])), ("SELECT :v AS v, @w AS w", json!({ "v": evil, "w": 1 }))]
        {
            let out = bench.run("sql", json!({ "connection": "sqlite:shop.db", "query": query, "params": params })).await.unwrap();
            assert_eq!(out["row"], json!({ "v": evil, "w": 1 }));
        }
        for (query, params, why) in [
            ("SELECT ?1", json!([1, 2]), "not used"),
            ("SELECT ?2", json!([1]), "does not hold"),
            ("SELECT :a", json!({ "b": 1 }), "`a`"),
            ("SELECT :a", json!([1]), "by name"),
            ("SELECT ?", json!({ "b": 1 }), "by its place"),
        ] {
            let says = bench.fails("sql", json!({ "connection": "sqlite:shop.db", "query": query, "params": params })).await;
            assert!(says.contains(why), "{query}: {says}");
        }
    }

    #[tokio::test]
    async fn a_query_only_reads() {
        let bench = Bench::new();
        let start = bench.tree();
        for query in [
            "DELETE FROM orders",
            "SELECT 1; DELETE FROM orders",
            "VACUUM INTO 'stolen.db'",
            "PRAGMA journal_mode = wal",
            "PRAGMA temp_store_directory = '/'",
            "ATTACH 'other.db' AS o",
            "BEGIN",
            "SELECT load_extension('x')",
            "SELECT writefile('x', 'y')",
            "SELECT id, total AS id FROM orders",
            "SELECT \"no such\" FROM orders",
            "",
            "-- nothing",
        ] {
            bench.fails("sql", ask(query)).await;
            assert!(bench.tree() == start, "{query}");
        }
    }

    #[tokio::test]
    async fn a_write_takes_effect_whole_or_not_at_all() {
        let bench = Bench::new();
        let out = bench
            .run("sql", change("CREATE TABLE log (x); INSERT INTO log VALUES (1), (2); UPDATE orders SET total = 0 WHERE id <= 3"))
            .await
            .unwrap();
        assert_eq!(out["count"], 5);
        let out = bench.run("sql", change("DELETE FROM log WHERE x = 2 RETURNING x")).await.unwrap();
        assert_eq!((&out["count"], &out["row"]), (&json!(1), &json!({ "x": 2 })));
        let start = bench.tree();
        for query in [
            "DELETE FROM orders; SELECT nonsense",
            "DELETE FROM orders; COMMIT; SELECT 1",
            "ROLLBACK",
            "DELETE FROM orders; INSERT INTO orders (id) VALUES (1), (1)",
        ] {
            bench.fails("sql", change(query)).await;
            assert!(bench.tree() == start, "{query}");
        }
        let mut with = change("DELETE FROM orders WHERE id < 3 RETURNING id");
        with["one"] = true.into();
        assert!(bench.fails("sql", with).await.contains("exactly one"));
        assert!(bench.tree() == start);
    }

    #[tokio::test]
    async fn what_cannot_stand_in_a_transaction_stands_alone() {
        let bench = Bench::new();
        let alone = |query: &str| json!({ "connection": "sqlite:shop.db", "query": query, "write": true, "transaction": false });
        assert!(bench.fails("sql", change("PRAGMA journal_mode = wal")).await.contains("transaction"));
        assert_eq!(bench.run("sql", alone("PRAGMA journal_mode = wal")).await.unwrap()["row"], json!({ "journal_mode": "wal" }));
        bench.run("sql", alone("VACUUM")).await.unwrap();
        let start = bench.tree();
        for query in ["BEGIN", "SAVEPOINT s", "COMMIT", "DELETE FROM orders; DELETE FROM orders", "DELETE FROM orders; nonsense", ""] {
            bench.fails("sql", alone(query)).await;
            assert!(bench.tree() == start, "{query}");
        }
        let reads = json!({ "connection": "sqlite:shop.db", "query": "VACUUM", "transaction": false });
        assert!(crate::stage::step("sql", reads).err().unwrap().contains("write = true"));
    }

    #[tokio::test]
    async fn rows_can_be_fetched_from_a_copy() {
        let bench = Bench::new();
        bench.sql("shop.db", "DELETE FROM orders WHERE id > 10");
        let mut with = change("ATTACH ?1 AS old; INSERT INTO orders SELECT * FROM old.orders WHERE id > 10");
        with["params"] = json!([bench.path("copy.db").to_str().unwrap()]);
        assert_eq!(bench.run("sql", with.clone()).await.unwrap()["count"], 990);
        with["query"] = "ATTACH ?1 AS old; DELETE FROM old.orders".into();
        bench.fails("sql", with).await;
    }

    #[tokio::test]
    async fn limits_hold() {
        let bench = Bench::new();
        let mut with = ask("SELECT * FROM orders");
        with["max_rows"] = 999.into();
        assert!(bench.fails("sql", with).await.contains("more than 999"));
        assert!(bench.fails("sql", ask("SELECT zeroblob(9000000) AS z")).await.contains("larger than 8 MiB"));
        let mut with = ask("SELECT * FROM orders WHERE id < 0");
        with["one"] = true.into();
        assert!(bench.fails("sql", with).await.contains("0 rows"));
    }

    #[tokio::test]
    async fn a_locked_database_is_worth_another_try() {
        let bench = Bench::new();
        let writer = bench.open("shop.db");
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        bench.run("sql", ask("SELECT 1 AS one")).await.unwrap();
        assert!(matches!(bench.run("sql", change("DELETE FROM orders")).await, Err(Error::Passing(_))));
    }

    #[tokio::test]
    async fn other_systems_are_refused_without_telling_the_secret() {
        let bench = Bench::new();
        for connection in ["postgres://app:hunter2@db/shop", "sqlite:", "sqlite::memory:", "sqlite:shop.db?mode=rwc"] {
            let says = bench.fails("sql", json!({ "connection": connection, "query": "SELECT 1" })).await;
            assert!(says.contains("sqlite:PATH") && !says.contains("hunter2"), "{says}");
        }
        for connection in ["sqlite://shop.db".to_owned(), format!("sqlite://{}", bench.path("shop.db").display())] {
            bench.run("sql", json!({ "connection": connection, "query": "SELECT 1 AS one" })).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_long_query_ends_when_told_to() {
        let bench = Bench::new();
        let step = bench.step("sql", ask("SELECT count(*) AS n FROM orders a, orders b, orders c, orders d"));
        let before = json!({ "database": 1 });
        let (result, ()) = tokio::join!(step.apply(&bench.world, &before), async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            bench.stop.send(true).unwrap();
        });
        assert_eq!(result, Err(Error::Stopped));
    }
}
