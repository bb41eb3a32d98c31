//! The manifest of a tree: JSON lines, a header and then one line for each file and link, sorted. Its checksum is that of
//! all lines but the first: `tail -n +2 manifest | sha256sum`. What is read is taken for hostile. Unaware of the disk.

use std::{
    collections::BTreeSet,
    io::{BufRead, Read, Write},
    path::{Component, Path},
};

use serde::{Deserialize, Serialize};

use super::{
    digest::{Algorithm, Hasher},
    walk::{Tree, What},
};

/// The version that is written.
const VERSION: u32 = 1;
/// No line is longer: a path has at most 4096 bytes, each of them six when escaped.
const LINE_MAX: u64 = 64 << 10;
/// No manifest is bigger, which is enough for ten million files.
const SIZE_MAX: u64 = 2 << 30;

/// What a tree held.
#[derive(Debug, PartialEq)]
pub(super) struct Manifest {
    pub(super) algorithm: Algorithm,
    /// Whether it is of a directory; else of one file.
    pub(super) directory: bool,
    /// Sorted by path.
    pub(super) lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    runsheet_manifest: u32,
    directory: bool,
    algorithm: Algorithm,
    files: u64,
    bytes: u64,
    checksum: String,
}

/// A file with size and checksum, or a link with what it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// From the root; the file's name when it is of one file.
    pub(super) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
}

impl Manifest {
    /// The manifest of a tree without strange entries, with the checksums of its files in their order.
    pub(super) fn of(tree: &Tree, algorithm: Algorithm, checksums: &[String]) -> Self {
        let mut checksums = checksums.iter().cloned();
        let mut lines = Vec::new();
        for entry in &tree.entries {
            let path = if tree.directory { entry.path.as_path() } else { tree.root.file_name().map_or(Path::new("file"), Path::new) };
            let mut line = Line { path: path.to_string_lossy().into_owned(), size: None, digest: None, link: None };
            match &entry.what {
                What::File { size } => (line.size, line.digest) = (Some(*size), checksums.next()),
                What::Link(target) => line.link = Some(target.to_string_lossy().into_owned()),
                What::Directory | What::Other(_) => continue,
            }
            lines.push(line);
        }
        Self { algorithm, directory: tree.directory, lines }
    }
    pub(super) fn files(&self) -> u64 {
        self.lines.iter().filter(|line| line.link.is_none()).count() as u64
    }
    pub(super) fn bytes(&self) -> u64 {
        self.lines.iter().filter_map(|line| line.size).fold(0, u64::saturating_add)
    }
    /// The checksum of the file that it is of, else that of all lines.
    pub(super) fn checksum(&self) -> String {
        match self.lines.as_slice() {
            [line] if !self.directory => line.digest.clone().unwrap_or_default(),
            _ => self.checksum_of_lines(),
        }
    }
    /// Writes it.
    pub(super) fn write(&self, mut to: impl Write) -> std::io::Result<()> {
        let (files, bytes, checksum) = (self.files(), self.bytes(), self.checksum_of_lines());
        let header = Header { runsheet_manifest: VERSION, directory: self.directory, algorithm: self.algorithm, files, bytes, checksum };
        to.write_all(&json(&header))?;
        self.lines.iter().try_for_each(|line| to.write_all(&json(line)))?;
        to.flush()
    }
    /// Reads one. Errors say which line, and why.
    pub(super) fn read(from: impl BufRead) -> Result<Self, String> {
        let mut from = from.take(SIZE_MAX);
        let Some(first) = line(&mut from, 1)? else { return Err("it is empty".to_owned()) };
        let header = header(&first)?;
        let mut hasher = Hasher::new(header.algorithm);
        let mut found = Self { algorithm: header.algorithm, directory: header.directory, lines: Vec::new() };
        let mut seen = BTreeSet::new();
        while let Some(text) = line(&mut from, found.lines.len() + 2)? {
            let number = found.lines.len() + 2;
            let line: Line = serde_json::from_slice(&text).map_err(|e| format!("line {number}: {e}"))?;
            line.check(header.algorithm).map_err(|says| format!("line {number}: {says}"))?;
            if !seen.insert(line.path.clone()) {
                return Err(format!("line {number}: {:?} is there twice", line.path));
            }
            hasher.update(&text);
            found.lines.push(line);
        }
        let whole = from.limit() > 0 && (header.files, header.bytes) == (found.files(), found.bytes()) && header.checksum == hasher.hex();
        if whole { Ok(found) } else { Err("its lines do not agree with its header: it was cut or changed".to_owned()) }
    }

    fn checksum_of_lines(&self) -> String {
        let mut hasher = Hasher::new(self.algorithm);
        self.lines.iter().for_each(|line| hasher.update(&json(line)));
        hasher.hex()
    }
}

impl Line {
    fn check(&self, algorithm: Algorithm) -> Result<(), String> {
        let path = Path::new(&self.path);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        // `components` forgives `a//b`, `a/.` and `a/`; a walk never gives them.
        if !plain || self.path.is_empty() || self.path.contains('\0') || self.path.split('/').any(|part| part.is_empty() || part == ".") {
            return Err(format!("{:?} is not a path beneath the tree", self.path));
        }
        match (&self.size, &self.digest, &self.link) {
            (None, None, Some(_)) => Ok(()),
            (Some(_), Some(digest), None) if is_checksum(digest, algorithm) => Ok(()),
            (Some(_), Some(_), None) => Err(format!("the digest of {:?} is no {}", self.path, algorithm.name())),
            _ => Err(format!("{:?} has neither size and digest nor a link", self.path)),
        }
    }
}

fn is_checksum(text: &str, algorithm: Algorithm) -> bool {
    text.len() == algorithm.digits() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn header(line: &[u8]) -> Result<Header, String> {
    let value: serde_json::Value = serde_json::from_slice(line).map_err(|_| "it is not a manifest of Runsheet".to_owned())?;
    match value.get("runsheet_manifest").and_then(serde_json::Value::as_u64) {
        None | Some(0) => Err("it is not a manifest of Runsheet".to_owned()),
        Some(version) if version > u64::from(VERSION) => {
            Err(format!("it has version {version}, made by a newer Runsheet; this one reads up to {VERSION}"))
        }
        Some(_) => serde_json::from_value(value).map_err(|e| format!("line 1: {e}")),
    }
}

/// One line with its line break; nothing at the end.
fn line(from: &mut impl BufRead, number: usize) -> Result<Option<Vec<u8>>, String> {
    let mut text = Vec::new();
    from.take(LINE_MAX).read_until(b'\n', &mut text).map_err(|e| format!("line {number}: {e}"))?;
    match text.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(text)),
        Some(_) => Err(format!("line {number} is cut, or too long")),
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).expect("strings and numbers");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Line {
        Line { path: path.to_owned(), size: Some(6), digest: Some("00".repeat(32)), link: None }
    }

    fn written(lines: Vec<Line>) -> Vec<u8> {
        let mut text = Vec::new();
        Manifest { algorithm: Algorithm::Sha256, directory: true, lines }.write(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_written_is_read() {
        let link = Line { path: "l".to_owned(), size: None, digest: None, link: Some("../x".to_owned()) };
        let manifest = Manifest { algorithm: Algorithm::Sha256, directory: true, lines: vec![file("a\n\"b"), link, file("ö/c")] };
        let text = written(manifest.lines.clone());
        assert_eq!(Manifest::read(text.as_slice()), Ok(manifest));
    }

    #[test]
    fn the_checksum_is_that_of_all_lines_but_the_first() {
        let text = written(vec![file("a"), file("b")]);
        let body = text.iter().position(|b| *b == b'\n').unwrap() + 1;
        let manifest = Manifest::read(text.as_slice()).unwrap();
        assert_eq!(manifest.checksum(), super::super::digest::of_bytes(Algorithm::Sha256, &text[body..]));
    }

    #[test]
    fn hostile_paths_are_refused() {
        for path in ["", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "./a", "a/.", "a\0b", "/"] {
            let says = Manifest::read(written(vec![file(path)]).as_slice()).unwrap_err();
            assert!(says.starts_with("line 2: ") && says.contains("not a path beneath"), "{path:?}: {says}");
        }
    }

    #[test]
    fn damage_is_noticed() {
        let text = written(vec![file("a"), file("b")]);
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            assert_ne!(Manifest::read(damaged.as_slice()).ok(), Manifest::read(text.as_slice()).ok(), "byte {at}");
            assert!(Manifest::read(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn bad_lines_are_refused() {
        let twice = written(vec![file("a"), file("a")]);
        let short = written(vec![Line { digest: Some("00".into()), ..file("a") }]);
        let both = written(vec![Line { link: Some("x".into()), ..file("a") }]);
        let long = written(vec![file(&"x".repeat(70_000))]);
        let newer = b"{\"runsheet_manifest\":2}\n".to_vec();
        let huge = written(vec![Line { size: Some(u64::MAX), ..file("a") }, Line { size: Some(u64::MAX), ..file("b") }]);
        assert!(Manifest::read(huge.as_slice()).is_ok());
        for (text, says) in [
            (twice, "is there twice"),
            (short, "is no sha256"),
            (both, "neither"),
            (long, "cut, or too long"),
            (newer, "newer Runsheet"),
            (b"{}\n".to_vec(), "not a manifest"),
            (Vec::new(), "empty"),
        ] {
            let got = Manifest::read(text.as_slice()).unwrap_err();
            assert!(got.contains(says), "{got}");
        }
    }
}
