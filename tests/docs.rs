//! The documents: every playbook in them is checked, every command of the README is run, every key and filter is there.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use runsheet::{book, expression};
use schemars::{JsonSchema, schema_for};

use crate::stage::{Stage, ended};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// README.md and docs/*.md, with their names.
fn pages() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root().join("docs")).unwrap().map(|e| format!("docs/{}", e.unwrap().file_name().to_string_lossy()));
    let mut names: Vec<String> = entries.filter(|name| name.ends_with(".md")).chain(["README.md".to_owned()]).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// The fenced blocks of a language, each with the text before it.
fn blocks<'t>(page: &'t str, language: &str) -> Vec<(&'t str, &'t str)> {
    let (open, mut found, mut from) = (format!("```{language}\n"), Vec::new(), 0);
    while let Some(at) = page[from..].find(&open).map(|at| from + at) {
        let start = at + open.len();
        let end = start + page[start..].find("\n```").expect("a block that is closed") + 1;
        found.push((&page[..at], &page[start..end]));
        from = end;
    }
    found
}

/// The whole playbooks of a page with their file names: that of the remark on the first line, else a number.
fn playbooks(page: &str) -> Vec<(String, &str)> {
    let whole = blocks(page, "toml").into_iter().map(|(_, block)| block).filter(|block| block.starts_with("runsheet = 1"));
    let named = |(at, block): (usize, &str)| {
        block.lines().next().and_then(|l| l.split_once("# ")).map_or(format!("block{at}.toml"), |(_, name)| name.to_owned())
    };
    whole.enumerate().map(|(at, block)| (named((at, block)), block)).collect()
}

#[test]
fn every_playbook_of_the_documents_passes_check() {
    let mut count = 0;
    for (name, page) in pages() {
        let stage = Stage::new("");
        let all = playbooks(&page);
        all.iter().for_each(|(file, text)| stage.write(file, text));
        for (file, text) in &all {
            let checked = stage.runsheet(&["check", "--strict", file]);
            assert_eq!(checked.code, 0, "{name}:\n{text}\n{}", checked.stderr);
            count += 1;
        }
    }
    assert!(count >= 9, "only {count} playbooks were found");
}

fn keys<T: JsonSchema>() -> Vec<String> {
    let schema = schema_for!(T).to_value();
    let keys: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    assert!(!keys.is_empty());
    keys
}

#[test]
fn every_key_type_and_filter_of_the_language_is_in_its_reference() {
    let page = read("docs/language.md");
    let section = |heading: &str| {
        let start = page.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("there is no section {heading}"));
        let rest = &page[start + 1..];
        let depth = rest.find(' ').unwrap();
        // Up to the next heading that is not deeper.
        let end = rest.match_indices("\n#").map(|(at, _)| at).find(|at| rest[at + 1..].find(' ').unwrap() <= depth);
        &rest[..end.unwrap_or(rest.len())]
    };
    let extra = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let mut wrong = Vec::new();
    for (heading, keys) in [
        (
            "## The tables",
            extra(&["runsheet", "[playbook]", "[params.ID]", "[secrets.ID]", "[steps.ID]", "[always.ID]", "[outputs]", "[objectives]"]),
        ),
        ("## `[playbook]`", keys::<book::Head>()),
        ("## `[params.ID]`", keys::<book::Param>()),
        (
            "## `[params.ID]`",
            extra(&["string", "int", "float", "bool", "duration", "size", "path", "timestamp", "choice", "list", "secret"]),
        ),
        ("## `[secrets.ID]`", keys::<book::SecretText>()),
        ("## `[steps.ID]` and `[always.ID]`", [keys::<book::StepHead>(), extra(&["with", "rollback", "probe"])].concat()),
        ("### `retry`", keys::<book::Retry>()),
        ("### Handlers", [keys::<book::HandlerHead>(), extra(&["with"])].concat()),
        ("## `[objectives]`", [keys::<book::Rto>(), keys::<book::Rpo>(), extra(&["rto", "rpo"])].concat()),
        ("## Expressions", expression::FILTERS.iter().map(|(name, _)| (*name).to_owned()).collect()),
    ] {
        let text = section(heading);
        let missing = keys.iter().filter(|key| !text.contains(&format!("`{key}`")));
        wrong.extend(missing.map(|key| format!("{heading}: `{key}` is missing")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One command of a console block: its line, the exit code that is told, and the output that is shown.
struct Shown<'t> {
    line: &'t str,
    code: i32,
    output: Vec<&'t str>,
}

fn shown(block: &str) -> Vec<Shown<'_>> {
    let mut all: Vec<Shown<'_>> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(line), _) => {
                let code = line.split_once("# exit code ").map_or(0, |(_, code)| code.trim().parse().unwrap());
                all.push(Shown { line, code, output: Vec::new() });
            }
            (None, Some(last)) => last.output.push(line),
            (None, None) => panic!("a console block begins with `$ `: {line}"),
        }
    }
    all
}

/// The first words of a line, without what differs from run to run: times, ids, numbers, folders.
fn first_words(line: &str) -> Vec<String> {
    let word = |w: &str| match w.trim_start_matches('(').chars().next() {
        Some('0'..='9') => "#".to_owned(),
        Some('/') => "/".to_owned(),
        _ => w.to_owned(),
    };
    line.split_whitespace().take(4).map(word).collect()
}

#[test]
fn the_commands_of_the_readme_do_what_it_shows() {
    let page = read("README.md");
    let stage = Stage::new("");
    std::fs::remove_file(stage.path("playbook.toml")).unwrap();
    std::fs::remove_file(stage.path("ledger")).unwrap();
    let (before, playbook) = blocks(&page, "toml")[0];
    let name = before.rsplit('`').nth(1).unwrap();
    assert_eq!(name, "keep.toml", "the README says how to name its playbook");
    stage.write(name, playbook);
    let home = tempfile::tempdir().unwrap();
    let mut count = 0;
    for shown in blocks(&page, "console").into_iter().flat_map(|(_, block)| shown(block)) {
        // Runs are listed by the second in which they began.
        let script = format!("runsheet() {{ \"$RUNSHEET\" \"$@\"; }}\nexec 2>&1\n{}\n", shown.line);
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(stage.path("")).stdin(Stdio::null());
        let ran = ended(command.env("RUNSHEET", env!("CARGO_BIN_EXE_runsheet")).env("RUNSHEET_HOME", home.path()).output().unwrap());
        assert_eq!(ran.code, shown.code, "{}\n{}", shown.line, ran.stdout);
        let got: Vec<_> = ran.stdout.lines().map(first_words).collect();
        let mut wanted: Vec<_> = shown.output.iter().map(|line| first_words(line)).collect();
        // An ellipsis stands for the rest.
        let rest = wanted.last().is_some_and(|last| last[..] == ["…"]);
        wanted.truncate(wanted.len() - usize::from(rest));
        let same = if rest { got.starts_with(&wanted) } else { got == wanted };
        assert!(same, "{}\nshown:\n{}\ngot:\n{}", shown.line, shown.output.join("\n"), ran.stdout);
        count += 1;
    }
    assert!(count >= 6, "only {count} commands were found");
}

#[test]
fn the_readme_names_every_command_that_it_should_run() {
    let page = read("README.md");
    for line in ["cargo run --release -- run examples/first-drill/playbook.toml", "tests/setup && cargo test --workspace"] {
        assert!(blocks(&page, "sh").iter().any(|(_, block)| block.trim() == line), "{line}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for (name, page) in pages() {
        let folder = root().join(&name).parent().unwrap().to_owned();
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if !target.contains("://") && !file.is_empty() && !folder.join(file).exists() {
                wrong.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let stage = Stage::new("");
    let help = stage.runsheet(&["--help"]).stdout;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // A command's line is indented by two; a wrapped sentence by more.
    let commands: Vec<&str> =
        list.lines().filter(|l| !l.starts_with("   ")).filter_map(|l| l.split_whitespace().next()).filter(|c| *c != "help").collect();
    assert!(commands.len() >= 16, "{commands:?}");
    for command in commands {
        let help = stage.runsheet(&[command, "--help"]);
        assert_eq!(help.code, 0, "{command}");
        let example = help.stdout.split("Example:\n").nth(1).unwrap_or_else(|| panic!("`{command} --help` has no example"));
        assert!(example.trim_start().starts_with(&format!("runsheet {command}")), "{command}: {example}");
    }
}
