//! How SQLite databases are opened: reading leaves no trace beside them, and a hostile file does no harm.
//! Unaware of what a step does with them.

use std::{
    io::Read,
    ops::Deref,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    config::DbConfig,
    ffi,
    hooks::{AuthContext, Authorization},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    step::Error,
    world::{View, World, io_error},
};

/// How long SQLite waits for another program's lock.
const PATIENCE: Duration = Duration::from_secs(5);
/// Instructions of SQLite's machine between two questions whether to stop.
const STRIDE: i32 = 10_000;
/// Neither locks nor looks for other files: only for a database that nobody has open.
const IMMUTABLE: &str = "?immutable=1";

/// What lies beside a database while it is in use.
pub(crate) const WAL: &str = "-wal";
pub(crate) const SHM: &str = "-shm";
pub(crate) const JOURNAL: &str = "-journal";

/// What a first look at a path gives, without a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Glance {
    /// Nothing is there.
    Missing,
    /// A file of zero bytes.
    Empty,
    /// Something else than a SQLite database, and what.
    Other(String),
    /// A SQLite database, and the bytes of its main file.
    Database(u64),
}

impl Glance {
    /// Half a sentence for a rehearsal.
    pub(crate) fn says(&self) -> String {
        match self {
            Self::Missing => "which is not there now".into(),
            Self::Empty => "which is an empty file now".into(),
            Self::Other(what) => format!("which is {what} now"),
            Self::Database(bytes) => format!("{} now", crate::setting::Size(*bytes)),
        }
    }
}

/// A database opened for reading only.
pub(crate) struct Reader {
    connection: Connection,
    path: PathBuf,
    /// What the file was when nobody had it open. SQLite then reads it without locks, and without files of its own beside it.
    still: Option<Stamp>,
}

impl Deref for Reader {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Reader {
    /// Ends the reading. Errors: someone wrote meanwhile to a database that was read without locks.
    pub(crate) fn settle<T>(self, view: &View, result: Result<T, Error>) -> Result<T, Error> {
        if matches!(result, Err(Error::Stopped)) || !self.disturbed(view)? {
            return result;
        }
        let path = self.path.display();
        Err(Error::Passing(format!("{path} was written to while it was read, so what was read does not count; try again")))
    }
    /// Whether someone wrote to a database that was read without locks: what was read does not count.
    pub(crate) fn disturbed(&self, view: &View) -> Result<bool, Error> {
        match &self.still {
            Some(stamp) => Ok(Stamp::take(view, &self.path)?.as_ref() != Some(stamp)),
            None => Ok(false),
        }
    }
    /// Lets only through what the guard allows, from here on.
    pub(crate) fn guard(&mut self, guard: impl FnMut(AuthContext<'_>) -> Authorization + Send + 'static) -> Result<(), Error> {
        self.connection.authorizer(Some(guard)).map_err(|e| sqlite_error("open", &self.path, &e))
    }
    /// Whether it is in WAL mode and nobody has it open, which its connection cannot tell.
    pub(crate) fn wal_at_rest(&self) -> bool {
        self.still.is_some()
    }
    /// The sentence of a failed call on this database.
    pub(crate) fn wrong(&self, doing: &str) -> impl Fn(rusqlite::Error) -> Error {
        let (doing, path) = (doing.to_owned(), self.path.clone());
        move |e| sqlite_error(&doing, &path, &e)
    }
}

#[derive(PartialEq)]
struct Stamp {
    file: (u64, u64, u64, i64, i64),
    wal: bool,
}

impl Stamp {
    fn take(view: &View, path: &Path) -> Result<Option<Self>, Error> {
        let Some(m) = view.metadata(path)? else { return Ok(None) };
        let wal = view.metadata(beside(path, WAL))?.is_some_and(|wal| wal.len() > 0);
        Ok(Some(Self { file: (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec()), wal }))
    }
}

impl View {
    /// What is at a path, without a trace: no locks, no files beside it.
    pub(crate) fn sqlite_glance(&self, path: impl AsRef<Path>) -> Result<Glance, Error> {
        let path = self.path(path);
        let bytes = match self.metadata(&path)? {
            None => return Ok(Glance::Missing),
            Some(m) if !m.is_file() => return Ok(Glance::Other(if m.is_dir() { "a directory".into() } else { "no regular file".into() })),
            Some(m) if m.len() == 0 => return Ok(Glance::Empty),
            Some(m) => m.len(),
        };
        // Read by SQLite and not by hand: to open and close a file by hand drops the locks that other steps of this process hold on it.
        let connection = open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, IMMUTABLE)?;
        match connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0)) {
            Ok(_) => Ok(Glance::Database(bytes)),
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Ok(Glance::Other("no SQLite database".into())),
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => Ok(Glance::Database(bytes)),
            Err(e) => Err(sqlite_error("read", &path, &e)),
        }
    }
    /// The process that holds a lock on a database or is connected to it in WAL mode, where that can be seen.
    pub(crate) fn sqlite_user(&self, path: impl AsRef<Path>) -> Result<Option<u32>, Error> {
        use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
        let file = self.open(&path)?;
        // SQLite's lock bytes: PENDING, RESERVED and the 510 of SHARED.
        let wanted = Flock { start: 0x4000_0000, length: 512, pid: None, typ: FlockType::WriteLock, offset_type: FlockOffsetType::Set };
        let held = fcntl_getlk(&file, &wanted).map_err(|e| io_error("see who uses", &self.path(&path), &e.into()))?;
        Ok(held.map(|lock| lock.pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())))
    }
}

impl World {
    /// Opens a database for reading only. Errors: it is missing, empty or no database.
    pub(crate) fn sqlite_read(&self, path: impl AsRef<Path>) -> Result<Reader, Error> {
        let path = self.path(path);
        match self.sqlite_glance(&path)? {
            Glance::Missing => return Err(Error::Final(format!("{} does not exist; check the path", path.display()))),
            Glance::Empty => {
                return Err(Error::Final(format!("{} is an empty file, which holds no database; check how it was made", path.display())));
            }
            Glance::Other(what) => {
                return Err(Error::Final(format!(
                    "{} is {what}; it may be encrypted, compressed, or another file: check the path",
                    path.display()
                )));
            }
            Glance::Database(_) => {}
        }
        // A database in WAL mode that nobody has open would get a -wal and a -shm from a mere reader.
        let in_use = self.metadata(beside(&path, WAL))?.is_some() || self.metadata(beside(&path, JOURNAL))?.is_some_and(|m| m.len() > 0);
        let still = if in_use || !wal_mode(&path)? { None } else { Stamp::take(self, &path)? };
        self.reader(path, still)
    }
    /// Opens a database for reading only, with locks: for one that was at rest until a writer came, who cleans up what lies beside it.
    pub(crate) fn sqlite_read_among_writers(&self, path: impl AsRef<Path>) -> Result<Reader, Error> {
        self.reader(self.path(path), None)
    }
    fn reader(&self, path: PathBuf, still: Option<Stamp>) -> Result<Reader, Error> {
        let mut connection = open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, if still.is_some() { IMMUTABLE } else { "" })?;
        self.stop_with(&mut connection, &path)?;
        let set = connection.execute_batch("PRAGMA query_only = on; PRAGMA cell_size_check = on");
        set.map_err(|e| sqlite_error("open", &path, &e))?;
        Ok(Reader { connection, path, still })
    }
    /// Opens a database that exists for writing.
    pub(crate) fn sqlite_write(&self, path: impl AsRef<Path>) -> Result<Connection, Error> {
        let path = self.path(path);
        match self.sqlite_glance(&path)? {
            Glance::Missing => return Err(Error::Final(format!("{} does not exist; check the path", path.display()))),
            Glance::Other(what) => return Err(Error::Final(format!("{} is {what}; check the path", path.display()))),
            Glance::Empty | Glance::Database(_) => {}
        }
        let mut connection = open(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, "")?;
        self.stop_with(&mut connection, &path)?;
        Ok(connection)
    }
    fn stop_with(&self, connection: &mut Connection, path: &Path) -> Result<(), Error> {
        let world = self.clone();
        connection.progress_handler(STRIDE, Some(move || world.go_on().is_err())).map_err(|e| sqlite_error("open", path, &e))
    }
}

/// A point in time as expressions take it: seconds of the epoch.
pub(crate) fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

/// The path of what lies beside a database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Size and SHA-256 of a file that nobody of this process has open as a database.
pub(crate) fn digest(world: &World, path: &Path) -> Result<(u64, String), Error> {
    let (mut file, mut hash, mut bytes) = (world.open(path)?, Sha256::new(), 0);
    let mut chunk = vec![0; 1 << 20];
    loop {
        world.go_on()?;
        match file.read(&mut chunk).map_err(|e| io_error("read", &world.path(path), &e))? {
            0 => return Ok((bytes, hex::encode(hash.finalize()))),
            n => {
                hash.update(&chunk[..n]);
                bytes += n as u64;
            }
        }
    }
}

/// A name as SQL writes it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The tables that hold rows, by name: those of people with `true`, those that virtual tables keep with `false`.
pub(crate) fn tables(connection: &Connection) -> rusqlite::Result<Vec<(String, bool)>> {
    let all = "SELECT name, type = 'table' FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') AND name NOT LIKE 'sqlite\\_%' \
               ESCAPE '\\' ORDER BY name";
    connection.prepare(all)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The number that a pragma gives.
pub(crate) fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    count(connection, &format!("PRAGMA {name}"))
}

/// The one number, not negative, of an answer.
pub(crate) fn count(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// The sentence of a failed call: what is locked or full may pass, the rest does not.
pub(crate) fn sqlite_error(doing: &str, path: &Path, e: &rusqlite::Error) -> Error {
    use ErrorCode as C;
    let at = path.display();
    let extended = e.sqlite_error().map_or(0, |e| e.extended_code);
    if extended == ffi::SQLITE_READONLY_ROLLBACK || extended == ffi::SQLITE_READONLY_RECOVERY {
        return Error::Passing(format!(
            "cannot {doing} {at}: a program died while it wrote there and left a hot journal; let its application open the database once, which rolls it back"
        ));
    }
    match e.sqlite_error_code() {
        Some(C::OperationInterrupted) => Error::Stopped,
        Some(C::DatabaseBusy | C::DatabaseLocked) => {
            Error::Passing(format!("cannot {doing} {at}: another program holds its lock; try again, or find it with `fuser`"))
        }
        Some(C::DiskFull) => Error::Passing(format!("cannot {doing} {at}: no space is left; make room and try again")),
        Some(C::NotADatabase) => Error::Final(format!("cannot {doing} {at}: it is no SQLite database, or it is encrypted; check the path")),
        Some(C::DatabaseCorrupt) => Error::Final(format!("cannot {doing} {at}: it is damaged ({e}); restore it from a backup")),
        Some(C::CannotOpen) => Error::Final(format!("cannot {doing} {at}: {e}; check the path, its owner and mode")),
        Some(C::SystemIoFailure) => Error::Final(format!("cannot {doing} {at}: {e}; the disk may be failing, or the file be cut short")),
        _ => Error::Final(format!("cannot {doing} {at}: {e}")),
    }
}

/// Whether the file's header says WAL. Without locks SQLite opens every database but those, and it reads by itself: see `sqlite_glance`.
fn wal_mode(path: &Path) -> Result<bool, Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, "?nolock=1")?;
    let read = connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0));
    Ok(read.is_err_and(|e| e.sqlite_error_code() == Some(ErrorCode::CannotOpen)))
}

fn open(path: &Path, flags: OpenFlags, how: &str) -> Result<Connection, Error> {
    let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(uri(path, how), flags);
    let connection = opened.map_err(|e| sqlite_error("open", path, &e))?;
    harden(&connection).map_err(|e| sqlite_error("open", path, &e))?;
    Ok(connection)
}

fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    Ok(())
}

fn uri(path: &Path, how: &str) -> String {
    let mut uri = String::from("file://");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(byte as char),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + how
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::bench::Bench;

    #[test]
    fn a_glance_tells_what_a_file_is() {
        let bench = Bench::new();
        bench.write("empty.db", b"");
        bench.write("notes.txt", &[b"plain text ".as_slice(); 500].concat());
        let glance = |name: &str| bench.world.sqlite_glance(name).unwrap();
        assert_eq!(glance("none.db"), Glance::Missing);
        assert_eq!(glance("empty.db"), Glance::Empty);
        assert_eq!(glance("notes.txt"), Glance::Other("no SQLite database".into()));
        assert_eq!(glance("."), Glance::Other("a directory".into()));
        assert!(matches!(glance("shop.db"), Glance::Database(n) if n > 4096));
    }

    #[test]
    fn reading_a_wal_database_at_rest_leaves_no_trace() {
        let bench = Bench::new();
        bench.sql("shop.db", "PRAGMA journal_mode = wal; INSERT INTO orders VALUES (5000, 1, 'x')");
        let start = bench.tree();
        assert!(!start.contains_key("shop.db-wal"));
        let reader = bench.world.sqlite_read("shop.db").unwrap();
        assert!(reader.wal_at_rest());
        assert_eq!(count(&reader, "SELECT count(*) FROM orders").unwrap(), 1001);
        reader.settle(&bench.world, Ok(())).unwrap();
        assert!(bench.tree() == start);
    }

    #[test]
    fn what_was_read_while_someone_wrote_does_not_count() {
        let bench = Bench::new();
        bench.sql("shop.db", "PRAGMA journal_mode = wal");
        let reader = bench.world.sqlite_read("shop.db").unwrap();
        let writer = bench.open("shop.db");
        writer.execute_batch("DELETE FROM orders").unwrap();
        assert!(matches!(reader.settle(&bench.world, Ok(())), Err(Error::Passing(_))));
    }

    #[test]
    fn a_wal_database_in_use_is_read_with_its_log() {
        let bench = Bench::new();
        let writer = bench.open("shop.db");
        writer.execute_batch("PRAGMA journal_mode = wal; INSERT INTO orders VALUES (5000, 1, 'x')").unwrap();
        let reader = bench.world.sqlite_read("shop.db").unwrap();
        assert!(!reader.wal_at_rest());
        assert_eq!(count(&reader, "SELECT count(*) FROM orders").unwrap(), 1001);
        reader.settle(&bench.world, Ok(())).unwrap();
    }

    #[test]
    fn a_reader_cannot_write() {
        let bench = Bench::new();
        let reader = bench.world.sqlite_read("shop.db").unwrap();
        let attach = format!("ATTACH '{}' AS other", bench.path("other.db").display());
        for sql in ["DELETE FROM orders", "PRAGMA query_only = off; DELETE FROM orders", &attach] {
            assert!(reader.execute_batch(sql).is_err(), "{sql}");
        }
        assert_eq!(bench.tree().len(), 2);
    }

    #[test]
    fn strange_names_are_only_names() {
        let bench = Bench::new();
        for name in ["a?immutable=1#b%41.db", "ä ö.db", "file:x.db"] {
            bench.write(name, &bench.read("shop.db"));
            assert_eq!(count(&bench.world.sqlite_read(name).unwrap(), "SELECT count(*) FROM orders").unwrap(), 1000, "{name}");
        }
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn reading_ends_when_told_to() {
        let bench = Bench::new();
        let reader = bench.world.sqlite_read("shop.db").unwrap();
        bench.stop.send(true).unwrap();
        let e = count(&reader, "SELECT count(*) FROM orders a, orders b, orders c").unwrap_err();
        assert_eq!(reader.wrong("read")(e), Error::Stopped);
    }
}
