//! One run's append-only file: JSON lines, each with a hash over itself and the hash before it. One thread writes; a
//! group of lines is one write and one sync, and nothing counts before that sync. Unaware of what events mean.

#![expect(clippy::disallowed_methods, reason = "this is the door to the clock")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::mpsc,
    time::Duration,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::event::{Event, FORMAT, Record};

/// The hash before the first line.
const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const HASH_KEY: &str = "{\"hash\":\"";

/// Why a journal cannot be trusted or written.
#[derive(Debug)]
pub enum Fault {
    /// No room: what was to be written is not in the file.
    Full(String),
    /// A write or a sync failed in another way: nothing more may be written.
    Broken(String),
    /// The text is not what was written.
    Corrupt(String),
    /// A newer runner wrote it.
    Newer(u32),
    /// It cannot be opened.
    Absent(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(says) => write!(f, "the disk is full: {says}"),
            Self::Broken(says) => write!(f, "the journal cannot be written: {says}"),
            Self::Corrupt(says) => write!(f, "the journal is not as it was written: {says}"),
            Self::Newer(format) => {
                write!(f, "the journal has format {format}; this runsheet reads formats up to {FORMAT}: use a newer one")
            }
            Self::Absent(says) => f.write_str(says),
        }
    }
}

/// The writer of a journal.
pub struct Journal {
    seq: u64,
    group: u64,
    to_writer: mpsc::Sender<Group>,
    thread: Option<std::thread::JoinHandle<()>>,
    head: String,
}

/// Records to be written together, and where to say that they are on disk, with the new head.
type Group = (Vec<Record>, oneshot::Sender<Result<String, Fault>>);

/// The journal as far as it is whole.
#[derive(Debug)]
pub struct Reading {
    /// Its records.
    pub records: Vec<Record>,
    /// The hash of the last of them.
    pub head: String,
    /// Bytes that they take.
    pub length: u64,
    /// What follows them, if anything: the torn end of the last append.
    pub torn: Option<String>,
}

impl Journal {
    /// A new journal. Errors: there is one, or it cannot be made durable.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self::start(file, 0, 0, 0, START.to_owned()))
    }

    /// Goes on with a journal that has been read: syncs what was read, and cuts a torn end, which is kept beside it.
    pub fn resume(path: &Path, reading: &Reading) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).open(path)?;
        if reading.torn.is_some() {
            let whole = fs::read(path)?;
            fs::write(path.with_extension("torn"), &whole[usize::try_from(reading.length).unwrap_or(whole.len())..])?;
            file.set_len(reading.length)?;
        }
        file.sync_all()?;
        let last = reading.records.last();
        Ok(Self::start(file, reading.length, last.map_or(0, |r| r.seq), last.map_or(0, |r| r.group), reading.head.clone()))
    }

    fn start(file: File, length: u64, seq: u64, group: u64, head: String) -> Self {
        let (to_writer, from_engine) = mpsc::channel();
        let writer = Writer { file, length, head: head.clone(), broken: false };
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || writer.serve(&from_engine)).ok();
        Self { seq, group, to_writer, thread, head }
    }

    /// Gives an event its place and time.
    pub fn stamp(&mut self, event: Event) -> Record {
        self.seq += 1;
        Record { seq: self.seq, group: self.group + 1, at: now(), up: up(), event }
    }

    /// Writes a group of stamped records and syncs them. Errors: none of them counts.
    pub async fn write(&mut self, records: Vec<Record>) -> Result<(), Fault> {
        self.group += 1;
        let (done, written) = oneshot::channel();
        let gone = || Fault::Broken("its writer is gone".into());
        self.to_writer.send((records, done)).map_err(|_| gone())?;
        self.head = written.await.map_err(|_| gone())??;
        Ok(())
    }

    /// Records written, and the hash of the last: what proves that no tail was cut.
    pub fn head(&self) -> (u64, &str) {
        (self.seq, &self.head)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel();
        drop(std::mem::replace(&mut self.to_writer, closed));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    file: File,
    length: u64,
    head: String,
    broken: bool,
}

impl Writer {
    fn serve(mut self, from_engine: &mpsc::Receiver<Group>) {
        while let Ok((records, done)) = from_engine.recv() {
            let _ = done.send(self.append(&records));
        }
    }

    fn append(&mut self, records: &[Record]) -> Result<String, Fault> {
        if self.broken {
            return Err(Fault::Broken("an earlier sync failed, and a later one cannot make that good".into()));
        }
        let (mut text, mut head) = (String::new(), self.head.clone());
        for record in records {
            head = line(&mut text, record, &head);
        }
        if let Err(e) = self.file.write_all(text.as_bytes()) {
            self.broken = self.file.set_len(self.length).is_err();
            let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            return Err(if full && !self.broken { Fault::Full(e.to_string()) } else { Fault::Broken(e.to_string()) });
        }
        if let Err(e) = self.file.sync_data() {
            self.broken = true;
            return Err(Fault::Broken(format!("sync failed: {e}")));
        }
        self.length += text.len() as u64;
        self.head.clone_from(&head);
        Ok(head)
    }
}

/// Appends a record's line and gives its hash.
fn line(text: &mut String, record: &Record, head: &str) -> String {
    let json = serde_json::to_string(record).expect("a record is plain data");
    let rest = &json[1..];
    let hash = chained(head, rest);
    text.push_str(HASH_KEY);
    text.push_str(&hash);
    text.push_str("\",");
    text.push_str(rest);
    text.push('\n');
    hash
}

fn chained(head: &str, rest: &str) -> String {
    let mut sum = Sha256::new();
    sum.update(head);
    sum.update(rest);
    hex::encode(sum.finalize())
}

/// Wall time, for people.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Seconds since the machine was started, suspended time included.
pub fn up() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32).as_secs_f64()
}

/// Reads a journal file.
pub fn read(path: &Path) -> Result<Reading, Fault> {
    let bytes = fs::read(path).map_err(|e| Fault::Absent(format!("cannot read {}: {e}", path.display())))?;
    parse(&bytes)
}

/// Reads a journal. A bad line within the last append is a torn end; anywhere else the journal is corrupt.
pub fn parse(bytes: &[u8]) -> Result<Reading, Fault> {
    let mut reading = Reading { records: Vec::new(), head: START.to_owned(), length: 0, torn: None };
    let mut offset = 0;
    for (number, raw) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        match record(raw, &reading) {
            Ok((record, hash)) => {
                if let (1, Event::RunBegan { format, .. }) = (record.seq, &record.event)
                    && *format > FORMAT
                {
                    return Err(Fault::Newer(*format));
                }
                reading.records.push(record);
                reading.head = hash;
                offset += raw.len();
            }
            Err(why) => {
                let says = format!("line {}, byte {offset}: {why}", number + 1);
                if !is_last_group(&bytes[offset..], reading.records.last().map_or(0, |r| r.group)) {
                    return Err(Fault::Corrupt(says));
                }
                reading.torn = Some(says);
                break;
            }
        }
    }
    reading.length = offset as u64;
    Ok(reading)
}

fn record(raw: &[u8], before: &Reading) -> Result<(Record, String), String> {
    let text = std::str::from_utf8(raw).map_err(|_| "not UTF-8")?;
    let text = text.strip_suffix('\n').ok_or("the line has no end")?;
    let inner = text.strip_prefix(HASH_KEY).ok_or("it does not begin with a hash")?;
    let (hash, rest) = inner.split_at_checked(64).ok_or("it is too short")?;
    let rest = rest.strip_prefix("\",").ok_or("its hash has the wrong length")?;
    if chained(&before.head, rest) != hash {
        return Err("its hash does not fit what it says and what stands before it".into());
    }
    let record: Record = serde_json::from_str(&format!("{{{rest}")).map_err(|e| e.to_string())?;
    if record.seq != before.records.len() as u64 + 1 {
        return Err(format!("it has the number {}", record.seq));
    }
    Ok((record, hash.to_owned()))
}

/// Whether nothing from here on was written after the append that was the last: only then can a bad line be torn.
fn is_last_group(rest: &[u8], good: u64) -> bool {
    let group = |raw: &[u8]| -> Option<u64> {
        let text = std::str::from_utf8(raw).ok()?;
        let after = text.split_once("\"group\":")?.1;
        after[..after.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    };
    rest.split(|b| *b == b'\n').filter_map(group).all(|g| g <= good + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(groups: &[u64]) -> Vec<u8> {
        let (mut text, mut head) = (String::new(), START.to_owned());
        for (i, group) in groups.iter().enumerate() {
            let event = Event::Paused { why: format!("reason {i}") };
            let record = Record { seq: i as u64 + 1, group: *group, at: Timestamp::UNIX_EPOCH, up: 1.0, event };
            head = line(&mut text, &record, &head);
        }
        text.into_bytes()
    }

    #[test]
    fn a_whole_journal_is_read() {
        let reading = parse(&sample(&[1, 1, 2])).unwrap();
        assert_eq!((reading.records.len(), reading.torn), (3, None));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = sample(&[1, 2, 3, 3]);
        let lines = good.split_inclusive(|b| *b == b'\n').map(<[u8]>::len).collect::<Vec<_>>();
        let ends: Vec<usize> = lines
            .iter()
            .scan(0, |sum, n| {
                *sum += n;
                Some(*sum)
            })
            .collect();
        for at in 0..good.len() {
            for bit in [0, 3, 7] {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                match parse(&bad) {
                    Ok(reading) => assert!(reading.torn.is_some(), "byte {at}, bit {bit} went unnoticed"),
                    Err(Fault::Corrupt(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            let cut = parse(&good[..at]).unwrap();
            assert_eq!(cut.records.len(), ends.iter().filter(|end| **end <= at).count());
            assert_eq!(cut.torn.is_some(), at != 0 && !ends.contains(&at), "cut at {at}");
        }
    }

    #[test]
    fn damage_before_the_last_append_is_never_repaired() {
        let mut bad = sample(&[1, 2, 3]);
        bad[80] ^= 1;
        assert!(matches!(parse(&bad), Err(Fault::Corrupt(_))));
        let whole = sample(&[1, 2, 3]);
        let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
        assert!(matches!(parse(&[lines[0], lines[2]].concat()), Err(Fault::Corrupt(_)) | Ok(Reading { torn: Some(_), .. })));
        assert!(matches!(parse(&[lines[1], lines[0], lines[2]].concat()), Err(Fault::Corrupt(_))));
    }
}
