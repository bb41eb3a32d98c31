//! The examples: each console block of their READMEs is run as it stands there, and has to give what stands there.
//! `UPDATE=1` writes what it gives. Times, ids and hashes differ from run to run and are not compared.

use std::path::Path;

use crate::stage::{Ended, Stage, ended};

const PROMPT: &str = "$ cargo run --release -- ";
/// Where the runs of a README are kept, by whom and where they were begun.
const HOME: &str = "~/.local/state/runsheet";
const BY: &str = " UTC by ada on db1, ended";

#[test]
fn the_first_drill_is_what_its_readme_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let stage = Stage::new("");
    let runsheet = |arguments: &str| ended(stage.command(&words(arguments)).current_dir(&root).output().unwrap());
    let checked = runsheet("check --strict examples/first-drill/playbook.toml");
    assert_eq!(checked.code, 0, "{}", checked.stderr);

    let path = root.join("examples/first-drill/README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let mut now = String::new();
    let mut runs = Vec::new();
    for (at, part) in readme.split("```").enumerate() {
        if at > 0 {
            now += "```";
        }
        let Some(block) = part.strip_prefix("console\n").filter(|_| at % 2 == 1) else {
            now += part;
            continue;
        };
        now += "console\n";
        for arguments in block.lines().filter_map(|line| line.strip_prefix(PROMPT)) {
            let ran = runsheet(arguments);
            now += &format!("{PROMPT}{arguments}\n{}", shown(&ran, &stage));
            if arguments.starts_with("run ") {
                assert_eq!(left(&stage.path("home")), [""; 0], "databases are left after `{arguments}`: {}", ran.stderr);
                runs.push((ran, stage.show()));
            }
        }
    }
    let [(good, good_json), (bad, bad_json)] = &runs[..] else { panic!("two runs stand in {}", path.display()) };

    let verdict = &good_json["verdict"];
    assert_eq!(good.code, 0, "{}", good.stderr);
    assert_eq!((&verdict["outcome"], &verdict["verification"]), (&"succeeded".into(), &"passed".into()));
    assert_eq!((&verdict["rollback"], &verdict["always"]), (&"none".into(), &"succeeded".into()));
    for name in ["rto", "rpo"] {
        let measured = &verdict["objectives"][name];
        assert_eq!(measured["met"], true, "{measured}");
        assert!(measured["measured_s"].as_f64().unwrap() > 0.0, "{measured}");
    }
    let steps = &good_json["steps"];
    assert_eq!(steps["compare"]["outputs"]["identical"], false);
    assert!(steps["compare"]["outputs"]["rows"].as_u64().unwrap() > 261_001);
    assert!(steps["selling"]["began_at"].as_str() < steps["backup"]["ended_at"].as_str(), "the shop was not selling: {steps}");
    assert!(steps["backup"]["began_at"].as_str() < steps["selling"]["ended_at"].as_str(), "the shop was not selling: {steps}");

    let verdict = &bad_json["verdict"];
    assert_eq!(bad.code, 1, "{}", bad.stderr);
    assert_eq!((&verdict["outcome"], &verdict["rollback"]), (&"failed".into(), &"complete".into()));
    assert_eq!((&verdict["verification"], &verdict["always"]), (&"failed".into(), &"succeeded".into()));
    assert_eq!(verdict["objectives"]["rto"]["met"], false);
    assert_eq!(bad_json["steps"]["backup"]["undo"], "succeeded");
    assert_eq!(bad_json["steps"]["restore"]["state"], "not_reached");

    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).unwrap();
        return;
    }
    let (now, then) = (comparable(&now), comparable(&readme));
    if let Some((now, then)) = now.lines().zip(then.lines()).find(|(now, then)| now != then) {
        panic!("{} is not current, run UPDATE=1 cargo test:\n  there: {then}\n  now:   {now}", path.display());
    }
    assert_eq!(now.lines().count(), then.lines().count(), "{} is not current: run UPDATE=1 cargo test", path.display());
}

#[test]
fn the_first_drill_keeps_its_databases_when_told_to() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let stage = Stage::new("");
    let work = stage.path("work/here");
    let mut arguments =
        words("run examples/first-drill/playbook.toml --set keep=true --set").into_iter().map(str::to_owned).collect::<Vec<_>>();
    arguments.push(format!("work={}", work.display()));
    let run = |more: &[&str]| {
        let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        ended(stage.command(&all).current_dir(&root).output().unwrap())
    };
    let failed = run(&["--set", "damage=true"]);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert_eq!(left(&work), [""; 0], "a failed run keeps nothing");
    let kept = run(&[]);
    assert_eq!(kept.code, 0, "{}", kept.stderr);
    let left = left(&work);
    assert!(["shop.db", "shop.db.backup", "shop.db.restored"].iter().all(|name| left.iter().any(|l| l == name)), "{left:?}");
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// What of the output stands in a README: of a run only its end, since steps that run side by side may tell of themselves in any order.
fn shown(ran: &Ended, stage: &Stage) -> String {
    let mut text = ran.stdout.clone();
    let verdict = |line: &&str| line.starts_with("DONE") || line.starts_with("FAILED");
    ran.stderr.lines().skip_while(|line| !verdict(line)).for_each(|line| text += &format!("{line}\n"));
    text = text.replace(&stage.path("home").display().to_string(), HOME);
    if let (Some(from), Some(to)) = (text.find(" UTC by "), text.find(", ended")) {
        text.replace_range(from..to + ", ended".len(), BY);
    }
    text
}

/// A text without what differs from run to run, and with one blank where there are several.
fn comparable(text: &str) -> String {
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A word, with a sign in place of a time, a length of time, the id of a run or a hash.
fn word(word: &str) -> String {
    if let Some((before, rest)) = word.find("20").map(|at| word.split_at(at)) {
        let id = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len())];
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        if lengths.len() > 2 && lengths[..2] == [8, 6] {
            return format!("{before}ID{}", self::word(&rest[id.len()..]));
        }
    }
    let bare = word.trim_end_matches([',', ':', ';']);
    let end = &word[bare.len()..];
    let digits = bare.chars().filter(char::is_ascii_digit).count();
    let unit = bare.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    if digits > 0 && ["ms", "s", "m", "h"].contains(&unit) {
        return format!("LENGTH{end}");
    }
    if bare.len() >= 16 && bare.chars().all(|c| c.is_ascii_hexdigit()) {
        return format!("HASH{end}");
    }
    if digits >= 6 && bare.chars().all(|c| c.is_ascii_digit() || c == ':' || c == '-') {
        return format!("TIME{end}");
    }
    word.to_owned()
}

/// The names of all files of databases under a directory.
fn left(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            names.extend(left(&entry.path()));
        }
        if name.contains("shop") {
            names.push(name);
        }
    }
    names
}
