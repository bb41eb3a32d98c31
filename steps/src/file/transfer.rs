//! Copies a file or a tree in one pass (read, hash, write), and then reads back what landed. Unaware of what was at the
//! target before, and of how the copy gets its final name.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    attributes::Attributes,
    digest::{Algorithm, BLOCK, Hasher, Meter, Reading},
    manifest::Manifest,
    walk::{Entry, Tree, What, beneath},
};
use crate::{
    setting::Size,
    step::Error,
    world::{World, io_error},
};

/// Threads that read back.
const THREADS: usize = 2;

/// Copies a tree to `to`, where nothing is, and verifies the copy. Gives the checksum: of the file, or of the manifest's lines.
pub(super) fn transfer(world: &World, tree: &Tree, to: &Path, algorithm: Algorithm, bandwidth: Option<Size>) -> Result<String, Error> {
    tree.refuse_strange()?;
    room(world, tree, to)?;
    let meter = Meter::new(world, 2 * tree.bytes());
    let mut pace = Pace { began: world.clock(), done: 0, bandwidth };
    let mut checksums = Vec::new();
    if tree.directory {
        world.make_directory(to)?;
    }
    for entry in &tree.entries {
        let target = beneath(to, &entry.path);
        match &entry.what {
            What::File { .. } => checksums.push(Copying { world, meter: &meter, algorithm }.file(tree, entry, &target, &mut pace)?),
            What::Link(says) => world.make_link(says, &target)?,
            What::Directory => world.make_directory(&target)?,
            What::Other(_) => unreachable!("BUG: strange entries are refused first"),
        }
        world.go_on()?;
    }
    put_attributes(world, tree, to)?;
    let landed: Vec<_> = tree.files().into_iter().zip(files_at(tree, to)).map(|((_, size), path)| (path, size)).collect();
    let read_back = Reading { world, meter: &meter, algorithm, threads: THREADS, fresh: true }.checksums(&landed)?;
    for (((path, _), read), back) in tree.files().iter().zip(&checksums).zip(&read_back) {
        if read != back {
            let says = "what was written is not what was read back; suspect the disk or the memory, look into the system's log";
            return Err(Error::Final(format!("the copy of {} to {} is damaged: {says}", path.display(), to.display())));
        }
    }
    Ok(Manifest::of(tree, algorithm, &checksums).checksum())
}

/// Whether `at` holds the same as the tree; if so, its checksum.
pub(super) fn same(world: &World, tree: &Tree, at: &Path, algorithm: Algorithm) -> Result<Option<String>, Error> {
    let other = Tree::walk(world, at, None, &|| world.go_on())?;
    let alike = |a: &Entry, b: &Entry| a.path == b.path && a.what == b.what;
    let shape = tree.directory == other.directory && tree.entries.len() == other.entries.len();
    if !shape || !tree.entries.iter().zip(&other.entries).all(|(a, b)| alike(a, b)) {
        return Ok(None);
    }
    tree.refuse_strange()?;
    let meter = Meter::new(world, 2 * tree.bytes());
    let reading = Reading { world, meter: &meter, algorithm, threads: THREADS, fresh: false };
    let (ours, theirs) = (reading.checksums(&tree.files())?, reading.checksums(&other.files())?);
    Ok((ours == theirs).then(|| Manifest::of(tree, algorithm, &ours).checksum()))
}

/// Errors: the file system that is to hold the copy has no room for it.
fn room(world: &World, tree: &Tree, to: &Path) -> Result<(), Error> {
    let (free, _) = world.space(to)?;
    if tree.bytes() <= free {
        return Ok(());
    }
    let (wanted, free) = (Size(tree.bytes()), Size(free));
    Err(Error::Passing(format!(
        "{} has {wanted}, but only {free} are free for {}; make room and try again",
        tree.root.display(),
        to.display()
    )))
}

/// What copying one file needs.
struct Copying<'a> {
    world: &'a World,
    meter: &'a Meter<'a>,
    algorithm: Algorithm,
}

impl Copying<'_> {
    fn file(&self, tree: &Tree, entry: &Entry, to: &Path, pace: &mut Pace) -> Result<String, Error> {
        let from = tree.at(entry);
        let (mut source, mut target) = (self.world.open_plain(&from)?, self.world.create_new(to)?);
        let (mut hasher, mut block, mut done) = (Hasher::new(self.algorithm), vec![0; BLOCK], 0_u64);
        loop {
            let got = match source.read(&mut block) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(io_error("read", &from, &e)),
            };
            hasher.update(&block[..got]);
            target.write_all(&block[..got]).map_err(|e| io_error("write", to, &e))?;
            done += got as u64;
            self.meter.add(got)?;
            pace.wait(self.world, got)?;
        }
        let now = source.metadata().map_err(|e| io_error("look at", &from, &e))?;
        if (What::File { size: done }) != entry.what || Attributes::of(&now).modified != entry.attributes.modified {
            let says = "changed while it was copied; see to it that nothing writes to it, then try again";
            return Err(Error::Passing(format!("{} {says}", from.display())));
        }
        target.sync_all().map_err(|e| io_error("write", to, &e))?;
        Ok(hasher.hex())
    }
}

/// Gives the copy the attributes of the tree, a directory after what is in it, and syncs all directories.
fn put_attributes(world: &World, tree: &Tree, to: &Path) -> Result<(), Error> {
    let mut synced = BTreeSet::new();
    for entry in tree.entries.iter().rev() {
        let target = beneath(to, &entry.path);
        entry.attributes.copy_on(world, &target)?;
        if let Some(parent) = target.parent().filter(|parent| !synced.contains(*parent)) {
            world.sync_directory(&target)?;
            synced.insert(parent.to_owned());
        }
    }
    tree.attributes.copy_on(world, to)?;
    world.sync_directory(to)
}

fn files_at(tree: &Tree, to: &Path) -> impl Iterator<Item = PathBuf> {
    tree.entries.iter().filter(|e| matches!(e.what, What::File { .. })).map(move |e| beneath(to, &e.path))
}

/// Holds a copy to a number of bytes per second.
struct Pace {
    began: Instant,
    done: u64,
    bandwidth: Option<Size>,
}

impl Pace {
    fn wait(&mut self, world: &World, bytes: usize) -> Result<(), Error> {
        let Some(Size(rate)) = self.bandwidth else { return Ok(()) };
        self.done += bytes as u64;
        let due = Duration::from_secs_f64(self.done as f64 / rate as f64);
        while let Some(left) = due.checked_sub(world.clock().duration_since(self.began)).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(Duration::from_millis(100)));
            world.go_on()?;
        }
        Ok(())
    }
}
