//! A fresh directory and one attempt in it, for tests.

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    process::Captured,
    redact::Redactor,
    step::{Answer, AnyStep, Error},
    world::{Attempt, Surroundings, View, World},
};

pub(crate) struct Stage {
    pub(crate) directory: TempDir,
    pub(crate) world: World,
    pub(crate) stop: watch::Sender<bool>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(&[], Vec::new())
    }
    pub(crate) fn with(secrets: &[&str], answers: Vec<Answer>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        fs::write(directory.path().join("data/a.txt"), "a\n").unwrap();
        fs::write(directory.path().join("old.txt"), "old\n").unwrap();
        let view = View::new(Surroundings {
            directory: directory.path().to_owned(),
            search: ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"].map(PathBuf::from).into(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("LANG".into(), "C.UTF-8".into())],
        });
        let (stop, stopped) = watch::channel(false);
        let attempt = Attempt {
            output: Some(directory.path().join("record")),
            redactor: Arc::new(Redactor::new(secrets.iter().copied())),
            progress: Box::new(|_, _, _| {}),
            answers,
            evaluate: Box::new(evaluate),
            stop: stopped,
            grace: Duration::from_secs(1),
            captured: Default::default(),
        };
        Self { directory, world: World::new(view, Arc::new(attempt)), stop }
    }
    pub(crate) fn captured(&self) -> Vec<Captured> {
        self.world.attempt().captured.lock().unwrap().clone()
    }
    pub(crate) fn file(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.directory.path().join(name)).ok()
    }
    /// Reads the settings of a kind, looks and applies.
    pub(crate) async fn apply(&self, kind: &str, with: Value) -> Result<Value, Error> {
        let step = step(kind, with).unwrap();
        let before = step.look(&self.world).await?;
        step.say(&before)?;
        step.apply(&self.world, &before).await
    }
}

pub(crate) fn step(kind: &str, with: Value) -> Result<Box<dyn AnyStep>, String> {
    (crate::kind(kind).unwrap().read)(with).map_err(|refused| refused.says)
}

/// Knows `true`, `false`, `out.NAME` and `not out.NAME`.
fn evaluate(expression: &str, out: &Value) -> Result<bool, String> {
    let fixed = HashMap::from([("true", json!(true)), ("false", json!(false))]);
    let (negated, name) = expression.strip_prefix("not ").map_or((false, expression), |name| (true, name));
    let value = fixed.get(name).or_else(|| out.get(name.strip_prefix("out.")?));
    value.and_then(Value::as_bool).map(|value| value != negated).ok_or_else(|| format!("`{expression}` gives no bool"))
}
