//! `command`: one program with its arguments.

use std::{collections::BTreeMap, path::PathBuf, slice};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    process::Program,
    program::{self, Found, Parse, Ran},
    setting::{OneOrMore, Secret},
    step::{Effect, Error, Kind, Reversal, Step, Tool},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Command>();

/// Runs a program, without a shell. Each element of `argv` reaches it as exactly one argument, whatever it holds: no word is
/// split, and no `*` and no `$` means anything. The program gets a short list of environment variables (PATH, HOME, LANG, TZ, …)
/// and what `env` adds. An exit code that is not in `success` is a failure, and so is the end by a signal. Say
/// `effect = "read"` on a step whose program only looks; else it is taken to write.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
#[schemars(rename = "Command")]
pub(crate) struct Command {
    /// The program and its arguments. A bare name is looked for in `PATH`; a relative path starts from the playbook's directory.
    argv: OneOrMore<String>,
    /// Environment variables beyond the few that every program gets; a secret may stand here.
    #[serde(default)]
    env: BTreeMap<String, Secret>,
    /// What the program reads from its standard input; when not said, nothing. A secret may stand here.
    stdin: Option<Secret>,
    /// The directory in which the program starts; when not said, the playbook's.
    directory: Option<PathBuf>,
    /// How the output is read: `text` when not said, `lines`, or `json`, where anything else than JSON is a failure.
    #[serde(default)]
    parse: Parse,
    /// The exit codes that mean success.
    #[serde(default = "zero")]
    success: OneOrMore<u8>,
    /// A file that takes the whole output as it is, secrets included; `stdout` is empty then. It takes its place, synced, only after success; until then what was there stays. Its size and SHA-256 enter the record.
    stdout_to: Option<PathBuf>,
    /// The user as whom the program runs: by `setpriv` when the runner is root, else by `sudo -n`.
    user: Option<String>,
}

fn zero() -> OneOrMore<u8> {
    OneOrMore(vec![0])
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let this = Self::deserialize(from)?;
        program::check(&this.env, this.parse, this.stdout_to.as_deref()).map_err(D::Error::custom)?;
        Ok(this)
    }
}

impl Step for Command {
    const NAME: &'static str = "command";
    const EXAMPLES: &'static [&'static str] = &[
        "argv = [\"wc\", \"-c\", \"data/a.txt\"]\n",
        "argv = [\"printf\", \"%s\", '{\"state\": \"ready\"}']\nparse = \"json\"\n",
        "argv = [\"sort\"]\nstdin = \"b\\na\\n\"\nenv = { LC_ALL = \"C\" }\nparse = \"lines\"\n",
        "argv = [\"grep\", \"-c\", \"no such line\", \"a.txt\"]\ndirectory = \"data\"\nsuccess = [0, 1]\n",
        "argv = [\"cat\", \"data/a.txt\"]\nstdout_to = \"old.txt\"\n",
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
        program::tool(&self.argv.0)
    }
    async fn look(&self, view: &View) -> Result<Found, Error> {
        program::find(view, &self.argv.0)
    }
    fn say(&self, _: &Found) -> String {
        let user = self.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        let to = self.stdout_to.as_ref().map(|file| format!(" > {}", program::shown(slice::from_ref(&file.display().to_string()))));
        format!("run{user} {}{}", program::shown(&self.argv.0), to.unwrap_or_default())
    }
    async fn apply(&self, world: &World, _: &Found) -> Result<Ran, Error> {
        let program = Program {
            argv: self.argv.0.clone(),
            env: self.env.clone().into_iter().collect(),
            stdin: self.stdin.clone(),
            directory: self.directory.clone(),
            stdout_to: self.stdout_to.clone(),
            user: self.user.clone(),
            unrecorded: false,
        };
        program::run(world, &format!("`{}`", self.argv.0[0]), program, self.parse, &self.success.0).await
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

    #[test]
    fn what_cannot_be_is_refused_when_it_is_read() {
        for (with, why) in [
            (json!({ "argv": [] }), "at least one entry"),
            (json!({ "argv": "ls -l" }), "expected a sequence"),
            (json!({ "argv": ["ls"], "success": [] }), "at least one entry"),
            (json!({ "argv": ["ls"], "success": [256] }), "256"),
            (json!({ "argv": ["ls"], "env": { "A=B": "c" } }), "`A=B` is not a name"),
            (json!({ "argv": ["ls"], "parse": "json", "stdout_to": "x" }), "leave one of them out"),
            (json!({ "argv": ["ls"], "parse": "xml" }), "unknown variant `xml`"),
            (json!({ "argv": ["ls"], "shell": true }), "unknown field `shell`"),
        ] {
            let says = step("command", with).err().unwrap();
            assert!(says.contains(why), "{says}");
        }
    }

    #[tokio::test]
    async fn a_file_for_the_output_is_whole_or_as_it_was() {
        let stage = Stage::new();
        let with = |script: &str| json!({ "argv": ["sh", "-c", script], "stdout_to": "old.txt" });
        let failed = stage.apply("command", with("echo half; exit 3")).await;
        assert!(matches!(failed, Err(Error::Exit { code: Some(3), .. })));
        assert_eq!((stage.file("old.txt").unwrap(), stage.file("old.txt.part")), (b"old\n".to_vec(), None));
        assert_eq!(stage.apply("command", with("echo whole")).await.unwrap()["stdout"], "");
        assert_eq!((stage.file("old.txt").unwrap(), stage.file("old.txt.part")), (b"whole\n".to_vec(), None));
    }

    #[tokio::test]
    async fn a_missing_program_is_said_before_it_is_needed() {
        let stage = Stage::new();
        let error = step("command", json!({ "argv": ["no-such-program"] })).unwrap().look(&stage.world).await.err();
        assert!(matches!(error, Some(Error::Final(says)) if says.contains("`no-such-program` is not in PATH")));
    }

    #[tokio::test]
    async fn the_line_of_a_rehearsal_can_be_read() {
        let stage = Stage::new();
        let all = step("command", json!({ "argv": ["echo", "a b"], "user": "postgres", "stdout_to": "a b.txt" })).unwrap();
        let before = all.look(&stage.world).await.unwrap();
        assert_eq!(all.say(&before).unwrap(), "run as postgres echo 'a b' > 'a b.txt'");
    }
}
