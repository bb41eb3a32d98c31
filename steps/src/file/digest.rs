//! Checksums of files: the algorithms, and reading many files, or one big one, with several threads.
//! Unaware of trees and manifests.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use crc_fast::CrcAlgorithm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use crate::{
    step::Error,
    world::{World, io_error},
};

/// Bytes that are read at once.
pub(super) const BLOCK: usize = 1 << 20;
/// Bytes of a big BLAKE3 file that one thread takes at once: a whole subtree of the hash, hence a power of two.
const PART: u64 = 16 << 20;

/// How a checksum is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Algorithm {
    /// SHA-256: what other tools and auditors know.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
    /// BLAKE3: cryptographic, and the fastest of these; a big file is read by several threads.
    Blake3,
    /// CRC-32C: finds damage, not tampering.
    Crc32c,
    /// CRC-64/NVME: finds damage, not tampering; what S3 reports.
    Crc64nvme,
}

impl Algorithm {
    /// Its name, as in a setting.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
            Self::Crc32c => "crc32c",
            Self::Crc64nvme => "crc64nvme",
        }
    }
    /// Hex digits of a checksum.
    pub(super) fn digits(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 64,
            Self::Sha512 => 128,
            Self::Crc32c => 8,
            Self::Crc64nvme => 16,
        }
    }
}

/// A checksum in the making.
pub(super) enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
    Crc32c(crc_fast::Digest),
    Crc64nvme(crc_fast::Digest),
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
            Algorithm::Blake3 => Self::Blake3(Box::default()),
            Algorithm::Crc32c => Self::Crc32c(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi)),
            Algorithm::Crc64nvme => Self::Crc64nvme(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme)),
        }
    }
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
            Self::Blake3(hash) => drop(hash.update(bytes)),
            Self::Crc32c(crc) | Self::Crc64nvme(crc) => crc.update(bytes),
        }
    }
    /// The checksum in lower-case hex.
    pub(super) fn hex(self) -> String {
        match self {
            Self::Sha256(hash) => hex::encode(hash.finalize()),
            Self::Sha512(hash) => hex::encode(hash.finalize()),
            Self::Blake3(hash) => hash.finalize().to_string(),
            Self::Crc32c(crc) => format!("{:08x}", crc.finalize()),
            Self::Crc64nvme(crc) => format!("{:016x}", crc.finalize()),
        }
    }
}

/// The checksum of bytes in memory.
pub(super) fn of_bytes(algorithm: Algorithm, bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.hex()
}

/// Counts bytes for whoever watches, and asks whether to go on.
pub(super) struct Meter<'w> {
    world: &'w World,
    done: AtomicU64,
    total: u64,
}

impl<'w> Meter<'w> {
    pub(super) fn new(world: &'w World, total: u64) -> Self {
        Self { world, done: AtomicU64::new(0), total }
    }
    pub(super) fn add(&self, bytes: usize) -> Result<(), Error> {
        let done = self.done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.world.progress(done, self.total, "bytes");
        self.world.go_on()
    }
}

/// How files are read.
pub(super) struct Reading<'a> {
    pub(super) world: &'a World,
    pub(super) meter: &'a Meter<'a>,
    pub(super) algorithm: Algorithm,
    pub(super) threads: usize,
    /// Whether to have the system read from the device what it may still hold in memory.
    pub(super) fresh: bool,
}

impl Reading<'_> {
    /// The checksum of each file, in their order. Errors: one cannot be read, or has not the size given.
    pub(super) fn checksums(&self, files: &[(PathBuf, u64)]) -> Result<Vec<String>, Error> {
        let pieces = pieces(files, self.algorithm);
        let next = AtomicUsize::new(0);
        let sums: Mutex<Vec<Option<Sum>>> = Mutex::new(pieces.iter().map(|_| None).collect());
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let work = || {
            let mut block = vec![0; BLOCK];
            while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.sum(&files[piece.file].0, piece, &mut block) {
                    Ok(sum) => sums.lock().expect("no thread panics")[piece.place] = Some(sum),
                    Err(e) => {
                        next.store(pieces.len(), Ordering::Relaxed);
                        failure.lock().expect("no thread panics").get_or_insert(e);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(pieces.len()) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(e) = failure.into_inner().expect("no thread panics") {
            return Err(e);
        }
        Ok(gather(files, sums.into_inner().expect("no thread panics").into_iter().flatten()))
    }

    fn sum(&self, path: &Path, piece: &Piece, block: &mut [u8]) -> Result<Sum, Error> {
        let file = self.world.open_plain(path)?;
        if self.fresh {
            self.world.forget_cached(&file, piece.offset, piece.length);
        }
        let changed = || {
            Err(Error::Passing(format!(
                "{} changed while it was read; see to it that nothing writes to it, then try again",
                path.display()
            )))
        };
        if file.metadata().map_err(|e| io_error("look at", path, &e))?.len() != piece.size {
            return changed();
        }
        let mut hasher = Hasher::new(self.algorithm);
        if let (Hasher::Blake3(hash), true) = (&mut hasher, piece.part) {
            hash.set_input_offset(piece.offset);
        }
        let mut done = 0;
        while done < piece.length {
            let wanted = block.len().min((piece.length - done) as usize);
            let got = read_at(&file, path, &mut block[..wanted], piece.offset + done)?;
            if got < wanted {
                return changed();
            }
            hasher.update(&block[..got]);
            done += got as u64;
            self.meter.add(got)?;
        }
        Ok(match hasher {
            Hasher::Blake3(hash) if piece.part => Sum::Part(hash.finalize_non_root()),
            whole => Sum::Whole(whole.hex()),
        })
    }
}

/// Fills a buffer from a place in a file, less only at the file's end.
fn read_at(file: &File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io_error("read", path, &e)),
        }
    }
    Ok(got)
}

/// What one thread reads at once.
struct Piece {
    /// Its place in the order of the result.
    place: usize,
    file: usize,
    offset: u64,
    length: u64,
    /// That of the whole file.
    size: u64,
    /// Whether it is less than the file.
    part: bool,
}

enum Sum {
    Whole(String),
    Part(ChainingValue),
}

/// The pieces, the biggest first, so that no thread is left alone with one at the end.
fn pieces(files: &[(PathBuf, u64)], algorithm: Algorithm) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (file, &(_, size)) in files.iter().enumerate() {
        let part = algorithm == Algorithm::Blake3 && size > PART;
        let length = if part { PART } else { size };
        for offset in (0..size.max(1)).step_by(length.max(1) as usize) {
            pieces.push(Piece { place: pieces.len(), file, offset, length: length.min(size - offset), size, part });
        }
    }
    pieces.sort_by_key(|piece| std::cmp::Reverse(if piece.part { piece.size } else { piece.length }));
    pieces
}

/// One checksum for each file from the sums of all pieces.
fn gather(files: &[(PathBuf, u64)], mut sums: impl Iterator<Item = Sum>) -> Vec<String> {
    let mut checksums = Vec::with_capacity(files.len());
    let mut parts = Vec::new();
    for (_, size) in files {
        let mut left = size.div_ceil(PART).max(1);
        while left > 0 {
            match sums.next() {
                Some(Sum::Part(part)) => parts.push(part),
                Some(Sum::Whole(checksum)) => {
                    checksums.push(checksum);
                    break;
                }
                None => unreachable!("BUG: a piece without a sum"),
            }
            left -= 1;
        }
        if !parts.is_empty() {
            let left = left_subtree_len(*size);
            let (a, b) = parts.split_at((left / PART) as usize);
            checksums.push(merge_subtrees_root(&subtree(a, left), &subtree(b, size - left), Mode::Hash).to_string());
            parts.clear();
        }
    }
    checksums
}

fn subtree(parts: &[ChainingValue], length: u64) -> ChainingValue {
    if let [part] = parts {
        return *part;
    }
    let left = left_subtree_len(length);
    let (a, b) = parts.split_at((left / PART) as usize);
    merge_subtrees_non_root(&subtree(a, left), &subtree(b, length - left), Mode::Hash)
}
