//! `shell`: a script.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    process::Program,
    program::{self, Found, Parse, Ran},
    setting::{Literal, OneOrMore, Secret},
    step::{Effect, Error, Kind, Reversal, Step, Tool},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Shell>();

/// Runs a script. It is taken as it is written: a template in it is an error, so that a value can never become part of it.
/// Values reach it through `env`, and it quotes them as any variable: `"$NAME"`. The interpreter that is taken when none is said
/// ends the script at the first command that fails and at the first variable that is not set. In a pipe only the last command's
/// failure counts; say `interpreter = ["/bin/bash", "-eu", "-o", "pipefail"]` where that matters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
#[schemars(rename = "Shell")]
pub(crate) struct Shell {
    /// The script. Templates may not stand in it.
    script: Literal,
    /// The program that runs the script, and its options; `-c` and the script are added. `["/bin/sh", "-eu"]` when not said.
    #[serde(default = "sh")]
    interpreter: OneOrMore<String>,
    /// Environment variables beyond the few that every program gets: the way into the script for values, also for secrets.
    #[serde(default)]
    env: BTreeMap<String, Secret>,
    /// What the script reads from its standard input; when not said, nothing. A secret may stand here.
    stdin: Option<Secret>,
    /// The directory in which the script starts; when not said, the playbook's.
    directory: Option<PathBuf>,
    /// How the output is read: `text` when not said, `lines`, or `json`, where anything else than JSON is a failure.
    #[serde(default)]
    parse: Parse,
    /// The exit codes that mean success.
    #[serde(default = "zero")]
    success: OneOrMore<u8>,
    /// A file that takes the whole output as it is, secrets included; `stdout` is empty then. It takes its place, synced, only after success; until then what was there stays. Its size and SHA-256 enter the record.
    stdout_to: Option<PathBuf>,
    /// The user as whom the script runs: by `setpriv` when the runner is root, else by `sudo -n`.
    user: Option<String>,
}

fn sh() -> OneOrMore<String> {
    OneOrMore(vec!["/bin/sh".into(), "-eu".into()])
}

fn zero() -> OneOrMore<u8> {
    OneOrMore(vec![0])
}

impl<'de> Deserialize<'de> for Shell {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let this = Self::deserialize(from)?;
        if this.script.0.trim().is_empty() {
            return Err(D::Error::custom("`script` is empty"));
        }
        program::check(&this.env, this.parse, this.stdout_to.as_deref()).map_err(D::Error::custom)?;
        Ok(this)
    }
}

impl Step for Shell {
    const NAME: &'static str = "shell";
    const EXAMPLES: &'static [&'static str] = &[
        "script = \"wc -c < data/a.txt\"\n",
        "script = '''\ncp old.txt \"$NEW\"\ncat \"$NEW\"\n'''\nenv = { NEW = \"a new name.txt\" }\n",
        "script = \"sort data/a.txt | uniq\"\ninterpreter = [\"/bin/bash\", \"-eu\", \"-o\", \"pipefail\"]\nparse = \"lines\"\n",
    ];
    const TELLS_PASSING: bool = false;
    type Before = Found;
    type Output = Ran;

    fn effect(&self) -> Effect {
        Effect::Write
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    fn tools(&self) -> Vec<Tool> {
        program::tool(&self.interpreter.0)
    }
    async fn look(&self, view: &View) -> Result<Found, Error> {
        program::find(view, &self.interpreter.0)
    }
    fn say(&self, _: &Found) -> String {
        let user = self.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        let mut lines = self.script.0.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let more = match lines.count() {
            0 => String::new(),
            more => format!(" … (and {more} more)"),
        };
        format!("run{user} with {}: {first}{more}", program::shown(&self.interpreter.0))
    }
    async fn apply(&self, world: &World, _: &Found) -> Result<Ran, Error> {
        let program = Program {
            argv: self.interpreter.0.iter().cloned().chain(["-c".to_owned(), self.script.0.clone()]).collect(),
            env: self.env.clone().into_iter().collect(),
            stdin: self.stdin.clone(),
            directory: self.directory.clone(),
            stdout_to: self.stdout_to.clone(),
            user: self.user.clone(),
            unrecorded: false,
        };
        program::run(world, "the script", program, self.parse, &self.success.0).await
    }
    async fn undo(&self, world: &World, _: &Found) -> Result<(), Error> {
        program::tidy(world, self.stdout_to.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stage::{Stage, step};

    #[tokio::test]
    async fn a_script_ends_at_its_first_failure_and_says_so() {
        let stage = Stage::new();
        let failed = stage.apply("shell", json!({ "script": "echo begun\ncat no-such-file\ntouch after" })).await;
        let Err(Error::Exit { code: Some(1), says }) = failed else { panic!("{failed:?}") };
        assert!(says.starts_with("the script ended with exit status 1: cat: no-such-file"), "{says}");
        assert!(stage.file("after").is_none());
        assert!(matches!(stage.apply("shell", json!({ "script": "echo $UNSET" })).await, Err(Error::Exit { .. })));
    }

    #[tokio::test]
    async fn a_value_stays_a_value() {
        let stage = Stage::new();
        let with = json!({ "script": "printf '%s' \"$V\"", "env": { "V": "$(touch hacked) `touch hacked`; touch hacked" } });
        assert_eq!(stage.apply("shell", with).await.unwrap()["stdout"], "$(touch hacked) `touch hacked`; touch hacked");
        assert!(stage.file("hacked").is_none());
    }

    #[test]
    fn an_empty_script_is_refused() {
        assert_eq!(step("shell", json!({ "script": " \n" })).err().unwrap(), "`script` is empty");
    }
}
