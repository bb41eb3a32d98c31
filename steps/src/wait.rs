//! `wait`: until something is as it should be.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    process::Program,
    program::{self, Parse},
    setting::{Expression, Length, OneOrMore},
    step::{Effect, Error, Kind, Reversal, Step, Tool},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Wait>();

/// How long a connection may take before the port counts as closed.
const KNOCK: Duration = Duration::from_secs(5);

/// Looks again and again until what it looks at is as wanted: a command, a port or a path, exactly one of them. Without `until`
/// it waits until the command ends with exit code 0, the port accepts a connection, or something is at the path. With `until` it
/// waits until that expression holds, in which `out` is what the last look gave: the outputs below. The step's `timeout` ends it.
/// A command that fails only means not yet; one that cannot be started is a failure.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
#[schemars(rename = "Wait")]
pub(crate) struct Wait {
    /// A program and its arguments, run at each look; it has to be one that only reads.
    command: Option<OneOrMore<String>>,
    /// A TCP port as `host:port`, to which a connection is tried at each look.
    port: Option<String>,
    /// A path at which something is looked for; links are followed.
    path: Option<PathBuf>,
    /// What has to hold, over `out`. While nothing is at the path `out.bytes` is null: ask `out.exists and …` first.
    until: Option<Expression>,
    /// The time between two looks; `1s` when not said.
    #[serde(default = "second")]
    every: Length,
}

fn second() -> Length {
    Length(Duration::from_secs(1))
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let this = Self::deserialize(from)?;
        if this.subjects() != 1 {
            return Err(D::Error::custom("`wait` looks at one thing: give exactly one of `command`, `port` and `path`"));
        }
        if this.every.0.is_zero() {
            return Err(D::Error::custom("`every` is more than zero; a short time is \"100ms\""));
        }
        Ok(this)
    }
}

/// Nothing is changed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {}

/// What the last look gave. What it did not look at is null.
#[derive(Default, Serialize, JsonSchema)]
pub(crate) struct Waited {
    /// The command's exit code; null after a signal.
    exit_code: Option<i32>,
    /// The command's output without the last newline; of more than 64 KiB the beginning and the end.
    stdout: Option<String>,
    /// The command's error output, in the same way.
    stderr: Option<String>,
    /// Seconds that the command took.
    duration_s: Option<f64>,
    /// Whether the port accepted a connection.
    open: Option<bool>,
    /// Why the port did not; null when it did.
    error: Option<String>,
    /// Whether something is at the path.
    exists: Option<bool>,
    /// The size of the file at the path; null while there is no file.
    bytes: Option<u64>,
    /// Seconds since what is at the path was changed; null while nothing is there, or when its time lies in the future.
    age_s: Option<f64>,
    /// Seconds since the first look.
    waited_s: f64,
}

impl Step for Wait {
    const NAME: &'static str = "wait";
    const EXAMPLES: &'static [&'static str] = &[
        "path = \"data/a.txt\"\n",
        "path = \"old.txt\"\nuntil = \"out.exists and out.bytes > 0\"\nevery = \"100ms\"\n",
        "command = [\"test\", \"-e\", \"data/a.txt\"]\nevery = \"2s\"\n",
        "port = \"localhost:1\"\nuntil = \"not out.open\"\n",
    ];
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
        self.command.as_ref().map(|argv| program::tool(&argv.0)).unwrap_or_default()
    }
    async fn look(&self, view: &View) -> Result<Before, Error> {
        if let Some(argv) = &self.command {
            program::find(view, &argv.0)?;
        }
        if let Some(port) = &self.port {
            is_address(port)?;
        }
        if self.path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(Error::Final("`path` is empty; a template may have given no text".into()));
        }
        Ok(Before {})
    }
    fn say(&self, _: &Before) -> String {
        let (what, every) = (self.what(), self.every.0);
        match &self.until {
            Some(until) => format!("look at {what} every {every:?} until `{}`", until.0),
            None if self.command.is_some() => format!("run {what} every {every:?} until it succeeds"),
            None if self.port.is_some() => format!("look every {every:?} until {what} accepts a connection"),
            None => format!("look every {every:?} until {what} is there"),
        }
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Waited, Error> {
        let mut last = None;
        let waited = self.wait(world, &mut last).await;
        if let (Err(Error::Stopped), Some(last)) = (&waited, last) {
            world.remark(&format!("the last look at {}: {last}", self.what()))?;
        }
        waited
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}

impl Wait {
    async fn wait(&self, world: &World, last: &mut Option<String>) -> Result<Waited, Error> {
        let began = world.clock();
        loop {
            let mut seen = self.look_again(world).await?;
            seen.waited_s = began.elapsed().as_secs_f64();
            if self.is_enough(world, &seen)? {
                return Ok(seen);
            }
            *last = Some(seen.says());
            world.sleep(self.every.0).await?;
        }
    }
    async fn look_again(&self, world: &World) -> Result<Waited, Error> {
        match (&self.command, &self.port, &self.path) {
            (Some(argv), ..) => ask(world, &argv.0).await,
            (_, Some(port), _) => knock(world, port).await,
            (.., Some(path)) => stat(world, path),
            (None, None, None) => Err(Error::Final("BUG: there is nothing to look at".into())),
        }
    }
    fn is_enough(&self, world: &World, seen: &Waited) -> Result<bool, Error> {
        let Some(until) = &self.until else {
            return Ok(seen.exit_code == Some(0) || seen.open == Some(true) || seen.exists == Some(true));
        };
        world.holds(&until.0, &serde_json::json!(seen))
    }
    fn subjects(&self) -> usize {
        usize::from(self.command.is_some()) + usize::from(self.port.is_some()) + usize::from(self.path.is_some())
    }
    fn what(&self) -> String {
        match (&self.command, &self.port, &self.path) {
            (Some(argv), ..) => format!("`{}`", program::shown(&argv.0)),
            (_, Some(port), _) => format!("the port {port}"),
            (.., path) => path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        }
    }
}

impl Waited {
    /// What a person wants to know when time is up.
    fn says(&self) -> String {
        if let Some(code) = self.exit_code {
            let last = self.stderr.as_deref().unwrap_or_default().lines().last().unwrap_or("it wrote no error output");
            return format!("it ended with exit status {code}: {last}");
        }
        match (self.open, &self.error, self.exists, self.bytes) {
            (Some(false), Some(error), ..) => format!("no connection: {error}"),
            (Some(_), ..) => "it accepted a connection".into(),
            (.., Some(true), Some(bytes)) => format!("it held {bytes} bytes"),
            (.., Some(true), None) => "it was there".into(),
            (.., Some(false), _) => "nothing was there".into(),
            _ => "a signal ended it".into(),
        }
    }
}

async fn ask(world: &World, argv: &[String]) -> Result<Waited, Error> {
    let exit = world.run(Program { argv: argv.to_vec(), unrecorded: true, ..Program::default() }).await?;
    let exit_code = exit.code;
    let ran = program::outputs(&argv[0], exit, Parse::Text)?;
    Ok(Waited { exit_code, stdout: Some(ran.stdout), stderr: Some(ran.stderr), duration_s: Some(ran.duration_s), ..Waited::default() })
}

async fn knock(world: &World, port: &str) -> Result<Waited, Error> {
    let error = tokio::select! {
        knocked = world.knock(port, KNOCK) => knocked.err(),
        () = world.stopped() => return Err(Error::Stopped),
    };
    Ok(Waited { open: Some(error.is_none()), error, ..Waited::default() })
}

fn stat(world: &World, path: &PathBuf) -> Result<Waited, Error> {
    let there = world.metadata(path)?;
    let bytes = there.as_ref().filter(|there| there.is_file()).map(std::fs::Metadata::len);
    let age_s = there.as_ref().and_then(|there| world.age(there)).map(|age| age.as_secs_f64());
    Ok(Waited { exists: Some(there.is_some()), bytes, age_s, ..Waited::default() })
}

fn is_address(port: &str) -> Result<(), Error> {
    match port.rsplit_once(':') {
        Some((host, number)) if !host.is_empty() && number.parse::<u16>().is_ok_and(|number| number > 0) => Ok(()),
        _ => Err(Error::Final(format!("`{port}` is not a port; write `host:port`, as in \"db1:5432\" or \"[::1]:5432\""))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stage::{Stage, step};

    #[tokio::test]
    async fn a_command_that_fails_means_not_yet() {
        let stage = Stage::new();
        let script = "echo x >> tries; test $(wc -l < tries) = 3 || { echo no >&2; exit 9; }; echo now";
        let out = stage.apply("wait", json!({ "command": ["sh", "-c", script], "every": "20ms" })).await.unwrap();
        assert_eq!((&out["exit_code"], &out["stdout"], &out["stderr"], &out["open"]), (&json!(0), &json!("now"), &json!(""), &json!(null)));
        assert!(out["waited_s"].as_f64().unwrap() >= 0.04 && stage.captured().is_empty());
        let missing = stage.apply("wait", json!({ "command": ["no-such-program"] })).await;
        assert!(matches!(missing, Err(Error::Final(says)) if says.contains("not in PATH")));
    }

    #[tokio::test]
    async fn a_port_is_waited_for_until_it_opens() {
        let stage = Stage::new();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let closed = stage.apply("wait", json!({ "port": free.to_string(), "until": "not out.open" })).await.unwrap();
        assert_eq!((&closed["open"], &closed["error"]), (&json!(false), &json!("connection refused")));
        let opens = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            std::net::TcpListener::bind(free).unwrap()
        };
        let (open, _listener) = tokio::join!(stage.apply("wait", json!({ "port": free.to_string(), "every": "20ms" })), opens);
        let open = open.unwrap();
        assert_eq!((&open["open"], &open["error"]), (&json!(true), &json!(null)));
        assert!(open["waited_s"].as_f64().unwrap() >= 0.08);
    }

    #[tokio::test]
    async fn a_path_is_waited_for_until_it_is_there() {
        let stage = Stage::new();
        let file = stage.directory.path().join("new");
        let appears = async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            std::fs::write(file, "abc").unwrap();
        };
        let (out, ()) = tokio::join!(stage.apply("wait", json!({ "path": "new", "every": 0.02 })), appears);
        let out = out.unwrap();
        assert_eq!((&out["exists"], &out["bytes"]), (&json!(true), &json!(3)));
        assert!(out["age_s"].as_f64().unwrap() < 5.0);
        // A comparison with nothing is an error, never a quiet not yet.
        let wrong = stage.apply("wait", json!({ "path": "nowhere", "until": "out.bytes" })).await;
        assert!(matches!(wrong, Err(Error::Final(says)) if says.contains("gives no bool")));
    }

    #[tokio::test]
    async fn told_to_stop_it_leaves_word_of_its_last_look() {
        let stage = Stage::new();
        let stop = async {
            tokio::time::sleep(Duration::from_millis(80)).await;
            stage.stop.send(true).unwrap();
        };
        let (out, ()) =
            tokio::join!(stage.apply("wait", json!({ "command": ["sh", "-c", "echo in recovery >&2; exit 2"], "every": "20ms" })), stop);
        assert_eq!(out, Err(Error::Stopped));
        let word = String::from_utf8(stage.file("record.err").unwrap()).unwrap();
        assert_eq!(word, "the last look at `sh -c 'echo in recovery >&2; exit 2'`: it ended with exit status 2: in recovery\n");
    }

    #[tokio::test]
    async fn what_cannot_be_waited_for_is_refused() {
        for with in [json!({}), json!({ "until": "true" }), json!({ "path": "x", "port": "a:1" })] {
            assert!(step("wait", with).err().unwrap().contains("exactly one of"));
        }
        assert!(step("wait", json!({ "path": "x", "every": 0 })).err().unwrap().contains("more than zero"));
        let stage = Stage::new();
        for port in ["db1", "db1:", ":5432", "db1:0", "db1:70000", "db1:http"] {
            assert!(
                matches!(stage.apply("wait", json!({ "port": port })).await, Err(Error::Final(says)) if says.contains("host:port")),
                "{port}"
            );
        }
    }
}
