//! `wait`: until something holds.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    package_of,
    process::Program,
    program::{program, shown},
    setting::{Expression, Length},
    step::{Effect, Error, Kind, Reversal, Step, Tool},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Wait>();

/// Looks again and again until what it looks at is as wanted: a command, a port or a path, exactly one of them. Without
/// `until` it waits for exit status 0, an open port, or a path that exists. The step's `timeout` ends it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// An expression over `out`: `out.exit_code`, `out.stdout` of a command; `out.open` of a port; `out.exists`, `out.bytes` of a path.
    until: Option<Expression>,
    /// A program and its arguments, run each time.
    command: Option<Vec<String>>,
    /// `host:port`.
    port: Option<String>,
    /// A file or folder.
    path: Option<PathBuf>,
    /// How long between two looks.
    #[serde(default = "second")]
    every: Length,
}

fn second() -> Length {
    Length(Duration::from_secs(1))
}

/// Nothing is changed.
#[derive(Serialize, Deserialize)]
pub struct Before {}

/// What the last look saw; fields of what was not looked at are null.
#[derive(Default, Serialize, JsonSchema)]
pub struct Waited {
    /// Exit status of the command.
    exit_code: Option<i32>,
    /// Output of the command, without the last newline.
    stdout: Option<String>,
    /// Whether the port accepted a connection.
    open: Option<bool>,
    /// Whether the path exists.
    exists: Option<bool>,
    /// Size of the file, in bytes.
    bytes: Option<u64>,
    /// How long was waited, in seconds.
    waited_s: f64,
}

impl Step for Wait {
    const NAME: &'static str = "wait";
    const EXAMPLES: &'static [&'static str] = &["path = \"data/a.txt\"\nuntil = \"out.bytes > 0\"\n", "command = [\"true\"]\nevery = \"100ms\"\n"];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Waited;
    fn effect(&self) -> Effect {
        Effect::Read
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    fn tools(&self) -> Vec<Tool> {
        self.command.iter().filter_map(|argv| argv.first()).map(|name| Tool { name: name.clone(), package: package_of(name) }).collect()
    }
    async fn look(&self, _: &View) -> Result<Before, Error> {
        match [self.command.is_some(), self.port.is_some(), self.path.is_some()].iter().filter(|is| **is).count() {
            1 => Ok(Before {}),
            0 => Err(Error::Final("`wait` needs one of `command`, `port` and `path` to look at".into())),
            _ => Err(Error::Final("`wait` looks at one thing: `command`, `port` or `path`".into())),
        }
    }
    fn say(&self, _: &Before) -> String {
        let what = match (&self.command, &self.port, &self.path) {
            (Some(argv), _, _) => shown(argv),
            (_, Some(port), _) => format!("port {port}"),
            (_, _, Some(path)) => path.display().to_string(),
            _ => String::new(),
        };
        format!("wait for {what}{}", self.until.as_ref().map_or(String::new(), |until| format!(" until {}", until.0)))
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Waited, Error> {
        let began = world.clock();
        loop {
            let (mut seen, holds) = self.poll(world).await?;
            if holds {
                seen.waited_s = began.elapsed().as_secs_f64();
                return Ok(seen);
            }
            world.sleep(self.every.0.max(Duration::from_millis(10))).await?;
        }
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}

impl Wait {
    async fn poll(&self, world: &World) -> Result<(Waited, bool), Error> {
        let mut seen = Waited::default();
        let plainly = match (&self.command, &self.port, &self.path) {
            (Some(argv), _, _) => {
                let program = Program { unrecorded: true, ..program(argv.clone(), &BTreeMap::new(), None, None, None, None) };
                let exit = world.run(program).await?;
                (seen.exit_code, seen.stdout) = (exit.code, Some(exit.stdout.trim_end_matches('\n').to_owned()));
                exit.code == Some(0)
            }
            (_, Some(port), _) => {
                let open = world.knock(port, Duration::from_secs(5)).await.is_ok();
                seen.open = Some(open);
                open
            }
            (_, _, Some(path)) => {
                let found = world.metadata(path)?;
                (seen.exists, seen.bytes) = (Some(found.is_some()), Some(found.as_ref().map_or(0, std::fs::Metadata::len)));
                found.is_some()
            }
            _ => return Err(Error::Final("there is nothing to look at".into())),
        };
        let Some(until) = &self.until else { return Ok((seen, plainly)) };
        let out: Value = json!(seen);
        let holds = world.holds(&until.0, &out)?;
        Ok((seen, holds))
    }
}
