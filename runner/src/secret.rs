//! Where secrets come from. They are fetched when the first step that takes one begins, and go nowhere but to that step
//! and to the redactor.

#![expect(clippy::disallowed_methods, reason = "secrets come from the environment, files and programs")]

use std::{collections::HashMap, path::Path, process::Command, sync::Arc};

use steps::redact::Redactor;

/// The shortest text that can be kept out of output: a shorter one would redact half of it.
const SHORTEST: usize = 6;

/// The secrets of a run, as far as steps have asked for them.
#[derive(Default)]
pub struct Secrets {
    known: HashMap<String, String>,
    redactor: Arc<Redactor>,
}

impl Secrets {
    /// The secret from this source. Errors: it is not there, or too short to be kept out of output.
    pub fn get(&mut self, from: &str, directory: &Path) -> Result<String, String> {
        if let Some(secret) = self.known.get(from) {
            return Ok(secret.clone());
        }
        let secret = fetch(from, directory)?;
        if secret.len() < SHORTEST {
            return Err(format!("the secret from `{from}` has fewer than {SHORTEST} characters: it could not be kept out of output"));
        }
        self.known.insert(from.to_owned(), secret.clone());
        self.redactor = Arc::new(Redactor::new(self.known.values().map(String::as_str)));
        Ok(secret)
    }
    /// Takes every secret that is known out of a text.
    pub fn redactor(&self) -> Arc<Redactor> {
        self.redactor.clone()
    }
}

fn fetch(from: &str, directory: &Path) -> Result<String, String> {
    let (scheme, rest) = from.split_once(':').ok_or_else(|| format!("`{from}` is no source of a secret"))?;
    let text = match scheme {
        "env" => std::env::var(rest).map_err(|_| format!("the environment variable {rest} is not set: export it before the run"))?,
        "file" => read(&directory.join(rest))?,
        "credential" => {
            let folder = std::env::var("CREDENTIALS_DIRECTORY")
                .map_err(|_| "there are no systemd credentials here: use LoadCredential= in the unit".to_owned())?;
            if rest.contains('/') || rest.starts_with('.') {
                return Err(format!("`{rest}` is not the name of a credential"));
            }
            read(&Path::new(&folder).join(rest))?
        }
        "command" => run(rest, directory)?,
        _ => return Err(format!("`{from}` is no source of a secret")),
    };
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read the secret in {}: {e}", path.display()))
}

fn run(line: &str, directory: &Path) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program)
        .args(words)
        .current_dir(directory)
        .output()
        .map_err(|e| format!("cannot run `{program}` for a secret: {e}"))?;
    if !output.status.success() {
        return Err(format!("`{program}`, which should give a secret, ended with {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{program}` gave a secret that is not text"))
}
