//! The stage of a test: a folder with a playbook, a home of its own, the real binary, and a ledger that the steps write
//! themselves, outside the tool: the oracle of what really happened.

use std::{
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

/// A folder, a home and a ledger.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Stage {
    /// A stage with this playbook as `playbook.toml`.
    pub(crate) fn new(playbook: &str) -> Self {
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        stage.write("playbook.toml", playbook);
        std::fs::write(stage.path("ledger"), "").unwrap();
        stage
    }
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
    /// `runsheet` with these arguments, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsheet"));
        command.args(arguments).current_dir(self.dir.path()).env("RUNSHEET_HOME", self.path("home")).stdin(Stdio::null());
        command
    }
    /// Runs `runsheet` to its end.
    pub(crate) fn runsheet(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).output().unwrap())
    }
    /// `runsheet run playbook.toml` with more arguments.
    pub(crate) fn run(&self, more: &[&str]) -> Ended {
        self.runsheet(&[&["run", "playbook.toml"], more].concat())
    }
    /// Starts `runsheet` beside the test.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
    /// `show last --format json`.
    pub(crate) fn show(&self) -> Value {
        let shown = self.runsheet(&["show", "last", "--format", "json"]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        serde_json::from_str(&shown.stdout).unwrap()
    }
    /// What the steps themselves say happened, a line each.
    pub(crate) fn ledger(&self) -> Vec<String> {
        self.read("ledger").lines().map(str::to_owned).collect()
    }
    /// Waits until something is so, at most ten seconds.
    pub(crate) fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        for _ in 0..200 {
            if so(self) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("never came to pass: {what}\nledger: {:?}", self.ledger());
    }
    /// The journal of the only run.
    pub(crate) fn journal(&self) -> PathBuf {
        let runs: Vec<_> = std::fs::read_dir(self.path("home/runs")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0].join("journal.jsonl")
    }
}

/// How a process ended.
pub(crate) fn ended(output: Output) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    Ended {
        code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The TOML of a step that writes its name to the ledger when it begins and when it ends, and the same for its undo.
pub(crate) fn step(id: &str, more: &str) -> String {
    format!(
        r#"
[steps.{id}]
uses = "shell"
with.script = 'echo "start $STEP" >> ledger; sleep "$SLEEP"; echo "end $STEP" >> ledger; exit "$EXIT"'
with.env = {{ STEP = "{id}", SLEEP = "{{{{ params.{id}_s }}}}", EXIT = "{{{{ params.{id}_exit }}}}" }}
{more}
[steps.{id}.rollback]
uses = "shell"
on_unknown = "rerun"
with.script = 'echo "undo $STEP" >> ledger'
with.env = {{ STEP = "{id}" }}
[params.{id}_s]
type = "string"
default = "0"
[params.{id}_exit]
type = "string"
default = "0"
"#
    )
}

/// A playbook with this `[playbook]` part and these steps.
pub(crate) fn playbook(head: &str, steps: &[String]) -> String {
    format!("runsheet = 1\n[playbook]\ntitle = \"Test\"\n{head}\n{}", steps.concat())
}
