//! `shell`: a script.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    package_of,
    program::{Parse, Ran, outputs, program},
    setting::{Literal, Secret},
    step::{Effect, Error, Kind, Reversal, Step, Tool},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Shell>();

/// Runs a script. The script is literal: a template in it is an error, and values reach it through `env`, so that a value
/// can never become part of the script.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    /// The script.
    script: Literal,
    /// The program that runs it, given the script as its last argument behind `-c`.
    #[serde(default = "sh")]
    #[schemars(length(min = 1))]
    interpreter: Vec<String>,
    /// Environment variables; a secret may stand here.
    #[serde(default)]
    env: BTreeMap<String, Secret>,
    /// What it reads; a secret may stand here.
    stdin: Option<Secret>,
    /// Where it starts; the playbook's folder when not said.
    directory: Option<PathBuf>,
    /// How its output is read: `text`, `lines` or `json`.
    #[serde(default)]
    parse: Parse,
    /// Exit statuses that mean success.
    #[serde(default = "crate::command::zero")]
    success: Vec<i32>,
    /// A file that takes its output, as it is; `stdout` is empty then.
    stdout_to: Option<PathBuf>,
    /// The user it runs as; this needs root, or `sudo` without a password.
    user: Option<String>,
}

fn sh() -> Vec<String> {
    vec!["/bin/sh".into(), "-eu".into()]
}

/// Where the interpreter was found.
#[derive(Serialize, Deserialize)]
pub struct Before {
    program: PathBuf,
}

impl Step for Shell {
    const NAME: &'static str = "shell";
    const EXAMPLES: &'static [&'static str] = &["script = 'ls data | wc -l'\n", "script = 'echo \"$GREETING, world\"'\nenv = { GREETING = \"hello\" }\n"];
    const TELLS_PASSING: bool = false;
    type Before = Before;
    type Output = Ran;
    fn effect(&self) -> Effect {
        Effect::Write
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    fn tools(&self) -> Vec<Tool> {
        self.interpreter.first().map(|name| Tool { name: name.clone(), package: package_of(name) }).into_iter().collect()
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let name = self.interpreter.first().ok_or_else(|| Error::Final("`interpreter` is empty".into()))?;
        Ok(Before { program: view.program(name)? })
    }
    fn say(&self, before: &Before) -> String {
        let lines: Vec<&str> = self.script.0.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let more = if lines.len() > 1 { format!(" … ({} lines)", lines.len()) } else { String::new() };
        format!("run with {}: {}{more}", before.program.display(), lines.first().unwrap_or(&""))
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Ran, Error> {
        let argv = self.interpreter.iter().cloned().chain(["-c".to_owned(), self.script.0.clone()]).collect();
        let exit = world.run(program(argv, &self.env, self.stdin.as_ref(), self.directory.as_ref(), self.stdout_to.as_ref(), self.user.as_ref())).await?;
        outputs("the script", exit, &self.success, self.parse)
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}
