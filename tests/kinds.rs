//! Promises of all kinds, in one loop over the table of kinds.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use steps::{
    KINDS,
    step::{Answer, AnyStep, Reversal},
    world::{Attempt, Surroundings, View, World, search_path},
};

/// A folder with what the examples of the kinds lean on.
fn stage() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(path("data/sub")).unwrap();
    std::fs::write(path("data/a.txt"), "hello\n").unwrap();
    let bytes: Vec<u8> = (0..65536_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(path("data/sub/b.bin"), bytes).unwrap();
    std::fs::write(path("old.txt"), "old\n").unwrap();
    let db = rusqlite::Connection::open(path("shop.db")).unwrap();
    db.execute_batch(
        "create table orders(id integer primary key, total integer, placed_at text);
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
         insert into orders select i, i * 7 % 1000, strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-' || i || ' seconds') from n;",
    )
    .unwrap();
    drop(db);
    std::fs::copy(path("shop.db"), path("copy.db")).unwrap();
    dir
}

/// Everything below a folder: names, bytes, modes.
fn tree(at: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt;
    let (mut all, mut open) = (BTreeMap::new(), vec![at.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let bytes = if meta.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
            all.insert(path.strip_prefix(at).unwrap().display().to_string(), (meta.mode(), bytes));
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    all
}

fn view(at: &Path) -> View {
    let path = std::env::var("PATH").unwrap();
    View::new(Surroundings { directory: at.to_owned(), search: search_path(&path).unwrap(), environment: vec![("PATH".into(), path)] })
}

fn world(view: &View) -> World {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    std::mem::forget(stop);
    let answer = Answer { by: "ann".into(), at: "2026-11-23T03:00:00Z".into(), reason: "agreed".into() };
    let attempt = Attempt {
        output: None,
        redactor: Arc::default(),
        progress: Box::new(|_, _, _| {}),
        answers: vec![answer],
        stop: stopped,
        grace: Duration::from_secs(1),
        captured: Mutex::default(),
        evaluate: Box::new(|text, out| {
            let expression = runsheet::expression::Expression::parse(text).map_err(|w| w.says)?;
            let names = runsheet::expression::names([("out", runsheet::expression::value(out))].into());
            expression.holds(&names).map_err(|w| w.says)?.ok_or_else(|| "unknown".into())
        }),
    };
    World::new(view.clone(), Arc::new(attempt))
}

fn read(kind: &steps::step::Kind, example: &str) -> Box<dyn AnyStep> {
    let with: toml::Table = toml::from_str(example).unwrap_or_else(|e| panic!("{}: {e}\n{example}", kind.name));
    (kind.read)(serde_json::to_value(with).unwrap()).unwrap_or_else(|e| panic!("{}: {} at {:?}\n{example}", kind.name, e.says, e.path))
}

/// What a manifest or a verification in the examples leans on is made by the kinds that make it.
async fn prepared(dir: &Path) {
    let kind = steps::kind("file.checksum").unwrap();
    let step = read(kind, "path = \"data\"\nmanifest = \"manifest.json\"");
    let view = view(dir);
    let before = step.look(&view).await.unwrap();
    step.apply(&world(&view), &before).await.unwrap();
}

#[test]
fn every_promise_of_every_kind() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for kind in KINDS {
        assert!(!kind.examples.is_empty(), "{} has no example", kind.name);
        for example in kind.examples {
            runtime.block_on(async {
                let dir = stage();
                prepared(dir.path()).await;
                let what = format!("{}\n{example}", kind.name);
                let (step, view) = (read(kind, example), view(dir.path()));
                let start = tree(dir.path());
                let before = step.look(&view).await.unwrap_or_else(|e| panic!("{what}: look: {}", e.says()));
                assert!(!step.say(&before).unwrap().is_empty(), "{what}");
                assert_eq!(tree(dir.path()), start, "{what}: looking changed something");
                let before: Value = serde_json::from_str(&before.to_string()).unwrap();
                let outputs = step.apply(&world(&view), &before).await.unwrap_or_else(|e| panic!("{what}: apply: {}", e.says()));
                declared(kind, &outputs);
                let once = tree(dir.path());
                let again = step.apply(&world(&view), &before).await;
                assert!(again.is_ok(), "{what}: the second apply: {}", again.unwrap_err().says());
                assert!(same(&tree(dir.path()), &once, kind.name), "{what}: applying twice did harm");
                if step.reversal() == Reversal::Never {
                    return;
                }
                for _ in 0..2 {
                    step.undo(&world(&view), &before).await.unwrap_or_else(|e| panic!("{what}: undo: {}", e.says()));
                }
                if step.reversal() == Reversal::Exact {
                    let (now, start) = (tree(dir.path()), start);
                    assert_eq!(now.keys().collect::<Vec<_>>(), start.keys().collect::<Vec<_>>(), "{what}: undo is not exact");
                    assert!(now == start, "{what}: undo left other bytes or modes");
                }
            });
        }
    }
}

/// Backups of one database made twice have the same names; their bytes may differ in a counter.
fn same(a: &BTreeMap<String, (u32, Vec<u8>)>, b: &BTreeMap<String, (u32, Vec<u8>)>, kind: &str) -> bool {
    if kind.starts_with("sqlite.") { a.keys().eq(b.keys()) } else { a == b }
}

/// Every output that a kind gives is declared, or a playbook could not name it.
fn declared(kind: &steps::step::Kind, outputs: &Value) {
    let schema = (kind.output)().to_value();
    for name in outputs.as_object().unwrap().keys() {
        assert!(schema["properties"].get(name).is_some(), "{} gives `{name}` and does not declare it", kind.name);
    }
}

#[test]
fn every_kind_setting_and_output_has_a_sentence() {
    let mut wanting = Vec::new();
    for kind in KINDS {
        for (what, schema) in [("settings", (kind.settings)().to_value()), ("outputs", (kind.output)().to_value())] {
            if schema["description"].as_str().unwrap_or_default().is_empty() {
                wanting.push(format!("{} {what}", kind.name));
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if property["description"].as_str().unwrap_or_default().is_empty() {
                    wanting.push(format!("{} {what}.{name}", kind.name));
                }
            }
        }
    }
    assert!(wanting.is_empty(), "without a sentence: {}", wanting.join(", "));
}

#[test]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../steps/REFERENCE.md");
    let wanted = steps::reference::reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == wanted, "steps/REFERENCE.md is not current: run UPDATE=1 cargo test");
}
