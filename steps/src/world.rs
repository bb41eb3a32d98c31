//! The only doors to the machine. A `View` can look; a `World` can also change things and start programs.
//! Every failure is turned here into `Passing` or `Final`, with a sentence.

#![expect(clippy::disallowed_methods, reason = "this is the door to files and the clock")]

use std::{
    fs::{self, File, Metadata},
    io,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::watch;

use crate::{
    process::Captured,
    redact::Redactor,
    step::{Answer, Error},
};

/// Evaluates an expression to a bool, with `out` bound to the value given.
pub type Evaluate = dyn Fn(&str, &Value) -> Result<bool, String> + Send + Sync;
/// Is told how far a step is: done, total (0 when unknown), unit.
pub type Progress = dyn Fn(u64, u64, &'static str) + Send + Sync;

/// What a step sees of its surroundings.
pub struct Surroundings {
    /// What relative paths start from.
    pub directory: PathBuf,
    /// Where programs are looked for; every entry has been checked by [`search_path`].
    pub search: Vec<PathBuf>,
    /// The environment that a program gets, before its own settings.
    pub environment: Vec<(String, String)>,
}

/// What a step may look at.
#[derive(Clone)]
pub struct View(Arc<Surroundings>);

impl View {
    /// A view of these surroundings.
    pub fn new(surroundings: Surroundings) -> Self {
        Self(Arc::new(surroundings))
    }
    /// An absolute path: a relative one starts from the playbook's directory.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.directory.join(path)
    }
    /// The environment that a program gets, before its own settings.
    pub fn environment(&self) -> &[(String, String)] {
        &self.0.environment
    }
    /// The place of a program. Errors: it is not there, with the package that brings it.
    pub fn program(&self, name: &str) -> Result<PathBuf, Error> {
        find_program(name, &self.0.search, &self.0.directory).map_err(Error::Final)
    }
    /// What is at a path, links followed; nothing when nothing is there.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, Error> {
        absent_is_none(fs::metadata(self.path(&path))).map_err(|e| io_error("look at", &self.path(path), &e))
    }
    /// What is at a path, a link as itself; nothing when nothing is there.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, Error> {
        absent_is_none(fs::symlink_metadata(self.path(&path))).map_err(|e| io_error("look at", &self.path(path), &e))
    }
    /// Opens a file for reading.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<File, Error> {
        File::open(self.path(&path)).map_err(|e| io_error("read", &self.path(path), &e))
    }
    /// A whole text file; nothing when there is none.
    pub fn text(&self, path: impl AsRef<Path>) -> Result<Option<String>, Error> {
        absent_is_none(fs::read_to_string(self.path(&path))).map_err(|e| io_error("read", &self.path(path), &e))
    }
    /// The entries of a directory, sorted by name.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
        let directory = self.path(path);
        let wrong = |e: &io::Error| io_error("list", &directory, e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&directory).map_err(|e| wrong(&e))? {
            entries.push(entry.map_err(|e| wrong(&e))?.path());
        }
        entries.sort();
        Ok(entries)
    }
    /// Bytes free for this user, and bytes in all, of the file system that holds a path or its nearest parent that exists.
    pub fn space(&self, path: impl AsRef<Path>) -> Result<(u64, u64), Error> {
        let path = self.path(path);
        let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
        let stat = rustix::fs::statvfs(there).map_err(|e| io_error("measure the space of", there, &e.into()))?;
        Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
    }
    /// The time of day.
    pub fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
    /// The monotonic clock, for durations.
    pub fn clock(&self) -> Instant {
        Instant::now()
    }
    /// Whether this user is root.
    pub fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }
    /// The absolute path with every link on the way followed; nothing when nothing is there.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>, Error> {
        absent_is_none(fs::canonicalize(self.path(&path))).map_err(|e| io_error("look at", &self.path(path), &e))
    }
    /// What a link says.
    pub fn link(&self, path: impl AsRef<Path>) -> Result<PathBuf, Error> {
        fs::read_link(self.path(&path)).map_err(|e| io_error("read the link", &self.path(path), &e))
    }
    /// Opens a file for reading. Errors: it is a link, or no plain file, also when it was put there a moment ago.
    pub fn open_plain(&self, path: impl AsRef<Path>) -> Result<File, Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(path);
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
        let file = fs::OpenOptions::new().read(true).custom_flags(flags as i32).open(&path).map_err(|e| io_error("read", &path, &e))?;
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(file),
            Ok(_) => Err(Error::Final(format!("{} is no plain file", path.display()))),
            Err(e) => Err(io_error("look at", &path, &e)),
        }
    }
    /// How long ago a file was changed; nothing for one from the future.
    pub fn age(&self, metadata: &Metadata) -> Option<Duration> {
        metadata.modified().ok()?.elapsed().ok()
    }
    /// Whether `host:port` accepts a connection within `limit`; else why not. Every address of the host is tried.
    pub async fn knock(&self, address: &str, limit: Duration) -> Result<(), String> {
        match tokio::time::timeout(limit, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(plain(&e)),
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }
    /// Runs blocking work beside the event loop.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let view = self.clone();
        join(tokio::task::spawn_blocking(move || work(&view)).await)
    }
}

/// One attempt of one step, as the doors know it.
pub struct Attempt {
    /// Where the attempt's output is kept: `<stem>.out`, `<stem>.err`; nowhere when none.
    pub output: Option<PathBuf>,
    /// Takes secrets out of all output.
    pub redactor: Arc<Redactor>,
    /// Is told how far the step is.
    pub progress: Box<Progress>,
    /// What people answered to the step's question.
    pub answers: Vec<Answer>,
    /// True once the step has to stop.
    pub stop: watch::Receiver<bool>,
    /// How long a program may take to end after TERM.
    pub grace: Duration,
    /// What programs have put out.
    pub captured: Mutex<Vec<Captured>>,
    /// Evaluates an expression of a setting.
    pub evaluate: Box<Evaluate>,
}

/// What a step may look at and change.
#[derive(Clone)]
pub struct World {
    view: View,
    attempt: Arc<Attempt>,
}

impl Deref for World {
    type Target = View;
    fn deref(&self) -> &View {
        &self.view
    }
}

impl World {
    /// The world of one attempt.
    pub fn new(view: View, attempt: Arc<Attempt>) -> Self {
        Self { view, attempt }
    }
    /// The attempt that this world is for.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }
    /// Says how far the step is. `total` is 0 when it is not known.
    pub fn progress(&self, done: u64, total: u64, unit: &'static str) {
        (self.attempt.progress)(done, total, unit);
    }
    /// Whether an expression holds, with `out` bound to `value`. Errors: it gives no bool, or compares unlike types.
    pub fn holds(&self, expression: &str, out: &Value) -> Result<bool, Error> {
        (self.attempt.evaluate)(expression, out).map_err(Error::Final)
    }
    /// Ends blocking work that has been told to stop.
    pub fn go_on(&self) -> Result<(), Error> {
        if *self.attempt.stop.borrow() { Err(Error::Stopped) } else { Ok(()) }
    }
    /// Waits, unless told to stop.
    pub async fn sleep(&self, time: Duration) -> Result<(), Error> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.stopped() => Err(Error::Stopped),
        }
    }
    /// Ends once the step has to stop.
    pub async fn stopped(&self) {
        let mut stop = self.attempt.stop.clone();
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    /// Runs blocking work beside the event loop. The work asks `go_on` between its pieces.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let world = self.clone();
        join(tokio::task::spawn_blocking(move || work(&world)).await)
    }
    /// A new file beside `path` that [`World::put`] moves into its place, so that a reader sees the old or the new one whole.
    pub fn beside(&self, path: impl AsRef<Path>) -> Result<tempfile::NamedTempFile, Error> {
        let path = self.path(path);
        let directory = path.parent().unwrap_or(Path::new("/"));
        tempfile::Builder::new().prefix(".runsheet-").tempfile_in(directory).map_err(|e| io_error("create a file in", directory, &e))
    }
    /// Syncs a file made by [`World::beside`], moves it to `path` and syncs the directory.
    pub fn put(&self, file: tempfile::NamedTempFile, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = self.path(path);
        file.as_file().sync_all().map_err(|e| io_error("write", &path, &e))?;
        file.persist(&path).map_err(|e| io_error("write", &path, &e.error))?;
        self.sync_directory(&path)
    }
    /// Renames, on one file system, and syncs both directories.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
        let (from, to) = (self.path(from), self.path(to));
        fs::rename(&from, &to).map_err(|e| io_error("move", &from, &e))?;
        self.sync_directory(&from)?;
        self.sync_directory(&to)
    }
    /// Makes a directory and its parents, mode 0700 where new.
    pub fn make_directory(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.path(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|e| io_error("make the directory", &path, &e))
    }
    /// Removes a file or a link; that it is not there is no error.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = self.path(path);
        absent_is_none(fs::remove_file(&path)).map_err(|e| io_error("remove", &path, &e))?;
        if path.parent().is_some_and(Path::exists) { self.sync_directory(&path) } else { Ok(()) }
    }
    /// Removes an empty directory; that it is not there is no error.
    pub fn remove_directory(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = self.path(path);
        absent_is_none(fs::remove_dir(&path)).map_err(|e| io_error("remove", &path, &e))?;
        Ok(())
    }
    /// Sets the permission bits of a file.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(|e| io_error("set the mode of", &path, &e))
    }
    /// Opens a file for writing at its end; made, mode 0600, when absent.
    pub fn append(&self, path: impl AsRef<Path>) -> Result<File, Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(path);
        fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(|e| io_error("write", &path, &e))
    }
    /// Makes a file, mode 0600, for writing and reading. Errors: something is there, be it a link.
    pub fn create_new(&self, path: impl AsRef<Path>) -> Result<File, Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(path);
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(|e| io_error("create", &path, &e))
    }
    /// Makes a link that says `target`.
    pub fn make_link(&self, target: &Path, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = self.path(path);
        std::os::unix::fs::symlink(target, &path).map_err(|e| io_error("make the link", &path, &e))
    }
    /// Renames, on one file system, and syncs both directories. Errors: something is at `to`.
    pub fn rename_new(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
        use rustix::{fs as rfs, io::Errno};
        let (from, to) = (self.path(from), self.path(to));
        match rfs::renameat_with(rfs::CWD, &from, rfs::CWD, &to, rfs::RenameFlags::NOREPLACE) {
            // Network file systems do not know the flag.
            Err(Errno::INVAL | Errno::NOSYS) if self.symlink_metadata(&to)?.is_none() => return self.rename(from, to),
            Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::EXIST),
            other => other,
        }
        .map_err(|e| io_error(&format!("move {} to", from.display()), &to, &e.into()))?;
        self.sync_directory(&from)?;
        self.sync_directory(&to)
    }
    /// Removes a directory and all that is in it, following no link, also none that is put there meanwhile; that it is not
    /// there is no error.
    pub fn remove_tree(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = self.path(path);
        absent_is_none(fs::remove_dir_all(&path)).map_err(|e| io_error("remove", &path, &e))?;
        if path.parent().is_some_and(Path::exists) { self.sync_directory(&path) } else { Ok(()) }
    }
    /// Sets owner and group, of a link itself.
    pub fn set_owner(&self, path: impl AsRef<Path>, user: u32, group: u32) -> Result<(), Error> {
        let path = self.path(path);
        std::os::unix::fs::lchown(&path, Some(user), Some(group)).map_err(|e| io_error("set the owner of", &path, &e))
    }
    /// Sets the time of the last change of content, of a link itself.
    pub fn set_modified(&self, path: impl AsRef<Path>, seconds: i64, nanoseconds: i64) -> Result<(), Error> {
        use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
        let path = self.path(path);
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access, last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds } };
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| io_error("set the time of", &path, &e.into()))
    }
    /// Asks the system to forget what it holds of a part of a synced file, so that the next read comes from the device.
    pub fn forget_cached(&self, file: &File, offset: u64, length: u64) {
        // It is advice: a file system in memory has nothing else to read from.
        let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(length), rustix::fs::Advice::DontNeed);
    }
    /// Makes the entry of `path` in its directory durable.
    pub fn sync_directory(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = self.path(path);
        let directory = path.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|d| d.sync_all()).map_err(|e| io_error("sync", directory, &e))
    }
}

/// The sentence of a failed call, and whether it may pass: interrupted, busy, timed out or full may; the rest does not.
pub fn io_error(doing: &str, path: &Path, e: &io::Error) -> Error {
    use io::ErrorKind as K;
    let hint = match e.kind() {
        K::NotFound => "; check the path",
        K::PermissionDenied => "; check the owner and mode, or run as another user",
        K::StorageFull | K::QuotaExceeded => "; make room and try again",
        K::CrossesDevices => "; it is on another mount: copy it, then remove it",
        K::ReadOnlyFilesystem => "; the file system is mounted read-only",
        _ => "",
    };
    let says = format!("cannot {doing} {}: {}{hint}", path.display(), plain(e));
    match e.kind() {
        K::Interrupted | K::WouldBlock | K::TimedOut | K::ResourceBusy | K::StorageFull | K::QuotaExceeded => Error::Passing(says),
        _ => Error::Final(says),
    }
}

/// An error's text without Rust's «(os error 2)».
fn plain(e: &io::Error) -> String {
    let text = e.to_string();
    let cut = text.find(" (os error").unwrap_or(text.len());
    text[..cut].to_lowercase()
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn join<T>(joined: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    joined.unwrap_or_else(|e| Err(Error::Final(format!("BUG: the step's work broke off: {e}"))))
}

/// The entries of a `PATH` in which programs may be looked for. Errors: an entry is relative, empty, or writable by others.
pub fn search_path(path: &str) -> Result<Vec<PathBuf>, String> {
    use std::os::unix::fs::MetadataExt;
    let mut search = Vec::new();
    for entry in path.split(':') {
        let entry = PathBuf::from(entry);
        if !entry.is_absolute() {
            return Err(format!(
                "PATH has the relative entry `{}`: a program found there depends on where you stand; take it out",
                entry.display()
            ));
        }
        match fs::metadata(&entry) {
            Ok(m) if m.is_dir() && m.mode() & 0o002 != 0 && m.mode() & 0o1000 == 0 => {
                return Err(format!(
                    "PATH has the entry `{}`, which everybody may write to: take it out, or `chmod o-w` it",
                    entry.display()
                ));
            }
            Ok(m) if m.is_dir() => search.push(entry),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(search)
}

/// The absolute place of a program. Errors: it is not there, with the package that brings it.
pub fn find_program(name: &str, search: &[PathBuf], directory: &Path) -> Result<PathBuf, String> {
    static FOUND: OnceLock<Mutex<std::collections::HashMap<String, PathBuf>>> = OnceLock::new();
    let found = FOUND.get_or_init(Mutex::default);
    if let Some(path) = found.lock().ok().and_then(|found| found.get(name).cloned()) {
        return Ok(path);
    }
    if name.contains('/') {
        let path = directory.join(name);
        return match which::which_in_global(&path, Some("/")).ok().and_then(|mut all| all.next()) {
            Some(path) => Ok(path),
            None => Err(format!("{} is not a program that this user may start; check the path and its mode", path.display())),
        };
    }
    let joined = std::env::join_paths(search).map_err(|e| e.to_string())?;
    match which::which_in(name, Some(joined), directory) {
        Ok(path) => {
            if let Ok(mut found) = found.lock() {
                found.insert(name.to_owned(), path.clone());
            }
            Ok(path)
        }
        Err(_) => Err(match crate::package_of(name) {
            Some(package) => format!("the program `{name}` is not installed; `apt-get install {package}` brings it"),
            None => format!("the program `{name}` is not in PATH; install it, or give its full path"),
        }),
    }
}
