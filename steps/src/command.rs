//! `command`: one program with its arguments.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    package_of,
    program::{Parse, Ran, outputs, program, shown},
    setting::Secret,
    step::{Effect, Error, Kind, Reversal, Step, Tool},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Command>();

/// Runs a program. Each element of `argv` reaches it as exactly one argument; there is no shell in between. It gets a
/// short list of environment variables (PATH, HOME, LANG, TZ, …) and those of `env`, and nothing to read unless `stdin`
/// says so.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program, and its arguments.
    #[schemars(length(min = 1))]
    argv: Vec<String>,
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
    #[serde(default = "zero")]
    success: Vec<i32>,
    /// A file that takes its output, as it is; `stdout` is empty then.
    stdout_to: Option<PathBuf>,
    /// The user it runs as; this needs root, or `sudo` without a password.
    user: Option<String>,
}

pub(crate) fn zero() -> Vec<i32> {
    vec![0]
}

/// Where the program was found.
#[derive(Serialize, Deserialize)]
pub struct Before {
    program: PathBuf,
}

impl Step for Command {
    const NAME: &'static str = "command";
    const EXAMPLES: &'static [&'static str] = &["argv = [\"ls\", \"-l\", \"data\"]\n", "argv = [\"printf\", \"%s\", \"[1, 2]\"]\nparse = \"json\"\n"];
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
        self.argv.first().map(|name| Tool { name: name.clone(), package: package_of(name) }).into_iter().collect()
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        let name = self.argv.first().ok_or_else(|| Error::Final("`argv` is empty; it begins with the program".into()))?;
        Ok(Before { program: view.program(name)? })
    }
    fn say(&self, _: &Before) -> String {
        format!("run {}", shown(&self.argv))
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Ran, Error> {
        let exit = world.run(program(self.argv.clone(), &self.env, self.stdin.as_ref(), self.directory.as_ref(), self.stdout_to.as_ref(), self.user.as_ref())).await?;
        outputs(self.argv.first().map_or("", String::as_str), exit, &self.success, self.parse)
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}
