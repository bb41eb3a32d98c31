//! A directory with a database and a copy of it, for the tests of these kinds.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    redact::Redactor,
    step::{AnyStep, Error},
    world::{Attempt, Surroundings, View, World},
};

pub(crate) struct Bench {
    directory: TempDir,
    pub(crate) world: World,
    pub(crate) stop: watch::Sender<bool>,
}

impl Bench {
    /// `shop.db` with 1000 orders, and `copy.db`, its copy.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (stop, stopped) = watch::channel(false);
        let attempt = Attempt {
            output: None,
            redactor: Arc::new(Redactor::default()),
            progress: Box::new(|_, _, _| {}),
            answers: Vec::new(),
            stop: stopped,
            grace: Duration::ZERO,
            captured: Mutex::default(),
            evaluate: Box::new(|_, _| Err("not here".into())),
        };
        let surroundings = Surroundings { directory: directory.path().to_owned(), search: Vec::new(), environment: Vec::new() };
        let bench = Self { world: World::new(View::new(surroundings), Arc::new(attempt)), directory, stop };
        bench.sql(
            "shop.db",
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER, placed_at TEXT);
             CREATE INDEX by_total ON orders (total);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO orders SELECT i, i * 7 % 100, strftime('%Y-%m-%dT%H:%M:%SZ', 1700000000 + i, 'unixepoch') FROM n;",
        );
        fs::copy(bench.path("shop.db"), bench.path("copy.db")).unwrap();
        bench
    }
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
    pub(crate) fn open(&self, name: &str) -> Connection {
        Connection::open(self.path(name)).unwrap()
    }
    pub(crate) fn sql(&self, name: &str, sql: &str) {
        self.open(name).execute_batch(sql).unwrap();
    }
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
    /// Writes zeros over a page, but for the first two, at half its length.
    pub(crate) fn damage(&self, name: &str) {
        let mut bytes = self.read(name);
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xa5);
        self.write(name, &bytes);
    }
    /// Every file and its content.
    pub(crate) fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }
    pub(crate) fn step(&self, kind: &str, with: Value) -> Box<dyn AnyStep> {
        (crate::kind(kind).unwrap().read)(with).unwrap_or_else(|refused| panic!("{}", refused.says))
    }
    /// Looks, which has to leave no trace, and applies.
    pub(crate) async fn run(&self, kind: &str, with: Value) -> Result<Value, Error> {
        let (step, start) = (self.step(kind, with), self.tree());
        let before = step.look(&self.world).await?;
        assert!(!step.say(&before).unwrap().is_empty());
        assert!(self.tree() == start, "{kind}: looking changed something");
        step.apply(&self.world, &before).await
    }
    /// The sentence of a failure that another try would not mend.
    pub(crate) async fn fails(&self, kind: &str, with: Value) -> String {
        match self.run(kind, with).await {
            Err(Error::Final(says)) => says,
            other => panic!("{kind}: {other:?}"),
        }
    }
    /// Looks, applies twice, undoes twice; gives what was there after `apply`. What was there at first has to be there again.
    pub(crate) async fn there_and_back(&self, kind: &str, with: Value) -> BTreeMap<String, Vec<u8>> {
        let (step, start) = (self.step(kind, with), self.tree());
        let before = step.look(&self.world).await.unwrap();
        step.apply(&self.world, &before).await.unwrap();
        let after = self.tree();
        step.apply(&self.world, &before).await.unwrap();
        assert!(self.tree() == after, "{kind}: applying twice did harm");
        for _ in 0..2 {
            step.undo(&self.world, &before).await.unwrap();
            assert!(self.tree() == start, "{kind}: undo is not exact: {:?}", self.tree().keys());
        }
        after
    }
}
