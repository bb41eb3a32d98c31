//! The house: which part may know which.

use std::path::Path;

/// Arrows that never exist: a file (or folder) and the modules it may not name.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("book.rs", &["tokio", "std::fs", "crate::journal", "crate::engine", "crate::run", "crate::plan", "crate::store"]),
    ("expression.rs", &["tokio", "std::fs", "crate::journal", "crate::engine", "crate::run", "crate::plan"]),
    ("plan.rs", &["tokio", "std::fs", "crate::journal", "crate::engine", "crate::run", "crate::store"]),
    ("plan", &["tokio", "std::fs", "crate::journal", "crate::engine", "crate::run", "crate::store"]),
    ("event.rs", &["tokio", "std::fs", "crate::journal", "crate::engine", "crate::run", "crate::plan"]),
    ("run.rs", &["tokio", "std::fs", "crate::journal", "crate::engine", "crate::store"]),
    ("run", &["tokio", "std::fs", "crate::journal", "crate::engine", "crate::store"]),
    ("journal.rs", &["crate::plan", "crate::run", "crate::engine", "crate::book"]),
    ("engine.rs", &["crate::cli", "crate::report"]),
    ("engine", &["crate::cli", "crate::report"]),
    ("report.rs", &["crate::engine", "crate::cli"]),
    ("report", &["crate::engine", "crate::cli"]),
];

fn files(at: &Path) -> Vec<std::path::PathBuf> {
    if at.is_file() {
        return vec![at.to_owned()];
    }
    let entries = std::fs::read_dir(at).unwrap_or_else(|e| panic!("{}: {e}", at.display()));
    entries.flat_map(|entry| files(&entry.unwrap().path())).collect()
}

#[test]
fn arrows_that_never_exist() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (place, names) in FORBIDDEN {
        for file in files(&source.join(place)) {
            let text = std::fs::read_to_string(&file).unwrap();
            let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
            let flat = code.replace("use crate::{\n", "use crate::{").replace("    ", "");
            for name in *names {
                let module = name.strip_prefix("crate::");
                let grouped = module.is_some_and(|m| {
                    flat.contains("use crate::{")
                        && flat.lines().any(|l| l.starts_with(&format!("{m}::")) || l.starts_with(&format!("{m},")))
                });
                if code.contains(&format!("{name}::")) || code.contains(&format!("use {name}")) || grouped {
                    wrong.push(format!("{} names {name}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_kind_is_one_file_at_the_place_of_its_name_and_knows_no_other_kind() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../steps/src");
    for kind in steps::KINDS {
        let path = source.join(format!("{}.rs", kind.name.replace('.', "/")));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for other in steps::KINDS.iter().filter(|other| other.name != kind.name) {
            let module = format!("crate::{}::{{", other.name.replace('.', "::"));
            assert!(!text.contains(&module), "{} uses {}", kind.name, other.name);
        }
    }
}
