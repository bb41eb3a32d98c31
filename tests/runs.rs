//! Runs: order, rollback, decisions, gates, retries, cancel, resume; judged by the ledger that the steps write.

use std::process::Command;

use crate::stage::{Stage, ended, playbook, step};

fn before(ledger: &[String], first: &str, second: &str) {
    let at = |line: &str| ledger.iter().position(|l| l == line).unwrap_or_else(|| panic!("`{line}` is not in {ledger:?}"));
    assert!(at(first) < at(second), "`{first}` should stand before `{second}` in {ledger:?}");
}

#[test]
fn a_diamond_runs_in_order_and_side_by_side() {
    let text = playbook(
        "parallel = 2",
        &[step("a", ""), step("b", "needs = [\"a\"]"), step("c", "needs = [\"a\"]"), step("d", "needs = [\"b\", \"c\"]")],
    );
    let stage = Stage::new(&text);
    let ran = stage.run(&["--set", "b_s=0.5", "--set", "c_s=0.5"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ledger = stage.ledger();
    before(&ledger, "end a", "start b");
    before(&ledger, "start b", "end c");
    before(&ledger, "start c", "end b");
    before(&ledger, "end c", "start d");
    assert_eq!(ledger.len(), 8);
    let shown = stage.show();
    assert_eq!(shown["verdict"]["outcome"], "succeeded");
    assert_eq!(shown["verdict"]["rollback"], "none");
}

#[test]
fn a_failure_undoes_what_was_attempted_in_reverse_late_successes_too() {
    let text = playbook(
        "parallel = 2",
        &[step("a", ""), step("b", "needs = [\"a\"]"), step("late", "needs = [\"a\"]"), step("d", "needs = [\"b\"]")],
    );
    let stage = Stage::new(&text);
    let ran = stage.run(&["--set", "b_exit=3", "--set", "late_s=0.6"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let ledger = stage.ledger();
    before(&ledger, "end late", "undo late");
    before(&ledger, "undo b", "undo a");
    before(&ledger, "undo late", "undo a");
    assert!(!ledger.contains(&"start d".to_owned()) && !ledger.contains(&"undo d".to_owned()));
    let shown = stage.show();
    assert_eq!(shown["verdict"]["outcome"], "failed");
    assert_eq!(shown["verdict"]["rollback"], "complete");
    assert_eq!(shown["steps"]["d"]["state"], "not_reached");
    assert_eq!(shown["steps"]["b"]["undo"], "succeeded");
}

#[test]
fn skip_is_not_reached_for_needs_and_goes_on_for_after() {
    let text = playbook("", &[step("a", "when = \"params.a_s == 'never'\""), step("b", "needs = [\"a\"]"), step("c", "after = [\"a\"]")]);
    let stage = Stage::new(&text);
    assert_eq!(stage.run(&[]).code, 0);
    assert_eq!(stage.ledger(), ["start c", "end c"]);
    let shown = stage.show();
    assert_eq!((shown["steps"]["a"]["state"].as_str(), shown["steps"]["b"]["state"].as_str()), (Some("skipped"), Some("not_reached")));
    assert!(shown["steps"]["b"]["error"].as_str().unwrap().contains("it needs `a`, which was skipped"));
}

#[test]
fn always_steps_run_in_every_case_after_the_rollback() {
    let always = "[always.z]\nuses = \"shell\"\nwith.script = 'echo \"always $OUTCOME\" >> ledger'\nwith.env = { OUTCOME = \"{{ run.outcome }}\" }\n".to_owned();
    let text = playbook("", &[step("a", ""), always]);
    let stage = Stage::new(&text);
    assert_eq!(stage.run(&[]).code, 0);
    assert_eq!(stage.run(&["--set", "a_exit=1"]).code, 1);
    assert_eq!(stage.ledger(), ["start a", "end a", "always succeeded", "start a", "end a", "undo a", "always failed"]);
}

#[test]
fn retry_ends_as_recovered_and_timeouts_end_the_program() {
    let flaky = "[steps.flaky]\nuses = \"shell\"\nretry = { attempts = 3, delay = \"50ms\" }\nwith.script = 'echo try >> ledger; test $(wc -l < ledger) -ge 3'\n".to_owned();
    let stage = Stage::new(&playbook("", &[flaky]));
    assert_eq!(stage.run(&[]).code, 0);
    let shown = stage.show();
    assert_eq!((shown["steps"]["flaky"]["state"].as_str(), shown["steps"]["flaky"]["attempts"].as_u64()), (Some("recovered"), Some(3)));
    assert_eq!(shown["verdict"]["outcome"], "recovered");

    let stage = Stage::new(&playbook("", &[step("slow", "timeout = \"300ms\"")]));
    assert_eq!(stage.run(&["--set", "slow_s=30"]).code, 1);
    assert_eq!(stage.ledger(), ["start slow", "undo slow"]);
}

#[test]
fn pause_waits_for_each_decision() {
    for (decision, wanted, rest) in [("skip", "skipped", None), ("done", "recovered", Some("start b"))] {
        let stage = Stage::new(&playbook("on_failure = \"pause\"", &[step("a", ""), step("b", "needs = [\"a\"]")]));
        assert_eq!(stage.run(&["--set", "a_exit=1"]).code, 5);
        assert_eq!(stage.show()["state"], "paused");
        assert_eq!(stage.runsheet(&["decide", "last", "a", "approve", "--reason", "x"]).code, 2);
        let decided = stage.runsheet(&["decide", "last", "a", decision, "--reason", "seen to"]);
        assert_eq!(decided.code, 0, "{}", decided.stderr);
        let resumed = stage.runsheet(&["resume", "last"]);
        assert_eq!(resumed.code, 0, "{}", resumed.stderr);
        let shown = stage.show();
        assert_eq!(shown["steps"]["a"]["state"], wanted);
        assert_eq!(shown["verdict"]["outcome"], "recovered");
        assert_eq!(stage.ledger().iter().any(|l| l == "start b"), rest.is_some());
    }
    let stage = Stage::new(&playbook("on_failure = \"pause\"", &[step("a", "")]));
    assert_eq!(stage.run(&["--set", "a_exit=1"]).code, 5);
    assert_eq!(stage.runsheet(&["decide", "last", "a", "retry", "--reason", "again"]).code, 0);
    assert_eq!(stage.runsheet(&["resume", "last"]).code, 5, "it fails again, and pauses again");
    assert_eq!(stage.runsheet(&["rollback", "last", "--reason", "enough"]).code, 1);
    assert_eq!(stage.ledger(), ["start a", "end a", "start a", "end a", "undo a"]);
}

#[test]
fn a_gate_waits_for_different_people_in_their_role() {
    let gate =
        "[steps.go]\nuses = \"gate.approval\"\nwith = { roles = [\"ops-lead\"], count = 2, not_requester = true, question = \"Go?\" }\n"
            .to_owned();
    let stage = Stage::new(&playbook("", &[gate, step("a", "needs = [\"go\"]")]));
    let decide = |more: &[&str]| stage.runsheet(&[&["decide", "last", "go", "approve", "--reason", "ok"], more].concat());
    assert_eq!(
        stage.command(&["run", "playbook.toml"]).env("USER", "eve").env_remove("SUDO_USER").output().unwrap().status.code(),
        Some(5)
    );
    assert_eq!(decide(&["--by", "ann"]).code, 2, "no role");
    assert_eq!(decide(&["--by", "eve", "--role", "ops-lead"]).code, 2, "the requester");
    assert_eq!(decide(&["--by", "ann", "--role", "ops-lead"]).code, 0);
    assert_eq!(decide(&["--by", "ann", "--role", "ops-lead"]).code, 2, "the same person");
    assert_eq!(stage.runsheet(&["resume", "last"]).code, 5, "one is not enough");
    assert!(stage.ledger().is_empty());
    assert_eq!(decide(&["--by", "bob", "--role", "ops-lead"]).code, 0);
    assert_eq!(stage.runsheet(&["resume", "last"]).code, 0);
    assert_eq!(stage.ledger(), ["start a", "end a"]);
    assert_eq!(stage.show()["steps"]["go"]["outputs"]["decided_by"], "ann, bob");
}

#[test]
fn ctrl_c_ends_what_runs_and_undoes_it() {
    let stage = Stage::new(&playbook("", &[step("a", ""), step("b", "needs = [\"a\"]"), step("c", "needs = [\"b\"]")]));
    let child = stage.start(&["run", "playbook.toml", "--set", "b_s=60"]);
    stage.until("b runs", |s| s.ledger().contains(&"start b".to_owned()));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ran = ended(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.stderr);
    assert_eq!(stage.ledger(), ["start a", "end a", "start b", "undo b", "undo a"]);
    assert_eq!(stage.show()["verdict"]["outcome"], "cancelled");
}

#[test]
fn cancel_from_elsewhere_reaches_the_runner() {
    let stage = Stage::new(&playbook("", &[step("a", "")]));
    let child = stage.start(&["run", "playbook.toml", "--set", "a_s=60"]);
    stage.until("a runs", |s| s.ledger().contains(&"start a".to_owned()));
    let asked = stage.runsheet(&["cancel", "last", "--reason", "wrong cluster"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert_eq!(ended(child.wait_with_output().unwrap()).code, 130);
    assert_eq!(stage.ledger(), ["start a", "undo a"]);
}

#[test]
fn a_killed_runner_leaves_a_run_that_resumes_correctly() {
    for (more, wanted_code, rest) in [
        ("on_unknown = \"rerun\"", 0, vec!["start b", "end b", "end c"]),
        ("on_unknown = \"fail\"", 1, vec!["undo b", "undo a"]),
        ("", 5, vec![]),
    ] {
        let stage =
            Stage::new(&playbook("", &[step("a", ""), step("b", &format!("needs = [\"a\"]\n{more}")), step("c", "needs = [\"b\"]")]));
        let mut child = stage.start(&["run", "playbook.toml", "--set", "b_s=1"]);
        stage.until("b runs", |s| s.ledger().contains(&"start b".to_owned()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(stage.show()["state"], "dead");
        // Without a supervisor the step goes on by itself; its end is not the runner's to know.
        stage.until("the orphan ends", |s| s.ledger().contains(&"end b".to_owned()));
        let resumed = stage.runsheet(&["resume", "last"]);
        assert_eq!(resumed.code, wanted_code, "{more}: {}", resumed.stderr);
        let ledger = stage.ledger();
        assert_eq!(ledger.iter().filter(|l| *l == "start a").count(), 1, "{more}: a step that succeeded never runs again");
        let tail: Vec<&str> = ledger[4..].iter().map(String::as_str).filter(|l| *l != "start c").collect();
        assert_eq!(tail, rest, "{more}");
        if wanted_code == 5 {
            assert_eq!(stage.show()["steps"]["b"]["state"], "unknown");
            assert_eq!(stage.runsheet(&["decide", "last", "b", "done", "--reason", "I saw it"]).code, 0);
            assert_eq!(stage.runsheet(&["resume", "last"]).code, 0);
        }
        assert_eq!(stage.runsheet(&["verify", "last"]).code, 0);
    }
}

#[test]
fn a_probe_tells_whether_it_happened() {
    for (probe, again) in [("true", false), ("false", true)] {
        let more = format!("[steps.b.probe]\nuses = \"command\"\nwith.argv = [\"{probe}\"]");
        let stage = Stage::new(&playbook("", &[step("b", &more)]));
        let mut child = stage.start(&["run", "playbook.toml", "--set", "b_s=1"]);
        stage.until("b runs", |s| s.ledger().contains(&"start b".to_owned()));
        child.kill().unwrap();
        child.wait().unwrap();
        stage.until("the orphan ends", |s| s.ledger().contains(&"end b".to_owned()));
        assert_eq!(stage.runsheet(&["resume", "last"]).code, 0);
        assert_eq!(stage.ledger().iter().filter(|l| *l == "start b").count(), if again { 2 } else { 1 });
    }
}

#[test]
fn a_runner_killed_in_rollback_resumes_in_rollback() {
    let slow = step("b", "needs = [\"a\"]")
        .replace("echo \"undo $STEP\" >> ledger", "echo \"undo $STEP\" >> ledger; sleep 1; echo \"undone $STEP\" >> ledger");
    let stage = Stage::new(&playbook("", &[step("a", ""), slow, step("c", "needs = [\"b\"]")]));
    let mut child = stage.start(&["run", "playbook.toml", "--set", "b_exit=1"]);
    stage.until("b is being undone", |s| s.ledger().contains(&"undo b".to_owned()));
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = stage.runsheet(&["resume", "last"]);
    assert_eq!(resumed.code, 1, "{}", resumed.stderr);
    let ledger = stage.ledger();
    assert!(!ledger.contains(&"start c".to_owned()), "never forward: {ledger:?}");
    before(&ledger, "undone b", "undo a");
    assert_eq!(stage.show()["verdict"]["rollback"], "complete");
}

#[test]
fn a_handler_that_fails_keeps_what_it_depends_on_from_being_undone() {
    let bad = step("b", "needs = [\"a\"]").replace("echo \"undo $STEP\" >> ledger", "exit 1");
    let stage = Stage::new(&playbook("", &[step("a", ""), bad, step("x", ""), step("c", "needs = [\"b\", \"x\"]")]));
    assert_eq!(stage.run(&["--set", "c_exit=1"]).code, 3);
    let ledger = stage.ledger();
    assert!(ledger.contains(&"undo x".to_owned()) && !ledger.contains(&"undo a".to_owned()), "{ledger:?}");
    let shown = stage.show();
    assert_eq!(shown["verdict"]["rollback"], "incomplete");
    assert!(shown["verdict"]["left"].as_array().unwrap().len() == 2, "{shown}");
}

#[test]
fn locks_keep_runs_apart() {
    let stage = Stage::new(&playbook("locks = [\"db:{{ params.a_exit }}\"]", &[step("a", "")]));
    let child = stage.start(&["run", "playbook.toml", "--set", "a_s=2"]);
    stage.until("a runs", |s| s.ledger().contains(&"start a".to_owned()));
    let refused = stage.run(&[]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("the lock `db:0` is held by run"), "{}", refused.stderr);
    assert_eq!(ended(child.wait_with_output().unwrap()).code, 0);
    assert_eq!(stage.run(&[]).code, 0);
}

#[test]
fn secrets_reach_the_step_and_nothing_else() {
    let steps = r#"
[secrets.password]
from = "env:CANARY"
[steps.a]
uses = "shell"
with.script = 'test ${#PASSWORD} = 14 && echo "raw $PASSWORD"; printf %s "$PASSWORD" | base64 >&2'
with.env = { PASSWORD = "{{ secrets.password }}" }
"#;
    let stage = Stage::new(&playbook("", &[steps.to_owned()]));
    let ran = ended(stage.command(&["run", "playbook.toml", "--format", "json"]).env("CANARY", "tweet-tweet-42").output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(stage.show()["steps"]["a"]["outputs"]["stdout"], "raw ‹secret›");
    let found = Command::new("grep").args(["-rE", "tweet-tweet-42|dHdlZXQtdHdlZXQtND"]).arg(stage.path("home")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert!(!ran.stdout.contains("tweet") && !ran.stderr.contains("tweet"));
}

#[test]
fn loops_and_playbooks_within_are_steps_with_paths() {
    let outer = r#"
[steps.each]
uses = "./inner.toml"
for_each = ["x", "y"]
as = "name"
with.name = "{{ name }}"
[steps.dynamic]
uses = "shell"
for_each = "steps.list.lines"
with.script = 'echo "$ITEM" >> ledger'
with.env = { ITEM = "{{ item }}" }
[steps.list]
uses = "command"
effect = "read"
with.argv = ["printf", "1\n2\n"]
with.parse = "lines"
[steps.last]
uses = "assert"
with.that = ["steps.each.count == 2", "steps.each.items[1].said == 'hello y'"]
"#;
    let stage = Stage::new(&playbook("", &[outer.to_owned()]));
    stage.write("inner.toml", "runsheet = 1\n[playbook]\ntitle = \"Inner\"\n[params.name]\ntype = \"string\"\n[steps.say]\nuses = \"command\"\nwith.argv = [\"echo\", \"hello {{ params.name }}\"]\n[outputs]\nsaid = \"{{ steps.say.stdout }}\"\n");
    let ran = stage.run(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut ledger = stage.ledger();
    ledger.sort();
    assert_eq!(ledger, ["1", "2"]);
    assert_eq!(stage.show()["steps"]["each[1]/say"]["outputs"]["stdout"], "hello y");
}

#[test]
fn an_objective_that_is_missed_is_exit_code_4() {
    let objectives = "[objectives]\nrto = { limit = \"100ms\", until = \"steps.a\" }\n".to_owned();
    let stage = Stage::new(&playbook("", &[step("a", ""), objectives]));
    assert_eq!(stage.run(&["--set", "a_s=0.4"]).code, 4);
    let shown = stage.show();
    assert_eq!(shown["verdict"]["objectives"]["rto"]["met"], false);
    assert!(shown["verdict"]["objectives"]["rto"]["measured_s"].as_f64().unwrap() > 0.4);
}

#[test]
fn after_a_pivot_there_is_only_forward() {
    let stage = Stage::new(&playbook("", &[step("a", ""), step("p", "needs = [\"a\"]\npivot = true"), step("b", "needs = [\"p\"]")]));
    assert_eq!(stage.run(&["--set", "b_exit=1"]).code, 5);
    assert_eq!(stage.runsheet(&["rollback", "last"]).code, 2);
    assert!(!stage.ledger().iter().any(|l| l.starts_with("undo")));
}

#[test]
fn a_changed_playbook_is_refused_until_accepted() {
    let text = playbook("on_failure = \"pause\"", &[step("a", ""), step("b", "needs = [\"a\"]"), step("c", "needs = [\"b\"]")]);
    let stage = Stage::new(&text);
    assert_eq!(stage.run(&["--set", "b_exit=1"]).code, 5);
    assert_eq!(stage.runsheet(&["decide", "last", "b", "skip", "--reason", "x"]).code, 0);
    stage.write("playbook.toml", &text.replace("start $STEP", "begin $STEP"));
    let refused = stage.runsheet(&["resume", "last"]);
    assert!(refused.code == 2 && refused.stderr.contains("has changed"), "{}", refused.stderr);
    assert_eq!(stage.runsheet(&["resume", "last", "--accept-changes"]).code, 2, "steps that began differ");
    let more = "[steps.d]\nuses = \"shell\"\nwith.script = 'echo \"end d\" >> ledger'\n";
    stage.write("playbook.toml", &format!("# A remark.\n{text}\n{more}"));
    let accepted = stage.runsheet(&["resume", "last", "--accept-changes"]);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    assert!(stage.ledger().contains(&"end d".to_owned()));
}

#[test]
fn creates_must_be_gone_at_the_end() {
    let steps =
        "[steps.a]\nuses = \"command\"\ncreates = [\"path:{{ playbook.dir }}/left\"]\nwith.argv = [\"touch\", \"left\"]\n".to_owned();
    let stage = Stage::new(&playbook("", &[steps]));
    assert_eq!(stage.run(&[]).code, 3);
    assert!(stage.show()["verdict"]["left"][0].as_str().unwrap().contains("is still there"));
}

#[test]
fn any_changed_byte_of_the_record_is_noticed() {
    let stage = Stage::new(&playbook("", &[step("a", "")]));
    assert_eq!(stage.run(&[]).code, 0);
    let journal = stage.journal();
    let good = std::fs::read(&journal).unwrap();
    for at in (0..good.len()).step_by(good.len() / 40) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&journal, &bad).unwrap();
        assert_eq!(stage.runsheet(&["verify", "last"]).code, 6, "byte {at}");
    }
    std::fs::write(&journal, &good).unwrap();
    assert_eq!(stage.runsheet(&["verify", "last"]).code, 0);
}

/// Every format that was ever released is read for ever. Made with this version; a new version adds a folder.
#[test]
fn frozen_runs_are_still_read() {
    let frozen = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/frozen");
    for version in std::fs::read_dir(&frozen).unwrap() {
        let version = version.unwrap().path();
        let stage = Stage::new("");
        let wanted: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(version.join("shown.json")).unwrap()).unwrap();
        let run = stage.path("home/runs").join(wanted["run"].as_str().unwrap());
        std::fs::create_dir_all(run.join("snapshot")).unwrap();
        for file in ["journal.jsonl", "snapshot/sources.json"] {
            std::fs::copy(version.join(file), run.join(file)).unwrap();
        }
        let verified = stage.runsheet(&["verify", "last"]);
        assert_eq!(verified.code, 0, "{}: {}", version.display(), verified.stderr);
        assert_eq!(stage.show(), wanted, "{}", version.display());
    }
}

#[test]
fn a_newer_format_is_refused_with_a_clear_word() {
    let stage = Stage::new(&playbook("", &[step("a", "")]));
    assert_eq!(stage.run(&[]).code, 0);
    let text = stage.read("playbook.toml").replace("runsheet = 1", "runsheet = 9");
    stage.write("playbook.toml", &text);
    let checked = stage.runsheet(&["check", "playbook.toml"]);
    assert!(checked.code == 2 && checked.stderr.contains("use a newer runsheet"), "{}", checked.stderr);
}

#[test]
fn a_loop_may_name_its_item_in_every_expression() {
    let steps =
        "[steps.a]\nuses = \"assert\"\nfor_each = [\"x\", \"y\"]\nas = \"letter\"\nwith.that = [\"letter in 'xy'\", \"index < 2\"]\n"
            .to_owned();
    let ran = Stage::new(&playbook("", &[steps])).run(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn an_always_step_is_tried_again_also_after_a_cancel() {
    let always = "[always.z]\nuses = \"shell\"\nretry = { attempts = 3, delay = \"20ms\" }\nwith.script = 'echo try >> ledger; test $(grep -c try ledger) -ge 2'\n".to_owned();
    let stage = Stage::new(&playbook("", &[step("a", ""), always]));
    let child = stage.start(&["run", "playbook.toml", "--set", "a_s=60"]);
    stage.until("a runs", |s| s.ledger().contains(&"start a".to_owned()));
    assert_eq!(stage.runsheet(&["cancel", "last"]).code, 0);
    assert_eq!(ended(child.wait_with_output().unwrap()).code, 130);
    assert_eq!(stage.ledger(), ["start a", "undo a", "try", "try"]);
}

#[test]
fn work_by_hand_is_confirmed_by_typing() {
    let steps = "[steps.a]\nuses = \"manual\"\nwith = { instructions = \"Put tape 42 in.\", confirm = \"tape 42\" }\n".to_owned();
    let stage = Stage::new(&playbook("", &[steps]));
    assert_eq!(stage.run(&[]).code, 5);
    assert_eq!(stage.runsheet(&["decide", "last", "a", "done", "--reason", "in"]).code, 2);
    assert_eq!(stage.runsheet(&["decide", "last", "a", "done", "--reason", "in", "--confirm", "tape 42"]).code, 0);
    assert_eq!(stage.runsheet(&["resume", "last"]).code, 0);
}

#[test]
fn last_is_the_latest_run_however_quick() {
    let stage = Stage::new(&playbook("", &["[steps.a]\nuses = \"assert\"\nwith.that = [\"1 == 1\"]\n".to_owned()]));
    for n in 0..5 {
        let ran = stage.run(&[]);
        let id = ran.stderr.lines().next().unwrap().split_whitespace().nth(2).unwrap().trim_end_matches(':').to_owned();
        assert_eq!(stage.show()["run"].as_str().unwrap(), id, "run {n}");
    }
}

#[test]
fn nothing_is_decided_while_what_the_dead_runner_started_is_at_work() {
    let stage = Stage::new(&playbook("", &[step("a", "on_unknown = \"rerun\"")]));
    let mut child = stage.start(&["run", "playbook.toml", "--set", "a_s=8"]);
    stage.until("a runs", |s| s.ledger().contains(&"start a".to_owned()));
    child.kill().unwrap();
    child.wait().unwrap();
    let refused = stage.runsheet(&["resume", "last"]);
    assert!(refused.code == 2 && refused.stderr.contains("still at work"), "{}", refused.stderr);
    stage.until("the orphan ends", |s| s.ledger().contains(&"end a".to_owned()));
    assert_eq!(stage.runsheet(&["cancel", "last"]).code, 130);
    assert_eq!(stage.ledger(), ["start a", "end a", "undo a"]);
}

#[test]
fn a_run_may_wait_for_a_lock_and_a_deadline_ends_the_attempts() {
    let stage = Stage::new(&playbook("locks = [\"db\"]\nlock_wait = \"20s\"", &[step("a", "")]));
    let child = stage.start(&["run", "playbook.toml", "--set", "a_s=1"]);
    stage.until("a runs", |s| s.ledger().contains(&"start a".to_owned()));
    let second = stage.run(&[]);
    assert!(second.code == 0 && second.stderr.contains("waiting for run"), "{}", second.stderr);
    assert_eq!(ended(child.wait_with_output().unwrap()).code, 0);
    assert_eq!(stage.ledger(), ["start a", "end a", "start a", "end a"]);

    let more = "deadline = \"600ms\"\nretry = { attempts = 50, delay = \"100ms\" }";
    let stage = Stage::new(&playbook("", &[step("a", more)]));
    assert_eq!(stage.run(&["--set", "a_exit=1"]).code, 1);
    assert!((2..10).contains(&stage.show()["steps"]["a"]["attempts"].as_u64().unwrap()));
}

#[test]
fn a_handler_that_asserts_sees_what_its_own_settings_name() {
    let steps = r#"
[params.word]
type = "string"
default = "x"
[steps.a]
uses = "command"
with.argv = ["false"]
[steps.a.rollback]
uses = "assert"
with.that = ["params.word == 'x'"]
"#;
    let ran = Stage::new(&playbook("", &[steps.to_owned()])).run(&[]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
}
