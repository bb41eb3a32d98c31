//! `check`: what is wrong is said before anything runs, all of it at once, at its place.

use crate::stage::Stage;

/// A playbook's lines below its head, and for each problem the line (in the whole text) and a part of what is said.
const CASES: &[(&str, &[(usize, &str)])] = &[
    ("[steps.a]\nuses = \"comand\"", &[(5, "there is no kind `comand`")]),
    ("[steps.a]\nuses = \"command\"\nwith.agrv = [\"x\"]", &[(4, "missing field `argv`"), (6, "no setting `agrv`")]),
    ("[steps.a]\nuses = \"command\"\nneed = [\"b\"]\nwith.argv = [\"x\"]", &[(6, "has no key `need`")]),
    ("[steps.a]\nuses = \"command\"\nhost = \"db1\"\nwith.argv = [\"x\"]", &[(6, "has no key `host`")]),
    ("[steps.a]\nuses = \"file.write\"\nwith = { path = 7, text = \"x\" }", &[(6, "invalid type")]),
    (
        "[steps.a]\nuses = \"command\"\nwith.argv = [\"{{ steps.b.nothing }}\"]\n[steps.b]\nuses = \"command\"\nwith.argv = [\"x\"]",
        &[(6, "`command` has no output `nothing`")],
    ),
    ("[steps.a]\nuses = \"command\"\nwith.argv = [\"{{ params.typo }}\"]", &[(6, "there is no `params.typo`")]),
    (
        "[steps.a]\nuses = \"command\"\nneeds = [\"b\"]\nwith.argv = [\"x\"]\n[steps.b]\nuses = \"command\"\nafter = [\"a\"]\nwith.argv = [\"x\"]",
        &[(4, "wait for each other")],
    ),
    (
        "[steps.a]\nuses = \"command\"\nwhen = \"1 == 2\"\nwith.argv = [\"x\"]\n[steps.b]\nuses = \"command\"\nwith.argv = [\"{{ steps.a.stdout }}\"]",
        &[(10, "may be skipped")],
    ),
    (
        "[secrets.p]\nfrom = \"env:P\"\n[steps.a]\nuses = \"command\"\nwith.argv = [\"{{ secrets.p }}\"]",
        &[(8, "a secret may not stand here")],
    ),
    ("[secrets.p]\nfrom = \"hunter2\"\n[steps.a]\nuses = \"command\"\nwith.argv = [\"x\"]", &[(5, "a secret comes from")]),
    ("[steps.a]\nuses = \"shell\"\nwith.script = \"rm {{ run.id }}\"", &[(6, "a template may not stand here")]),
    ("[steps.a]\nuses = \"command\"\nwith.argv = [\"x\"]\nexpect = [\"out.stdout > 5\"]", &[(7, "a text is compared with a number")]),
    ("[steps.a]\nuses = \"command\"\nwhen = \"run.id\"\nwith.argv = [\"x\"]", &[(6, "where true or false is wanted")]),
    (
        "[params.t]\ntype = \"timestamp\"\ndefault = \"2026-11-23T03:00:00\"\n[steps.a]\nuses = \"command\"\nwith.argv = [\"x\"]",
        &[(6, "has no zone")],
    ),
    ("[steps.a]\nuses = \"command\"\nwith = { argv = [\"x\"], }", &[(6, "TOML 1.1")]),
    ("[steps.a]\nuses = \"command\"\non_unknown = \"probe\"\nwith.argv = [\"x\"]", &[(6, "no `probe` to ask")]),
    ("[steps.a]\nuses = \"./missing.toml\"", &[(5, "there is no file missing.toml")]),
    ("[steps.a]\nuses = \"./playbook.toml\"", &[(5, "uses itself")]),
    (
        "[steps.a]\nuses = \"command\"\nwith.argv = [\"x\"]\n[steps.a.rollback]\nuses = \"command\"\non_unknown = \"fail\"\nwith.argv = [\"{{ steps.a.stdout }}\"]",
        &[(7, "`rerun` or `ask`"), (10, "only with a `default`")],
    ),
];

#[test]
fn every_mistake_is_said_at_its_place() {
    for (text, wanted) in CASES {
        let stage = Stage::new(&format!("runsheet = 1\n[playbook]\ntitle = \"x\"\n{text}\n"));
        let checked = stage.runsheet(&["check", "--format", "json", "playbook.toml"]);
        assert_eq!(checked.code, 2, "{text}");
        let said: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
        let errors: Vec<(u64, &str)> = said["problems"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["severity"] == "error")
            .map(|p| (p["line"].as_u64().unwrap(), p["message"].as_str().unwrap()))
            .collect();
        assert_eq!(errors.len(), wanted.len(), "{text}\n{errors:?}");
        for ((line, part), (at, says)) in wanted.iter().zip(&errors) {
            assert!(*at == *line as u64 && says.contains(part), "{text}\nwanted line {line}: {part}\ngot line {at}: {says}");
        }
    }
}

#[test]
fn a_problem_is_shown_with_its_line_underlined_and_a_hint() {
    let stage = Stage::new("runsheet = 1\n[playbook]\ntitle = \"x\"\n[steps.a]\nuses = \"file.wirte\"\n");
    let checked = stage.runsheet(&["check", "playbook.toml"]);
    let wanted = "error: there is no kind `file.wirte`\n --> playbook.toml:5:8\n  |\n5 | uses = \"file.wirte\"\n  |        ^^^^^^^^^^^^\n  |\nhelp: did you mean `file.write`?\n";
    assert!(checked.stderr.contains(wanted), "{}", checked.stderr);
}

#[test]
fn a_drill_that_verifies_nothing_and_a_recovery_that_leaves_failure_open_are_refused() {
    let with = |purpose: &str| {
        format!("runsheet = 1\n[playbook]\ntitle = \"x\"\npurpose = \"{purpose}\"\n[steps.a]\nuses = \"command\"\nwith.argv = [\"x\"]\n")
    };
    for (purpose, part) in [("drill", "verifies nothing"), ("recovery", "what happens after a failure")] {
        let checked = Stage::new(&with(purpose)).runsheet(&["check", "playbook.toml"]);
        assert!(checked.code == 2 && checked.stderr.contains(part), "{}", checked.stderr);
    }
}

#[test]
fn a_program_that_is_missing_is_said_before_anything_runs() {
    let text = "runsheet = 1\n[playbook]\ntitle = \"x\"\n[steps.a]\nuses = \"shell\"\nwith.script = 'echo a >> ledger'\n[steps.a.rollback]\nuses = \"command\"\nwith.argv = [\"no-such-program\"]\n";
    let stage = Stage::new(text);
    let ran = stage.run(&[]);
    assert!(ran.code == 2 && ran.stderr.contains("`no-such-program` is not in PATH"), "{}", ran.stderr);
    assert!(stage.ledger().is_empty());
}

#[test]
fn mutated_playbooks_never_panic_and_every_problem_has_a_place() {
    use std::sync::Arc;
    let good = include_str!("../examples/first-drill/playbook.toml");
    let mut state = 42_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..300 {
        let mut text = good.as_bytes().to_vec();
        for _ in 0..=next(4) {
            let at = next(text.len());
            match next(4) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, b"{}[]\"'=.,#\\\n a1"[next(15)]),
                2 => text.truncate(at.max(20)),
                _ => text[at] = b"{}[]\"'=.,#\\\n a1"[next(15)],
            }
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let source = Arc::new(runsheet::book::Source { name: "x".into(), text: text.clone() });
        let (_, problems) = runsheet::plan::plan(&runsheet::plan::Sources([("x".to_owned(), source)].into()), "x");
        for problem in problems {
            assert!(problem.at.start <= problem.at.end && problem.at.end <= text.len(), "{problem:?}");
        }
    }
}
