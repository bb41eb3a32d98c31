//! Driving a run from the command line: what `run`, `resume`, `cancel` and `rollback` share.

use std::{io::IsTerminal, path::Path, sync::Arc, time::Duration};

use steps::world::{Surroundings, View, find_program, search_path};
use tokio::sync::mpsc;

use super::{Failure, Outcome, Told, login, screen};
use crate::{
    engine::{self, Engine, Parts, Tell},
    event::{Event, FORMAT},
    journal::Journal,
    plan::Plan,
    run::{Phase, Run},
    store::{Held, Home, RunFolder, Snapshot},
};

/// How the operator wants to see a run, and what may be assumed of them.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Manner {
    /// Show events as JSON lines on stdout.
    #[arg(long, value_enum, default_value = "text")]
    pub(super) format: super::Format,
    /// Wait for people's decisions instead of ending with exit code 5.
    #[arg(long)]
    pub(super) wait: bool,
}

/// Everything that a step sees of its surroundings.
pub(super) fn view(directory: &Path, run: &str) -> Result<View, Failure> {
    let search = search_path(&std::env::var("PATH").unwrap_or_default()).map_err(Failure::usage)?;
    Ok(View::new(Surroundings { directory: directory.to_owned(), search, environment: environment(run) }))
}

/// The allow-listed environment of programs.
fn environment(run: &str) -> Vec<(String, String)> {
    const PASSED: &[&str] = &["HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SSH_AUTH_SOCK", "TMPDIR", "TZ", "USER"];
    let passed = PASSED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    passed.chain([("RUNSHEET_RUN".to_owned(), run.to_owned())]).collect()
}

/// Says every program that the steps need and that is not here, before anything runs.
pub(super) fn tools(plan: &Plan, directory: &Path) -> Result<(), Failure> {
    let search = search_path(&std::env::var("PATH").unwrap_or_default()).map_err(Failure::usage)?;
    let mut missing: Vec<String> = plan
        .steps
        .iter()
        .flat_map(|step| step.facts.tools.iter().map(move |tool| (step, tool)))
        .filter_map(|(step, tool)| find_program(&tool.name, &search, directory).err().map(|says| format!("`{}`: {says}", step.id)))
        .collect();
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::usage(format!("nothing ran, because programs are missing:\n  {}", missing.join("\n  "))))
    }
}

/// The boot of this machine, by the kernel's own id.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Begins a new run and drives it.
pub(super) fn start(home: &Home, plan: Arc<Plan>, snapshot: &Snapshot, manner: &Manner) -> Outcome {
    tools(&plan, &snapshot.directory)?;
    let cannot = |e: std::io::Error| Failure {
        code: 6,
        says: format!("cannot make the record of a run: {e}"),
        hint: Some("set RUNSHEET_HOME to a folder with room".into()),
    };
    let (folder, held) = home.new_run(snapshot).map_err(cannot)?;
    if let Err(failure) = lock(home, &plan, snapshot, &folder.id) {
        drop(std::fs::remove_dir_all(&folder.path));
        return Err(failure);
    }
    let journal = Journal::create(&folder.journal()).map_err(cannot)?;
    let run = Run::new(plan, folder.path.display().to_string());
    let began = Event::RunBegan {
        format: FORMAT,
        run: folder.id.clone(),
        playbook: snapshot.playbook.clone(),
        title: run.title().to_owned(),
        digest: snapshot.digest(),
        by: login(),
        host: host(),
        boot: boot(),
        directory: snapshot.directory.display().to_string(),
        params: snapshot.params.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    drive(home, Driven { run, journal, folder, held, first: vec![began], tells: Vec::new() }, snapshot, manner)
}

/// Takes the locks of a run, waiting as long as the playbook says.
fn lock(home: &Home, plan: &Plan, snapshot: &Snapshot, run: &str) -> Result<(), Failure> {
    let names = crate::run::locks(plan, &snapshot.params, run).map_err(Failure::usage)?;
    let wait = plan.book.head.lock_wait.map_or(Duration::ZERO, |wait| wait.0);
    let (mut waited, step) = (Duration::ZERO, Duration::from_millis(100));
    let mut said = false;
    loop {
        let Some((name, holder)) = home.lock(&names, run).map_err(Failure::usage)? else { return Ok(()) };
        if waited >= wait {
            let says = format!("the lock `{name}` is held by run {holder}; nothing ran");
            return Err(Failure::usage(says).hint(format!(
                "`runsheet show {holder}` tells how far it is; a dead run keeps its locks until it is resumed or cancelled"
            )));
        }
        if !std::mem::replace(&mut said, true) {
            eprintln!("waiting for run {holder}, which holds the lock `{name}`");
        }
        std::thread::sleep(step);
        waited += step;
    }
}

/// Takes up a run that no runner holds, after `told`, and drives it.
pub(super) fn take_up(home: &Home, told: Told, tells: Vec<Tell>, accepted: Option<(Arc<Plan>, Snapshot)>, manner: &Manner) -> Outcome {
    let Told { folder, reading, mut run, mut snapshot } = told;
    let held = folder
        .hold()
        .ok()
        .flatten()
        .ok_or_else(|| Failure::usage(format!("run {} is held by another runner, which is alive", folder.id)))?;
    if let Some(torn) = &reading.torn {
        eprintln!("the end of the record is torn and was cut ({torn}); it is kept beside it as journal.torn");
    }
    wait_for_orphans(&run, &folder)?;
    let mut digest = None;
    if let Some((plan, changed)) = accepted {
        run = Run::new(plan, folder.path.display().to_string());
        for record in &reading.records {
            run.apply(record).map_err(|says| Failure::usage(format!("the changed playbook does not fit what has happened: {says}")))?;
        }
        folder.replace_snapshot(&changed).map_err(|e| Failure {
            code: 6,
            says: format!("cannot keep the changed playbook: {e}"),
            hint: None,
        })?;
        digest = Some(changed.digest());
        snapshot = changed;
    }
    let locks = crate::run::locks(run.plan(), &snapshot.params, &folder.id).map_err(Failure::usage)?;
    if let Some((name, holder)) = home.lock(&locks, &folder.id).map_err(Failure::usage)? {
        return Err(Failure::usage(format!("the lock `{name}` is now held by run {holder}")));
    }
    let journal = Journal::resume(&folder.journal(), &reading).map_err(|e| Failure {
        code: 6,
        says: format!("the record cannot be made durable: {e}"),
        hint: None,
    })?;
    let resumed = Event::RunResumed { by: login(), boot: boot(), accepted: digest };
    drive(home, Driven { run, journal, folder, held, first: vec![resumed], tells }, &snapshot, manner)
}

/// What a runner that died left at work has to end before anything is decided about it: else it might be done twice.
fn wait_for_orphans(run: &Run, folder: &RunFolder) -> Result<(), Failure> {
    let names = run.under_way().into_iter().map(|(id, attempt)| folder.output(&run.units[id].path, &attempt));
    let names: Vec<String> = names.filter_map(|stem| Some(stem.file_name()?.to_string_lossy().into_owned())).collect();
    for _ in 0..50 {
        let orphans = orphans(&folder.id, &names);
        if orphans.is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let list = orphans(&folder.id, &names).join("\n  ");
    Err(Failure::usage(format!("programs that the dead runner started are still at work:\n  {list}"))
        .hint("let them end, or end them, and try again"))
}

/// Programs of these attempts of a run that are alive, by the environment that they were given.
fn orphans(run: &str, attempts: &[String]) -> Vec<String> {
    let (mut found, wanted) = (Vec::new(), format!("RUNSHEET_RUN={run}"));
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(|_| !attempts.is_empty()) {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let words: Vec<&[u8]> = environment.split(|b| *b == 0).collect();
        let ours = |name: &String| words.contains(&format!("RUNSHEET_ATTEMPT={name}").as_bytes());
        if words.contains(&wanted.as_bytes()) && attempts.iter().any(ours) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line: String = String::from_utf8_lossy(&line).replace('\0', " ").chars().take(100).collect();
            found.push(format!("pid {}: {line}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

struct Driven {
    run: Run,
    journal: Journal,
    folder: RunFolder,
    held: Held,
    first: Vec<Event>,
    tells: Vec<Tell>,
}

fn drive(home: &Home, driven: Driven, snapshot: &Snapshot, manner: &Manner) -> Outcome {
    let Driven { mut run, journal, folder, held, first, tells } = driven;
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && manner.format == super::Format::Text;
    run.attended = terminal || manner.wait;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failure {
        code: 6,
        says: e.to_string(),
        hint: None,
    })?;
    let (tell, told) = mpsc::unbounded_channel();
    let mut screen = screen::Screen::new(manner.format, terminal, tell);
    let (id, locks) = (folder.id.clone(), crate::run::locks(run.plan(), &snapshot.params, &folder.id).map_err(Failure::usage)?);
    let view = view(&snapshot.directory, &folder.id)?;
    let parts =
        Parts { run, journal, folder: folder.clone(), held, view, directory: snapshot.directory.clone(), observer: &mut screen, told };
    let outcome = runtime.block_on(async {
        let mut engine = Engine::new(parts);
        for event in first {
            engine.take(event)?;
        }
        for tell in tells {
            if let Some(refused) = engine.tell(tell)? {
                return Ok(Err(refused));
            }
        }
        engine.drive().await.map(Ok)
    });
    screen.close();
    match outcome? {
        Err(refused) => Err(Failure::usage(refused)),
        Ok(engine::Outcome::Ended(verdict)) => {
            home.unlock(&locks, &id);
            screen.head(&folder);
            Ok(verdict.exit_code)
        }
        Ok(engine::Outcome::Paused(why)) => {
            screen.paused(&folder, &why);
            Ok(5)
        }
    }
}

/// Whether a run has anything left to do.
pub(super) fn is_over(run: &Run) -> bool {
    run.phase == Phase::Ended
}
