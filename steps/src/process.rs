//! Programs: how a step starts one, takes its output and ends it. The output goes to the attempt's files, redacted and
//! capped, and its beginning and end come back as text. Unaware of what the program is for.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::{Instant, timeout},
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

/// A program to start.
pub struct Program {
    /// The program and its arguments; no shell in between.
    pub argv: Vec<String>,
    /// Environment beyond the allow-listed one.
    pub env: Vec<(String, Secret)>,
    /// What it reads; nothing: an empty input.
    pub stdin: Option<Secret>,
    /// Where it starts; nothing: the playbook's directory.
    pub directory: Option<PathBuf>,
    /// A file that takes its whole output, unredacted; nothing: the attempt's record.
    pub stdout_to: Option<PathBuf>,
    /// The user it runs as; nothing: the runner's.
    pub user: Option<String>,
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
    /// From start to end.
    pub duration: Duration,
}

/// What is recorded of one stream of one program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// `out` or `err`.
    pub stream: String,
    /// Bytes that came, after redaction.
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
        let began = Instant::now();
        let mut child = self.spawn(&program)?;
        let stdin = child.stdin.take();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let feed = async {
            if let (Some(mut pipe), Some(text)) = (stdin, &program.stdin) {
                // A program that does not read its input to the end is no error of ours: its exit status tells.
                let _ = pipe.write_all(text.expose().as_bytes()).await;
            }
        };
        let (ended, open) = tokio::sync::watch::channel(false);
        let work = async {
            let status = tokio::select! {
                status = child.wait() => Ok(status),
                () = self.stopped() => Err(self.end(&mut child).await),
            };
            let _ = ended.send(true);
            status
        };
        let (status, (), stdout, stderr) =
            tokio::join!(work, feed, self.keep("out", out, open.clone()), self.keep("err", err, open));
        let status = match status {
            Ok(status) => status.map_err(|e| Error::Final(format!("cannot learn how `{}` ended: {e}", program.argv[0])))?,
            Err(stopped) => return Err(stopped),
        };
        use std::os::unix::process::ExitStatusExt;
        Ok(Exit { code: status.code(), signal: status.signal(), stdout: stdout?, stderr: stderr?, duration: began.elapsed() })
    }

    fn spawn(&self, program: &Program) -> Result<Child, Error> {
        let argv = as_user(program)?;
        let [name, arguments @ ..] = argv.as_slice() else { return Err(Error::Final("`argv` is empty; it begins with the program".into())) };
        let path = self.program(name)?;
        let mut command = Command::new(&path);
        command.args(arguments).env_clear().process_group(0).kill_on_drop(true);
        command.envs(self.environment().iter().map(|(name, value)| (name, value)));
        command.envs(program.env.iter().map(|(name, value)| (name, value.expose())));
        command.current_dir(self.path(program.directory.as_deref().unwrap_or(Path::new("."))));
        command.stdin(if program.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stderr(Stdio::piped());
        match &program.stdout_to {
            None => command.stdout(Stdio::piped()),
            Some(file) => {
                self.remove_file(file)?;
                command.stdout(self.append(file)?)
            }
        };
        command.spawn().map_err(|e| io_error("start", &path, &e))
    }

    /// Ends a program's process group: TERM, after the grace KILL.
    async fn end(&self, child: &mut Child) -> Error {
        let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
        let signal = |signal| group.map(|group| rustix::process::kill_process_group(group, signal));
        let _ = signal(rustix::process::Signal::TERM);
        if timeout(self.attempt().grace, child.wait()).await.is_err() {
            let _ = signal(rustix::process::Signal::KILL);
            let _ = child.wait().await;
        }
        Error::Stopped
    }

    /// Takes a stream to its end, or to a little after its program's end, and keeps it as the record wants it.
    async fn keep(&self, name: &str, pipe: Option<impl AsyncRead + Unpin>, mut ended: tokio::sync::watch::Receiver<bool>) -> Result<String, Error> {
        let Some(mut pipe) = pipe else { return Ok(String::new()) };
        let mut stream = Stream::new(&self.attempt().redactor);
        let mut kept = Kept::default();
        let mut chunk = vec![0; 8 << 10];
        let drained = async {
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::pin!(drained);
        loop {
            tokio::select! {
                biased;
                read = pipe.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(n) => {
                        kept.take(&stream.feed(&chunk[..n]));
                        if n == chunk.len() && n < 64 << 10 { chunk.resize(64 << 10, 0); }
                    }
                },
                () = &mut drained => { kept.held_open = true; break }
            }
        }
        kept.take(&stream.end());
        if kept.bytes > 0 || kept.held_open {
            self.record(name, &kept)?;
        }
        Ok(kept.text())
    }

    /// Writes what was kept to the attempt's file and notes its size and hash.
    fn record(&self, name: &str, kept: &Kept) -> Result<(), Error> {
        if let Some(stem) = &self.attempt().output {
            let file = PathBuf::from(format!("{}.{name}", stem.display()));
            std::io::Write::write_all(&mut self.append(&file)?, kept.text().as_bytes()).map_err(|e| io_error("write", &file, &e))?;
        }
        let captured = Captured {
            stream: name.to_owned(),
            bytes: kept.bytes,
            sha256: hex::encode(kept.hash.clone().finalize()),
            cut: kept.bytes > (kept.head.len() + kept.tail.len()) as u64,
            held_open: kept.held_open,
        };
        if let Ok(mut all) = self.attempt().captured.lock() {
            all.push(captured);
        }
        Ok(())
    }
}

/// The argument list, behind `setpriv` or `sudo` when the program runs as another user.
fn as_user(program: &Program) -> Result<Vec<String>, Error> {
    let Some(user) = &program.user else { return Ok(program.argv.clone()) };
    if user.is_empty() || user.starts_with('-') {
        return Err(Error::Final(format!("`{user}` is not the name of a user")));
    }
    let before: &[&str] = if rustix::process::geteuid().is_root() {
        &["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"]
    } else {
        &["sudo", "-n", "-u", user, "--"]
    };
    Ok(before.iter().map(|word| (*word).to_owned()).chain(program.argv.iter().cloned()).collect())
}

/// Beginning and end of a stream, its size and its hash.
#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
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
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..over);
    }
    fn text(&self) -> String {
        let left_out = self.bytes - (self.head.len() + self.tail.len()) as u64;
        let (a, b) = self.tail.as_slices();
        if left_out == 0 {
            return String::from_utf8_lossy(&[&self.head, a, b].concat()).into_owned();
        }
        let tail = [a, b].concat();
        format!("{}\n… {left_out} bytes left out …\n{}", String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail))
    }
}
