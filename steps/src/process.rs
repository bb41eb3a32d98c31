//! Programs: how a step starts one, takes its output and ends it. The output goes to the attempt's files, redacted and
//! capped, and its beginning and end come back as text. Unaware of what the program is for.

#![expect(clippy::disallowed_methods, reason = "this is the door to programs")]

use std::{
    borrow::Cow,
    io::{Read, Write},
    os::unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    redact::Stream,
    setting::Secret,
    step::Error,
    world::{World, io_error},
};

/// Bytes of one stream that are kept from its beginning, and again from its end.
pub const KEPT: usize = 1 << 20;
/// How long a stream may stay open after its program ended, when a grandchild holds it.
const DRAIN: Duration = Duration::from_secs(2);
/// The most that a pipe holds: what a program wrote itself has been read once so much has come after its end.
const PIPE: usize = 1 << 20;
/// How often a group that has been told to end is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A program to start.
#[derive(Clone, Default)]
pub struct Program {
    /// The program and its arguments; no shell in between.
    pub argv: Vec<String>,
    /// Environment beyond the allow-listed one.
    pub env: Vec<(String, Secret)>,
    /// What it reads; nothing: an empty input.
    pub stdin: Option<Secret>,
    /// Where it starts; nothing: the playbook's directory.
    pub directory: Option<PathBuf>,
    /// A file, made anew, that takes its whole output, unredacted; nothing: the attempt's record.
    pub stdout_to: Option<PathBuf>,
    /// The user it runs as; nothing: the runner's.
    pub user: Option<String>,
    /// Whether its output stays out of the attempt's record, as for one look of many.
    pub unrecorded: bool,
}

/// How a program ended.
pub struct Exit {
    /// Its exit status; none after a signal.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The beginning (and the end) of what it put out, redacted.
    pub stdout: String,
    /// The same for its error output.
    pub stderr: String,
    /// Bytes that are missing in the middle of `stdout`.
    pub left_out: u64,
    /// From start to end.
    pub duration: Duration,
}

impl Exit {
    /// How it ended, in words: `exit status 3`, `signal 9 (KILL)`.
    pub fn how(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => match SIGNALS.get(signal as usize - 1) {
                Some(name) => format!("signal {signal} ({name})"),
                None => format!("signal {signal}"),
            },
            (None, None) => "an unknown status".into(),
        }
    }
}

/// What is recorded of one stream of one program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// `out`, `err`, or `stdout_to` for output that went to a file of the author's.
    pub stream: String,
    /// Bytes that came: after redaction, but for `stdout_to`.
    pub bytes: u64,
    /// SHA-256 of all of them, hex.
    pub sha256: String,
    /// Whether the middle was left out of the file.
    pub cut: bool,
    /// Whether a process kept the stream open after the program had ended.
    pub held_open: bool,
}

impl World {
    /// Runs a program to its end. Told to stop, it ends the program's process group: TERM, after a grace KILL.
    /// Errors: it cannot be started, or the step was stopped. An exit status is no error here.
    pub async fn run(&self, program: Program) -> Result<Exit, Error> {
        self.go_on()?;
        let began = Instant::now();
        let mut running = self.spawn(&program).await?;
        let (stdin, out, err) = (running.child.stdin.take(), running.child.stdout.take(), running.child.stderr.take());
        let (ended, end) = watch::channel(false);
        let work = async {
            let status = tokio::select! {
                biased;
                status = running.child.wait() => status.map_err(|e| Error::Final(format!("cannot learn how `{}` ended: {e}", program.argv[0]))),
                () = self.stopped() => Err(self.end(&mut running, &program).await),
            };
            let duration = began.elapsed();
            let _ = ended.send(true);
            (status, duration)
        };
        let feed = feed(stdin, program.stdin.as_ref(), end.clone());
        let ((status, duration), (), out, err) = tokio::join!(work, feed, self.keep(out, end.clone()), self.keep(err, end.clone()));
        if !program.unrecorded {
            self.record("out", &out)?;
            self.record("err", &err)?;
        }
        let status = status?;
        if let Some(file) = &program.stdout_to {
            self.seal(file).await?;
        }
        let left_out = out.left_out();
        Ok(Exit { code: status.code(), signal: status.signal(), stdout: out.into_text(), stderr: err.into_text(), left_out, duration })
    }

    async fn spawn(&self, program: &Program) -> Result<Running, Error> {
        let Some(name) = program.argv.first() else { return Err(Error::Final("`argv` is empty; it begins with the program".into())) };
        let path = self.program(name)?;
        let wrapped = match &program.user {
            None => Wrapped { path: Cow::Borrowed(&path), before: Vec::new(), env: Vec::new() },
            Some(user) => self.as_user(user, &path, &program.env).await?,
        };
        let directory = self.path(program.directory.as_deref().unwrap_or(Path::new("")));
        // An absolute path, and no hook between fork and exec: so the standard library may use posix_spawn, whose cost
        // does not grow with this process.
        let mut command = Command::new(&*wrapped.path);
        command.args(&wrapped.before).args(&program.argv[1..]);
        command.env_clear().envs(self.environment().iter().map(|(name, value)| (name, value)));
        // By this a runner that takes the run up later knows what its predecessor left behind.
        if let Some(attempt) = self.attempt().output.as_ref().and_then(|stem| stem.file_name()) {
            command.env("RUNSHEET_ATTEMPT", attempt);
        }
        command.envs(wrapped.env).envs(program.env.iter().map(|(name, value)| (name, value.expose())));
        command.current_dir(&directory).process_group(0).kill_on_drop(true);
        command.stdin(if program.stdin.is_some() { Stdio::piped() } else { Stdio::null() }).stderr(Stdio::piped());
        match &program.stdout_to {
            None => command.stdout(Stdio::piped()),
            Some(file) => command.stdout(self.fresh(file)?),
        };
        let child = command.spawn().map_err(|e| self.not_started(&path, &directory, &e))?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        Ok(Running { child, group })
    }

    /// Why a program did not start: the system gives one word for a missing program, its interpreter and the directory.
    fn not_started(&self, path: &Path, directory: &Path, e: &std::io::Error) -> Error {
        use std::io::ErrorKind as K;
        match e.kind() {
            K::NotFound | K::NotADirectory if !directory.is_dir() => Error::Final(format!(
                "cannot start {} in {}: there is no such directory; check `directory`",
                path.display(),
                directory.display()
            )),
            K::NotFound => Error::Final(format!("cannot start {}: the interpreter named in its first line is not there", path.display())),
            K::ExecutableFileBusy => Error::Passing(format!("cannot start {}: it is being written", path.display())),
            // ENOEXEC has no kind of its own.
            _ if e.raw_os_error() == Some(8) => {
                Error::Final(format!("cannot start {}: it is no program of this machine; a script begins with `#!/bin/sh`", path.display()))
            }
            _ => io_error("start", path, e),
        }
    }

    /// What stands before a program that runs as another user. `setpriv` or `sudo`, since changing the user between
    /// fork and exec would need a hook there.
    async fn as_user<'p>(&self, user: &str, path: &'p Path, env: &[(String, Secret)]) -> Result<Wrapped<'p>, Error> {
        let account = self.account(user).await?;
        let me = rustix::process::geteuid();
        if account.uid == me.as_raw().to_string() {
            return Ok(Wrapped { path: Cow::Borrowed(path), before: Vec::new(), env: Vec::new() });
        }
        let target = path.display().to_string();
        if me.is_root() {
            let before = ["--reuid", &account.uid, "--regid", &account.gid, "--init-groups", "--", &target].map(str::to_owned).into();
            let env = vec![("HOME", account.home), ("USER", account.name.clone()), ("LOGNAME", account.name)];
            return Ok(Wrapped { path: Cow::Owned(self.program("setpriv")?), before, env });
        }
        let mut before: Vec<String> = ["-n", "-u", &account.name].map(str::to_owned).into();
        if !env.is_empty() {
            // sudo drops what it is not told to keep; where its rules forbid that, it says so and nothing runs.
            let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
            before.push(format!("--preserve-env={}", names.join(",")));
        }
        before.extend(["--".to_owned(), target]);
        Ok(Wrapped { path: Cow::Owned(self.program("sudo")?), before, env: Vec::new() })
    }

    /// The account of a user. `getent` asks every source of users that the machine knows, not only /etc/passwd.
    async fn account(&self, user: &str) -> Result<Account, Error> {
        let unknown = || Error::Final(format!("this machine has no user `{user}`; check `user`"));
        if user.is_empty() || user.starts_with('-') {
            return Err(unknown());
        }
        let getent = self.program("getent")?;
        let said = Command::new(&getent).args(["passwd", user]).env_clear().stdin(Stdio::null()).kill_on_drop(true).output().await;
        let said = said.map_err(|e| io_error("start", &getent, &e))?;
        let line = String::from_utf8_lossy(&said.stdout);
        match *line.trim_end().split(':').collect::<Vec<_>>() {
            [name, _, uid, gid, _, home, _] => Ok(Account { name: name.into(), uid: uid.into(), gid: gid.into(), home: home.into() }),
            _ => Err(unknown()),
        }
    }

    /// A new, empty file in place of what was there. Errors: something other than a file is there.
    fn fresh(&self, file: &Path) -> Result<std::fs::File, Error> {
        let path = self.path(file);
        match self.symlink_metadata(&path)? {
            Some(there) if there.is_file() || there.is_symlink() => self.remove_file(&path)?,
            Some(_) => return Err(Error::Final(format!("{} is not a file; the output goes to a file of its own", path.display()))),
            None => {}
        }
        // `create_new` follows no link that somebody puts there in between.
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(|e| io_error("write", &path, &e))
    }

    /// Makes the output in a file durable, and notes its size and hash.
    async fn seal(&self, file: &Path) -> Result<(), Error> {
        let path = self.path(file);
        let captured = self.blocking(move |world| {
            let mut from = world.open(&path)?;
            from.sync_all().map_err(|e| io_error("write", &path, &e))?;
            let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0; 256 << 10]);
            loop {
                world.go_on()?;
                let n = from.read(&mut chunk).map_err(|e| io_error("read", &path, &e))?;
                if n == 0 {
                    break;
                }
                hash.update(&chunk[..n]);
                bytes += n as u64;
            }
            Ok(Captured { stream: "stdout_to".into(), bytes, sha256: hex::encode(hash.finalize()), cut: false, held_open: false })
        });
        self.note(captured.await?);
        Ok(())
    }

    /// Ends a program's process group: TERM, after the grace KILL. Errors: always; how it went.
    async fn end(&self, running: &mut Running, program: &Program) -> Error {
        let deadline = Instant::now() + self.attempt().grace;
        self.signal(running, program, Signal::TERM).await;
        // A process that is halted would see the TERM only when somebody lets it go on.
        self.signal(running, program, Signal::CONT).await;
        let _ = timeout_at(deadline, running.child.wait()).await;
        while running.is_there() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        if running.is_there() {
            self.signal(running, program, Signal::KILL).await;
        }
        match timeout(DRAIN, running.child.wait()).await {
            Ok(_) => Error::Stopped,
            Err(_) => {
                let id = running.child.id().unwrap_or_default();
                Error::Final(format!("`{}` (process {id}) was told to stop and goes on even after KILL; end it by hand", program.argv[0]))
            }
        }
    }

    /// Signals a program's process group. What `sudo` started belongs to others, so only `sudo` may signal it.
    async fn signal(&self, running: &Running, program: &Program, signal: Signal) {
        let Some(group) = running.group else { return };
        let (Err(rustix::io::Errno::PERM), Some(user)) = (kill_process_group(group, signal), &program.user) else { return };
        let Ok(sudo) = self.program("sudo") else { return };
        let kill = format!("kill -{} -{}", signal.as_raw(), group.as_raw_nonzero());
        let mut command = Command::new(sudo);
        command.args(["-n", "-u", user, "--", "/bin/sh", "-c", &kill]).stdin(Stdio::null()).kill_on_drop(true);
        let _ = timeout(DRAIN, command.output()).await;
    }

    /// Adds a line of the step's own to the attempt's error output: what a person will want to know.
    pub fn remark(&self, line: &str) -> Result<(), Error> {
        let mut kept = Kept::default();
        kept.take(format!("{}\n", self.attempt().redactor.text(line)).as_bytes());
        self.record("err", &kept)
    }

    /// Takes a stream to its end, or to a little after its program's end.
    async fn keep(&self, pipe: Option<impl AsyncRead + Unpin>, ended: watch::Receiver<bool>) -> Kept {
        let mut kept = Kept::default();
        let Some(mut pipe) = pipe else { return kept };
        let mut stream = Stream::new(&self.attempt().redactor);
        let mut chunk = vec![0; 8 << 10];
        let mut late = Late::default();
        let mut end = ended.clone();
        let drained = async {
            let _ = end.wait_for(|ended| *ended).await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::pin!(drained);
        loop {
            tokio::select! {
                biased;
                read = pipe.read(&mut chunk) => {
                    let Ok(n @ 1..) = read else { break };
                    kept.take(&stream.feed(&chunk[..n]));
                    // A grandchild that writes without pause would never let the other branch be looked at.
                    if *ended.borrow() && late.is_enough(n) {
                        kept.held_open = true;
                        break;
                    }
                    if n == chunk.len() && n < 64 << 10 {
                        chunk.resize(64 << 10, 0);
                    }
                }
                () = &mut drained => {
                    kept.held_open = true;
                    break;
                }
            }
        }
        kept.take(&stream.end());
        kept
    }

    /// Writes what was kept to the attempt's file and notes its size and hash. A stream without output leaves no trace.
    fn record(&self, name: &str, kept: &Kept) -> Result<(), Error> {
        if kept.bytes == 0 && !kept.held_open {
            return Ok(());
        }
        if let (Some(stem), 1..) = (&self.attempt().output, kept.bytes) {
            let file = PathBuf::from(format!("{}.{name}", stem.display()));
            let mut to = self.append(&file)?;
            kept.parts().iter().try_for_each(|part| to.write_all(part)).map_err(|e| io_error("write", &file, &e))?;
        }
        self.note(Captured {
            stream: name.to_owned(),
            bytes: kept.bytes,
            sha256: hex::encode(kept.hash.clone().finalize()),
            cut: kept.left_out() > 0,
            held_open: kept.held_open,
        });
        Ok(())
    }

    fn note(&self, captured: Captured) {
        if let Ok(mut all) = self.attempt().captured.lock() {
            all.push(captured);
        }
    }
}

/// Gives a program its input. That it does not read it to the end is no error of ours: its exit status tells.
async fn feed(pipe: Option<impl tokio::io::AsyncWrite + Unpin>, text: Option<&Secret>, mut ended: watch::Receiver<bool>) {
    let (Some(mut pipe), Some(text)) = (pipe, text) else { return };
    // A grandchild may hold the other end without ever reading it.
    tokio::select! {
        _ = pipe.write_all(text.expose().as_bytes()) => {}
        _ = ended.wait_for(|ended| *ended) => {}
    }
}

/// A program under way. Dropped before its end, it takes its process group along.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn is_there(&self) -> bool {
        self.group.is_some_and(|group| test_kill_process_group(group) != Err(rustix::io::Errno::SRCH))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Until it has been waited for, its number cannot belong to anyone else.
        if let (Some(_), Some(group)) = (self.child.id(), self.group) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The program that is started in truth, what comes before the arguments, and environment that goes with it.
struct Wrapped<'p> {
    path: Cow<'p, Path>,
    before: Vec<String>,
    env: Vec<(&'static str, String)>,
}

struct Account {
    name: String,
    uid: String,
    gid: String,
    home: String,
}

/// What came over a stream after its program's end.
#[derive(Default)]
struct Late {
    since: Option<Instant>,
    bytes: usize,
}

impl Late {
    /// Whether all that the program wrote itself must have come.
    fn is_enough(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.since.get_or_insert_with(Instant::now).elapsed() > DRAIN && self.bytes > PIPE
    }
}

/// Beginning and end of a stream, its size and its hash.
#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    /// Once it is full, a ring that begins at `oldest`.
    tail: Vec<u8>,
    oldest: usize,
    bytes: u64,
    hash: Sha256,
    held_open: bool,
}

impl Kept {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT - self.head.len()));
        self.head.extend_from_slice(head);
        let (grow, mut rest) = rest.split_at(rest.len().min(KEPT - self.tail.len()));
        self.tail.extend_from_slice(grow);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(KEPT - self.oldest));
            self.tail[self.oldest..self.oldest + now.len()].copy_from_slice(now);
            self.oldest = (self.oldest + now.len()) % KEPT;
            rest = later;
        }
    }
    fn left_out(&self) -> u64 {
        self.bytes - (self.head.len() + self.tail.len()) as u64
    }
    /// What goes to the file: as it came, with a line in place of the middle.
    fn parts(&self) -> [Cow<'_, [u8]>; 4] {
        let (new, old) = self.tail.split_at(self.oldest);
        let note = match self.left_out() {
            0 => String::new(),
            left_out => format!("\n… {left_out} bytes left out …\n"),
        };
        [Cow::Borrowed(&self.head), Cow::Owned(note.into_bytes()), Cow::Borrowed(old), Cow::Borrowed(new)]
    }
    fn into_text(self) -> String {
        let bytes = if self.tail.is_empty() { self.head } else { self.parts().concat() };
        String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }
}

/// The names of the signals 1 to 31.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
    "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;

    fn sh(script: &str) -> Program {
        program(&["sh", "-c", script])
    }
    fn program(argv: &[&str]) -> Program {
        Program { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..Program::default() }
    }
    fn sha256(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }
    /// Whether a process of this number, which stands in a file, is there and no zombie.
    fn lives(stage: &Stage, file: &str) -> bool {
        let id = String::from_utf8(stage.file(file).expect("the number of a process")).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    }

    #[tokio::test]
    async fn exit_codes_and_signals_are_told_apart() {
        let stage = Stage::new();
        for code in [0, 1, 75, 255] {
            let exit = stage.world.run(sh(&format!("exit {code}"))).await.unwrap();
            assert_eq!((exit.code, exit.signal, exit.how()), (Some(code), None, format!("exit status {code}")));
        }
        for (signal, how) in [(9, "signal 9 (KILL)"), (15, "signal 15 (TERM)"), (11, "signal 11 (SEGV)"), (34, "signal 34")] {
            let exit = stage.world.run(sh(&format!("kill -{signal} $$"))).await.unwrap();
            assert_eq!((exit.code, exit.signal, exit.how()), (None, Some(signal), how.to_owned()));
        }
    }

    #[tokio::test]
    async fn arguments_arrive_byte_for_byte() {
        let stage = Stage::new();
        let hostile = ["", " a  b ", "'\"`\\", "$(touch x) $HOME *", "two\nlines", "-n", "ä\u{1b}[31m", "{{ x }}"];
        let mut argv = vec!["printf", "%s\\0"];
        argv.extend(hostile);
        let exit = stage.world.run(program(&argv)).await.unwrap();
        assert_eq!(exit.stdout, hostile.iter().map(|word| format!("{word}\0")).collect::<String>());
        let nul = stage.world.run(program(&["echo", "a\0b"])).await.err();
        assert!(matches!(nul, Some(Error::Final(says)) if says.contains("nul byte")));
    }

    #[tokio::test]
    async fn the_environment_is_what_was_allowed_and_nothing_else() {
        let stage = Stage::new();
        let env = vec![("PGPASSWORD".to_owned(), Secret::new("x y")), ("LANG".to_owned(), Secret::new("C"))];
        let exit = stage.world.run(Program { env, ..program(&["env"]) }).await.unwrap();
        let stem = stage.world.attempt().output.as_ref().and_then(|stem| stem.file_name()).unwrap().to_string_lossy().into_owned();
        let attempt = format!("RUNSHEET_ATTEMPT={stem}");
        let mut lines: Vec<&str> = exit.stdout.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["LANG=C", "PATH=/usr/bin:/bin", "PGPASSWORD=x y", &attempt]);
    }

    #[tokio::test]
    async fn input_reaches_the_program_and_need_not_be_read() {
        let stage = Stage::new();
        let text = "é\n".repeat(1 << 20);
        let exit = stage.world.run(Program { stdin: Some(Secret::new(&text)), ..program(&["wc", "-c"]) }).await.unwrap();
        assert_eq!(exit.stdout.trim(), (3 << 20).to_string());
        assert_eq!(stage.world.run(Program { stdin: Some(Secret::new(&text)), ..sh("exit 3") }).await.unwrap().code, Some(3));
        assert_eq!(stage.world.run(program(&["cat"])).await.unwrap().stdout, "");
        // A grandchild keeps the input open and reads nothing.
        let unread = Program { stdin: Some(Secret::new(&text)), ..sh("exec 3<&0; sleep 60 <&3 >/dev/null 2>&1 & echo $! > id") };
        assert_eq!(timeout(Duration::from_secs(10), stage.world.run(unread)).await.unwrap().unwrap().code, Some(0));
        stage.world.run(sh("kill $(cat id)")).await.unwrap();
    }

    #[tokio::test]
    async fn the_record_holds_the_bytes_as_they_came() {
        let stage = Stage::new();
        let exit = stage.world.run(sh("printf 'a\\377\\000b'; printf 'oh\\n' >&2")).await.unwrap();
        assert_eq!((exit.stdout.as_str(), exit.stderr.as_str()), ("a\u{fffd}\0b", "oh\n"));
        assert_eq!((stage.file("record.out").unwrap(), stage.file("record.err").unwrap()), (b"a\xff\0b".to_vec(), b"oh\n".to_vec()));
        let captured = |stream: &str, bytes: &[u8]| Captured {
            stream: stream.into(),
            bytes: bytes.len() as u64,
            sha256: sha256(bytes),
            cut: false,
            held_open: false,
        };
        assert_eq!(stage.captured(), [captured("out", b"a\xff\0b"), captured("err", b"oh\n")]);
    }

    #[tokio::test]
    async fn a_silent_program_leaves_no_trace() {
        let stage = Stage::new();
        stage.world.run(program(&["true"])).await.unwrap();
        stage.world.run(Program { unrecorded: true, ..program(&["echo", "x"]) }).await.unwrap();
        assert_eq!((stage.file("record.out"), stage.captured()), (None, vec![]));
    }

    #[tokio::test]
    async fn a_torrent_is_hashed_whole_and_kept_in_part() {
        let stage = Stage::new();
        let highest = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = highest();
        let exit = stage.world.run(sh("head -c 150000000 /dev/zero; head -c 150000000 /dev/zero | tr '\\0' x; printf end")).await.unwrap();
        assert!(highest() - before < 128 << 10, "{} KiB more", highest() - before);
        assert!(exit.stdout.starts_with("\0\0") && exit.stdout.ends_with("xxend") && exit.stdout.contains("bytes left out"));
        assert_eq!(exit.left_out, 300_000_003 - 2 * KEPT as u64);
        let mut hash = Sha256::new();
        hash.update(vec![0; 150_000_000]);
        hash.update(vec![b'x'; 150_000_000]);
        hash.update("end");
        let captured = stage.captured().remove(0);
        assert_eq!((captured.bytes, captured.sha256, captured.cut), (300_000_003, hex::encode(hash.finalize()), true));
    }

    #[test]
    fn the_end_of_a_stream_is_kept_whatever_its_pieces() {
        let whole: Vec<u8> = (0..5 * KEPT + 12345).map(|i| (i * 7 + i / 251) as u8).collect();
        for piece in [4099, KEPT - 1, KEPT, 3 * KEPT + 1, whole.len()] {
            let mut kept = Kept::default();
            whole.chunks(piece).for_each(|piece| kept.take(piece));
            let [head, _, old, new] = kept.parts();
            assert!(*head == whole[..KEPT] && [old, new].concat() == whole[whole.len() - KEPT..], "pieces of {piece}");
            assert_eq!(kept.left_out(), whole.len() as u64 - 2 * KEPT as u64);
        }
    }

    #[tokio::test]
    async fn a_secret_split_over_writes_is_taken_out() {
        let stage = Stage::with(&["hunter2hunter"], vec![]);
        let exit =
            stage.world.run(sh("printf hunter; sleep 0.1; printf '2hun'; sleep 0.1; printf 'ter.'; echo hunter2hunter >&2")).await.unwrap();
        assert_eq!((exit.stdout.as_str(), exit.stderr.as_str()), ("‹secret›.", "‹secret›\n"));
        assert_eq!(stage.file("record.out").unwrap(), "‹secret›.".as_bytes());
        stage.world.remark("the last was hunter2hunter").unwrap();
        assert!(String::from_utf8(stage.file("record.err").unwrap()).unwrap().ends_with("the last was ‹secret›\n"));
    }

    #[tokio::test]
    async fn a_grandchild_that_holds_the_pipe_holds_nobody_up() {
        let stage = Stage::new();
        let began = Instant::now();
        let exit = stage.world.run(sh("echo hello; sleep 60 & echo $! > id")).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(4) && exit.duration < Duration::from_secs(1));
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(0), "hello\n"));
        assert!(stage.captured().iter().all(|captured| captured.held_open) && lives(&stage, "id"));
        stage.world.run(sh("kill $(cat id)")).await.unwrap();
    }

    #[tokio::test]
    async fn a_grandchild_that_writes_without_pause_holds_nobody_up() {
        let stage = Stage::new();
        let exit = timeout(Duration::from_secs(10), stage.world.run(sh("yes 2>/dev/null & echo $! > id"))).await.unwrap().unwrap();
        assert_eq!(exit.code, Some(0));
        assert!(stage.captured()[0].held_open);
    }

    async fn stopped_after(stage: &Stage, program: Program, ready: &str) -> (Option<Error>, Duration) {
        let stop = async {
            while stage.file(ready).is_none_or(|id| id.is_empty()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stage.stop.send(true).unwrap();
            Instant::now()
        };
        let (exit, told) = tokio::join!(stage.world.run(program), stop);
        (exit.err(), told.elapsed())
    }

    #[tokio::test]
    async fn told_to_stop_a_program_may_end_in_order() {
        let stage = Stage::new();
        let script = "trap 'echo bye; exit 0' TERM; echo $$ > id; while :; do sleep 0.05; done";
        let (error, took) = stopped_after(&stage, sh(script), "id").await;
        assert_eq!(error, Some(Error::Stopped));
        assert!(took < Duration::from_millis(950), "{took:?}");
        assert_eq!(stage.file("record.out").unwrap(), b"bye\n");
        assert_eq!(stage.world.run(program(&["true"])).await.err(), Some(Error::Stopped));
    }

    #[tokio::test]
    async fn a_program_deaf_to_term_is_killed_with_its_children() {
        let stage = Stage::new();
        let script = "trap '' TERM; sh -c 'echo $$ > inner; while :; do sleep 0.05; done' & echo $$ > id; while :; do sleep 0.05; done";
        let (error, took) = stopped_after(&stage, sh(script), "inner").await;
        assert_eq!(error, Some(Error::Stopped));
        assert!(took >= Duration::from_millis(990) && took < Duration::from_secs(5), "{took:?}");
        assert!(!lives(&stage, "id") && !lives(&stage, "inner"));
    }

    #[tokio::test]
    async fn a_deaf_child_of_a_program_that_ended_is_killed_too() {
        let stage = Stage::new();
        let (error, _) = stopped_after(&stage, sh("sh -c 'trap \"\" TERM; echo $$ > inner; sleep 60; sleep 60' & sleep 60"), "inner").await;
        assert_eq!(error, Some(Error::Stopped));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!lives(&stage, "inner"));
    }

    #[tokio::test]
    async fn a_halted_program_hears_the_term() {
        let stage = Stage::new();
        let (error, took) = stopped_after(&stage, sh("echo $$ > id; kill -STOP $$; sleep 60"), "id").await;
        assert_eq!(error, Some(Error::Stopped));
        assert!(took < Duration::from_millis(950) && !lives(&stage, "id"), "{took:?}");
    }

    #[tokio::test]
    async fn a_run_that_is_dropped_takes_its_group_along() {
        let stage = Stage::new();
        let running = stage.world.run(sh("sleep 60 & echo $! > id; wait"));
        assert!(timeout(Duration::from_millis(500), running).await.is_err());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!lives(&stage, "id"));
    }

    #[tokio::test]
    async fn output_to_a_file_is_whole_and_hashed() {
        let stage = Stage::with(&["geheim"], vec![]);
        let to = |file: &str| Some(PathBuf::from(file));
        stage.world.run(Program { stdout_to: to("old.txt"), ..sh("printf geheim; head -c 3000000 /dev/zero") }).await.unwrap();
        let whole = [b"geheim".to_vec(), vec![0; 3_000_000]].concat();
        assert!(stage.file("old.txt").unwrap() == whole);
        let captured = stage.captured().remove(0);
        assert_eq!((captured.stream.as_str(), captured.bytes, captured.sha256), ("stdout_to", 3_000_006, sha256(&whole)));
        let device = stage.world.run(Program { stdout_to: to("/dev/null"), ..program(&["true"]) }).await.err();
        assert!(matches!(device, Some(Error::Final(says)) if says.contains("/dev/null is not a file")));
    }

    #[tokio::test]
    async fn what_does_not_start_says_why() {
        use std::os::unix::fs::PermissionsExt;
        let stage = Stage::new();
        for (name, text) in [("no_interpreter", "#!/no/such\n"), ("no_program", "echo\n")] {
            let file = stage.directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let nowhere = Program { directory: Some("nowhere".into()), ..program(&["true"]) };
        let cases = [
            (program(&["no-such-program"]), "not in PATH"),
            (program(&["pgbackrest-not-here/x"]), "is not a program"),
            (program(&["./no_interpreter"]), "the interpreter named in its first line"),
            (program(&["./no_program"]), "begins with `#!/bin/sh`"),
            (nowhere, "no such directory; check `directory`"),
            (Program { user: Some("no-such-user".into()), ..program(&["true"]) }, "no user `no-such-user`"),
            (Program { user: Some("-x".into()), ..program(&["true"]) }, "no user `-x`"),
            (program(&["echo", &"x".repeat(1 << 20)]), "argument list too long"),
        ];
        for (program, why) in cases {
            let error = stage.world.run(program).await.err();
            assert!(matches!(&error, Some(Error::Final(says)) if says.contains(why)), "{why}: {error:?}");
        }
    }

    #[tokio::test]
    async fn another_user_is_that_user_in_every_way() {
        let stage = Stage::new();
        let script = "id -un; id -gn; id -Gn; echo $HOME $USER $X; kill -9 $$";
        let env = vec![("X".to_owned(), Secret::new("kept"))];
        let mine = Program { user: Some(rustix::process::geteuid().as_raw().to_string()), env: env.clone(), ..sh("echo $X") };
        assert_eq!(stage.world.run(mine).await.unwrap().stdout, "kept\n");
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: only root may become another user without rules of sudo");
            return;
        }
        let other = Program { user: Some("nobody".into()), env, directory: Some("/".into()), ..sh(script) };
        let exit = stage.world.run(other).await.unwrap();
        assert_eq!((exit.stdout.as_str(), exit.signal), ("nobody\nnogroup\nnogroup\n/nonexistent nobody kept\n", Some(9)));
    }
}
