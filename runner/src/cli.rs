//! The command line: one file per command. Results go to stdout, everything else to stderr.

#![allow(clippy::disallowed_methods, reason = "the command line is where the environment and the run folder are read")]

mod cancel;
mod check;
mod completions;
mod decide;
mod drive;
mod kinds;
mod library;
mod logs;
mod plan;
mod rehearse;
mod report;
mod resume;
mod rollback;
mod run;
mod runs;
mod schema;
mod screen;
mod show;
mod verify;

use std::{io::Write, path::PathBuf, sync::Arc};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    journal::{self, Fault, Reading},
    plan::{Plan, Sources},
    run::Run,
    store::{self, Home, RunFolder},
};

/// Runs recovery playbooks and records the outcome of every step.
#[derive(Parser)]
#[command(
    name = "runsheet",
    version,
    after_help = "Start with:\n  runsheet check playbook.toml\n  runsheet run playbook.toml --set name=value\n\nExit codes: 0 done, 1 failed and undone, 2 wrong playbook or command line, 3 something is left for a person,\n4 an objective was missed, 5 paused for a person, 6 the record cannot be trusted, 130 cancelled and undone."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Check),
    Plan(plan::PlanCommand),
    Rehearse(rehearse::Rehearse),
    Run(run::RunCommand),
    Resume(resume::Resume),
    Cancel(cancel::Cancel),
    Rollback(rollback::Rollback),
    Decide(decide::Decide),
    Runs(runs::Runs),
    Show(show::Show),
    Logs(logs::Logs),
    Report(report::Report),
    Verify(verify::Verify),
    Kinds(kinds::Kinds),
    Library(library::Library),
    Schema(schema::SchemaCommand),
    Completions(completions::Completions),
}

/// Why a command did not do its work: the sentence, what to do, and the exit code.
struct Failure {
    code: u8,
    says: String,
    hint: Option<String>,
}

impl Failure {
    /// The playbook or the command line is wrong; nothing ran.
    fn usage(says: impl Into<String>) -> Self {
        Self { code: 2, says: says.into(), hint: None }
    }
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The one table from what is wrong with a record to an exit code.
impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let (code, hint) = match &fault {
            Fault::Full(_) => (5, Some("make room, then `runsheet resume` the run")),
            Fault::Broken(_) => (6, Some("the disk under the record is failing: check it before you resume anything")),
            Fault::Corrupt(_) => (6, Some("`runsheet verify RUN` says where; compare with a copy of the record")),
            Fault::Newer(_) | Fault::Absent(_) => (2, None),
        };
        Self { code, says: fault.to_string(), hint: hint.map(str::to_owned) }
    }
}

type Outcome = Result<u8, Failure>;

/// The format of what a command gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs the command line and gives the exit code.
pub fn main() -> u8 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Ok(filter) = std::env::var("RUNSHEET_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { 2 } else { 0 };
        }
    };
    let outcome = match arguments.command {
        Command::Check(c) => c.run(),
        Command::Plan(c) => c.run(),
        Command::Rehearse(c) => c.run(),
        Command::Run(c) => c.run(),
        Command::Resume(c) => c.run(),
        Command::Cancel(c) => c.run(),
        Command::Rollback(c) => c.run(),
        Command::Decide(c) => c.run(),
        Command::Runs(c) => c.run(),
        Command::Show(c) => c.run(),
        Command::Logs(c) => c.run(),
        Command::Report(c) => c.run(),
        Command::Verify(c) => c.run(),
        Command::Kinds(c) => c.run(),
        Command::Library(c) => c.run(),
        Command::Schema(c) => c.run(),
        Command::Completions(c) => c.run(),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("error: {}", crate::report::plain(&failure.says));
        if let Some(hint) = failure.hint {
            eprintln!("hint: {}", crate::report::plain(&hint));
        }
        failure.code
    })
}

/// Writes a result to stdout. A reader that has gone away is no error.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}

/// A playbook that may be run.
struct Playbook {
    sources: Sources,
    root: String,
    directory: PathBuf,
    plan: Arc<Plan>,
}

/// Loads and checks a playbook; what is wrong is shown. Warnings are shown when `warnings`.
fn playbook(name: &str, warnings: bool) -> Result<Playbook, Failure> {
    let (sources, root, directory) = store::load(name).map_err(Failure::usage)?;
    let (plan, problems) = crate::plan::plan(&sources, &root);
    let shown: Vec<_> = problems.into_iter().filter(|p| warnings || !p.warning).collect();
    if !shown.is_empty() {
        eprint!("{}", check::rendered(&shown));
    }
    match plan {
        Some(plan) => Ok(Playbook { sources, root, directory, plan }),
        None => {
            let count = shown.iter().filter(|p| !p.warning).count();
            Err(Failure::usage(format!("{name} has {count} problem{}; nothing ran", if count == 1 { "" } else { "s" })))
        }
    }
}

/// A run as its journal tells it.
struct Told {
    folder: RunFolder,
    reading: Reading,
    run: Run,
    snapshot: store::Snapshot,
}

/// Reads a run's journal and folds it.
fn told(name: &str) -> Result<Told, Failure> {
    let folder = Home::open().and_then(|home| home.find(name)).map_err(Failure::usage)?;
    told_of(folder)
}

fn told_of(folder: RunFolder) -> Result<Told, Failure> {
    let reading = journal::read(&folder.journal())?;
    let snapshot = folder.snapshot().map_err(|says| Failure { code: 6, says, hint: None })?;
    let (plan, _) = crate::plan::plan(&snapshot.sources(), &snapshot.root);
    let plan =
        plan.ok_or_else(|| Failure { code: 6, says: format!("the snapshot of {} is no playbook any more", folder.id), hint: None })?;
    let mut run = Run::new(plan, folder.path.display().to_string());
    for record in &reading.records {
        run.apply(record).map_err(|says| Failure::from(Fault::Corrupt(format!("record {}: {says}", record.seq))))?;
    }
    if run.began.is_none() {
        return Err(Failure::usage(format!("run {} never began", folder.id)));
    }
    Ok(Told { folder, reading, run, snapshot })
}

/// The name of the person at the terminal.
fn login() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}
