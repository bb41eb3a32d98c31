//! The folder of runs: where each run's record lies, who holds it, and which locks are taken. Unaware of what a run does.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::{book::Source, plan::Sources};

/// The version of the snapshot's format.
const SNAPSHOT: u32 = 1;

/// The folder in which everything is kept.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// What a run is bound to: its playbook, what that uses, and its params.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of this format.
    pub format: u32,
    /// The playbook as it was named.
    pub playbook: String,
    /// Its key among the texts.
    pub root: String,
    /// What relative paths start from.
    pub directory: PathBuf,
    /// The params; secrets are not among them.
    pub params: Json,
    /// Every text by its key: name and text.
    pub texts: std::collections::BTreeMap<String, (String, String)>,
}

impl Snapshot {
    /// A snapshot of these texts and params.
    pub fn new(playbook: String, root: String, directory: PathBuf, params: Json, sources: &Sources) -> Self {
        let texts = sources.0.iter().map(|(key, source)| (key.clone(), (source.name.clone(), source.text.clone()))).collect();
        Self { format: SNAPSHOT, playbook, root, directory, params, texts }
    }
    /// The texts.
    pub fn sources(&self) -> Sources {
        let source = |(name, text): &(String, String)| Arc::new(Source { name: name.clone(), text: text.clone() });
        Sources(self.texts.iter().map(|(key, text)| (key.clone(), source(text))).collect())
    }
    /// SHA-256, hex, of the snapshot as it is written.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.json().as_bytes()))
    }
    fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a snapshot is plain data")
    }
}

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// The run's id.
    pub id: String,
    /// The folder.
    pub path: PathBuf,
}

/// Holds a run: there is one runner at a time.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "the kernel's lock lives as long as the file is open")] File);

impl Home {
    /// The home: `$RUNSHEET_HOME`, else `/var/lib/runsheet` for root, else the user's state directory; made when absent.
    /// Errors: it is not a directory of this user's own.
    pub fn open() -> Result<Self, String> {
        let set = std::env::var_os("RUNSHEET_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let root = rustix::process::geteuid().is_root();
        let state = || {
            let state = std::env::var_os("XDG_STATE_HOME").filter(|state| !state.is_empty()).map(PathBuf::from);
            state.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"))).map(|state| state.join("runsheet"))
        };
        let path = set.or_else(|| if root { Some("/var/lib/runsheet".into()) } else { state() });
        let path = path.ok_or("there is no place for runs: set RUNSHEET_HOME")?;
        let path = std::path::absolute(&path).map_err(|e| e.to_string())?;
        make(&path)
            .map_err(|e| format!("cannot make {} for the record of runs: {e}; set RUNSHEET_HOME to another folder", path.display()))?;
        let meta = fs::symlink_metadata(&path).map_err(|e| format!("cannot look at {}: {e}", path.display()))?;
        if !meta.is_dir() {
            return Err(format!("{} is not a folder: set RUNSHEET_HOME to another one", path.display()));
        }
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(format!("{} belongs to another user: set RUNSHEET_HOME to a folder of your own", path.display()));
        }
        Ok(Self(path))
    }

    fn runs(&self) -> PathBuf {
        self.0.join("runs")
    }

    /// A folder for a new run, with its snapshot, durable.
    pub fn new_run(&self, snapshot: &Snapshot) -> io::Result<(RunFolder, Held)> {
        make(&self.runs())?;
        let id = loop {
            let id = new_id();
            match DirBuilder::new().mode(0o700).create(self.runs().join(&id)) {
                Ok(()) => break id,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        };
        let folder = self.folder(&id);
        for name in ["snapshot", "out", "inbox"] {
            DirBuilder::new().mode(0o700).create(folder.path.join(name))?;
        }
        write_synced(&folder.path.join("snapshot/sources.json"), snapshot.json().as_bytes())?;
        for synced in [folder.path.join("snapshot"), folder.path.clone(), self.runs()] {
            File::open(synced)?.sync_all()?;
        }
        let held = folder.hold()?.ok_or_else(|| io::Error::other("somebody else holds a run that was only now made"))?;
        Ok((folder, held))
    }

    fn folder(&self, id: &str) -> RunFolder {
        RunFolder { id: id.to_owned(), path: self.runs().join(id) }
    }

    /// Every run's id, oldest first.
    pub fn all(&self) -> Result<Vec<String>, String> {
        let entries = match fs::read_dir(self.runs()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(format!("cannot list {}: {e}", self.runs().display())),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<String> = names.filter(|name| is_run_id(name) && self.folder(name).journal().exists()).collect();
        ids.sort();
        Ok(ids)
    }

    /// The run that a person means: an id, a unique beginning of one, or `last`.
    pub fn find(&self, name: &str) -> Result<RunFolder, String> {
        let all = self.all()?;
        if name == "last" {
            return all.last().map(|id| self.folder(id)).ok_or_else(|| "there are no runs yet".to_owned());
        }
        if !is_run_id(name) {
            return Err(format!("`{name}` is not the id of a run; `runsheet runs` lists them"));
        }
        let found: Vec<&String> = all.iter().filter(|id| id.starts_with(name)).collect();
        match found.as_slice() {
            [id] => Ok(self.folder(id)),
            [] => Err(format!("there is no run `{name}`; `runsheet runs` lists them")),
            many => Err(format!("`{name}` may mean {} runs, {} and {} among them: type more of it", many.len(), many[0], many[1])),
        }
    }

    /// Takes locks for a run, all or none. Errors: the first that another run holds, and which run that is.
    pub fn lock(&self, names: &[String], run: &str) -> Result<Option<(String, String)>, String> {
        let failed = |e: io::Error| format!("cannot take a lock in {}: {e}", self.0.display());
        let folder = self.0.join("locks");
        make(&folder).map_err(failed)?;
        let guard = File::options().create(true).append(true).mode(0o600).open(folder.join(".guard")).map_err(failed)?;
        guard.lock().map_err(failed)?;
        for name in names {
            match fs::read_to_string(folder.join(lock_file(name))) {
                Ok(text) => {
                    let holder = text.lines().next().unwrap_or_default().to_owned();
                    if holder != run {
                        return Ok(Some((name.clone(), holder)));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            }
        }
        for name in names {
            write_synced(&folder.join(lock_file(name)), format!("{run}\n{name}\n").as_bytes()).map_err(failed)?;
        }
        Ok(None)
    }

    /// Gives back every lock that a run holds.
    pub fn unlock(&self, names: &[String], run: &str) {
        for name in names {
            let path = self.0.join("locks").join(lock_file(name));
            if fs::read_to_string(&path).is_ok_and(|text| text.lines().next() == Some(run)) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl RunFolder {
    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }
    /// Where requests to a runner are laid.
    pub fn inbox(&self) -> PathBuf {
        self.path.join("inbox")
    }
    /// The stem of the files with the output of one attempt.
    pub fn output(&self, step: &str, attempt: &str) -> PathBuf {
        self.path.join("out").join(format!("{}.{attempt}", step.replace('/', "+")))
    }
    /// Holds the run, unless another runner does.
    pub fn hold(&self) -> io::Result<Option<Held>> {
        let file = File::options().create(true).append(true).mode(0o600).open(self.path.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Held(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
    /// Whether a runner holds the run.
    pub fn is_held(&self) -> bool {
        matches!(self.hold(), Ok(None))
    }
    /// Puts a changed playbook in the snapshot's place; the one before is kept beside it.
    pub fn replace_snapshot(&self, snapshot: &Snapshot) -> io::Result<()> {
        let path = self.path.join("snapshot/sources.json");
        fs::copy(&path, self.path.join(format!("snapshot/sources.{}.json", crate::journal::now().as_millisecond())))?;
        let beside = path.with_extension("new");
        write_synced(&beside, snapshot.json().as_bytes())?;
        fs::rename(&beside, &path)?;
        File::open(self.path.join("snapshot"))?.sync_all()
    }
    /// The snapshot. Errors: it is not there, or not what was written.
    pub fn snapshot(&self) -> Result<Snapshot, String> {
        let path = self.path.join("snapshot/sources.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let snapshot: Snapshot = serde_json::from_str(&text).map_err(|e| format!("{} is not a snapshot: {e}", path.display()))?;
        if snapshot.format > SNAPSHOT {
            return Err(format!("{} has format {}; this runsheet reads formats up to {SNAPSHOT}", path.display(), snapshot.format));
        }
        Ok(snapshot)
    }
}

fn is_run_id(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// `20261123-031500-042117-x7k`: sorts by time, to the microsecond, and is unlike any other.
fn new_id() -> String {
    use std::hash::{BuildHasher, Hasher};
    let chance = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let letters = b"23456789abcdefghjkmnpqrstuvwxyz";
    let tail: String = (0..3).map(|i| letters[(chance >> (i * 8)) as usize % letters.len()] as char).collect();
    format!("{}-{tail}", crate::journal::now().strftime("%Y%m%d-%H%M%S-%6f"))
}

fn lock_file(name: &str) -> String {
    hex::encode(&Sha256::digest(name.as_bytes())[..16])
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The texts of a playbook and of all that it uses. `name` is a file, or the name of a library playbook. Gives the texts,
/// the key of the playbook, and the folder that relative paths start from.
pub fn load(name: &str) -> Result<(Sources, String, PathBuf), String> {
    let mut sources = Sources::default();
    let path = Path::new(name);
    let here = std::env::current_dir().map_err(|e| format!("cannot tell where this is: {e}"))?;
    let (root, directory) = if !path.exists() && playbooks::LIBRARY.iter().any(|(known, _)| *known == name) {
        (format!("library:{name}"), here)
    } else {
        let path = fs::canonicalize(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                format!("there is no file `{name}`, and no playbook of that name in the library (`runsheet library`)")
            }
            _ => format!("cannot read {name}: {e}"),
        })?;
        let file = path.file_name().and_then(|f| f.to_str()).ok_or_else(|| format!("{name} is no file"))?.to_owned();
        (file, path.parent().unwrap_or(Path::new("/")).to_owned())
    };
    let mut open = vec![root.clone()];
    while let Some(key) = open.pop() {
        if sources.0.contains_key(&key) {
            continue;
        }
        let shown = if key == root { name.to_owned() } else { key.clone() };
        let Some(text) = text(&key, &directory, key == root)? else { continue };
        open.extend(used(&text).filter_map(|uses| match Sources::resolve(&key, &uses) {
            crate::plan::Uses::Playbook(key) => Some(key),
            crate::plan::Uses::Kind(_) => None,
        }));
        sources.0.insert(key, Arc::new(Source { name: shown, text }));
    }
    Ok((sources, root, directory))
}

fn text(key: &str, directory: &Path, must_be: bool) -> Result<Option<String>, String> {
    if let Some(name) = key.strip_prefix("library:") {
        return Ok(playbooks::LIBRARY.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned()));
    }
    let path = directory.join(key);
    match fs::read(&path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|e| format!("{} is not UTF-8 at byte {}", path.display(), e.utf8_error().valid_up_to())),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !must_be => Ok(None),
        Err(e) => Err(format!("cannot read {}: {e}", path.display())),
    }
}

/// What the steps of a text use; nothing when it cannot be read, which `check` says.
fn used(text: &str) -> impl Iterator<Item = String> {
    let has_playbook = text.contains('/');
    let table = if has_playbook { toml::from_str::<toml::Table>(text).unwrap_or_default() } else { toml::Table::new() };
    let sections = ["steps", "always"].into_iter().filter_map(move |section| table.get(section)?.as_table().cloned());
    sections.flatten().filter_map(|(_, step)| Some(step.get("uses")?.as_str()?.to_owned()))
}
