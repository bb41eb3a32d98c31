//! Copies a database page by page while others go on with it. Unaware of why.

use std::{path::Path, time::Duration};

use rusqlite::backup::{Backup, StepResult};

use super::database::{Reader, sqlite_error};
use crate::{step::Error, world::World};

/// How long a lock of another program is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_millis(50);

/// How a copy goes about it.
pub(crate) struct Pace {
    /// Pages in one go, during which writers wait.
    pub(crate) pages: i32,
    /// The time that writers get in between.
    pub(crate) pause: Duration,
    /// How often a writer may make the copy begin anew; after that writers wait until it is done.
    pub(crate) restarts: u32,
}

/// What was copied.
pub(crate) struct Copied {
    pub(crate) pages: u64,
    pub(crate) restarts: u32,
}

/// Copies all pages into the empty file `to`. Errors: locked for long, or nothing to copy.
pub(crate) fn copy_pages(world: &World, source: &Reader, to: &Path, pace: &Pace) -> Result<Copied, Error> {
    let wrong = source.wrong("copy");
    let mut target = world.sqlite_write(to)?;
    target.execute_batch("PRAGMA journal_mode = memory; PRAGMA synchronous = off").map_err(|e| sqlite_error("write", to, &e))?;
    let mode: String = source.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(&wrong)?;
    // In WAL mode a reader keeps its snapshot and hinders no writer, so nothing ever begins anew.
    let mut held = mode == "wal";
    if held {
        hold(source).map_err(&wrong)?;
    }
    let copied = {
        let backup = Backup::new(source, &mut target).map_err(&wrong)?;
        let (mut left, mut restarts, mut waited) = (i32::MAX, 0, Duration::ZERO);
        loop {
            world.go_on()?;
            let step = backup.step(pace.pages).map_err(|e| sqlite_error("copy", to, &e))?;
            let now = backup.progress();
            world.progress(u64::from((now.pagecount - now.remaining).unsigned_abs()), u64::from(now.pagecount.unsigned_abs()), "pages");
            match step {
                StepResult::Done => break Copied { pages: u64::from(now.pagecount.unsigned_abs()), restarts },
                StepResult::More => {
                    waited = Duration::ZERO;
                    restarts += u32::from(now.remaining >= left);
                    left = now.remaining;
                    if restarts > pace.restarts && !held {
                        hold(source).map_err(&wrong)?;
                        held = true;
                    }
                    std::thread::sleep(if held { Duration::ZERO } else { pace.pause });
                }
                // Two states of one matter here: another program holds a lock.
                _ if waited >= PATIENCE => return Err(Error::Passing(busy(to))),
                _ => {
                    std::thread::sleep(BETWEEN);
                    waited += BETWEEN;
                }
            }
        }
    };
    target.close().map_err(|(_, e)| sqlite_error("write", to, &e))?;
    if copied.pages == 0 { Err(Error::Final("the database holds nothing: there is nothing to copy".into())) } else { Ok(copied) }
}

/// Begins to read, and keeps what is read as it is until the connection ends.
pub(crate) fn hold(source: &Reader) -> rusqlite::Result<()> {
    source.execute_batch("BEGIN")?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

fn busy(to: &Path) -> String {
    format!(
        "cannot copy into {}: the database has been locked by another program for {} s; try again, or find it with `fuser`",
        to.display(),
        PATIENCE.as_secs()
    )
}
