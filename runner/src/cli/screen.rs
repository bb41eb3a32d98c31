//! What the operator sees of a run: live on a terminal, plain lines elsewhere, JSON events for programs; and the menu
//! that asks for a decision.

use std::{
    collections::HashMap,
    io::{BufRead, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::{Format, login, say};
use crate::{
    engine::{Observer, Progress, Tell},
    event::{Decision, Event, Record, Request},
    expression::print_duration,
    journal,
    report::{line, plain_line},
    run::{Body, Id, Run, State, Undo},
    store::RunFolder,
};

/// Shows a run.
pub(super) struct Screen {
    format: Format,
    bars: Option<MultiProgress>,
    running: HashMap<Id, ProgressBar>,
    tell: mpsc::UnboundedSender<Tell>,
    asks: bool,
    /// True while a question stands on the terminal: nothing is drawn over it.
    prompting: Arc<AtomicBool>,
}

impl Screen {
    /// A screen. `terminal`: an operator sits at it.
    pub(super) fn new(format: Format, terminal: bool, tell: mpsc::UnboundedSender<Tell>) -> Self {
        Self { format, bars: terminal.then(MultiProgress::new), running: HashMap::new(), tell, asks: terminal, prompting: Arc::default() }
    }

    fn print(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Takes the live part away.
    pub(super) fn close(&mut self) {
        for (_, bar) in self.running.drain() {
            bar.finish_and_clear();
            if let Some(bars) = &self.bars {
                bars.remove(&bar);
            }
        }
    }

    /// Says the head of the journal: what proves later that no tail was cut.
    pub(super) fn head(&self, folder: &RunFolder) {
        if let (Format::Text, Ok(reading)) = (self.format, journal::read(&folder.journal())) {
            eprintln!("  record        {} events, head {}", reading.records.len(), &reading.head[..16]);
            eprintln!("                runsheet show {0} · runsheet report {0} · runsheet verify {0}", folder.id);
        }
    }

    /// Says how a paused run goes on.
    pub(super) fn paused(&self, folder: &RunFolder, why: &str) {
        eprintln!("\nPAUSED: {}", plain_line(why));
        eprintln!("  look:      runsheet show {}", folder.id);
        eprintln!("  decide:    runsheet decide {} STEP retry|skip|done|approve|reject --reason \"…\"", folder.id);
        eprintln!("  go on:     runsheet resume {}", folder.id);
        eprintln!("  undo:      runsheet rollback {}", folder.id);
    }

    fn ask(&self, run: &Run) {
        let asking = run.asking();
        let (id, menu): (Id, &[Choice]) = match (asking.first(), run.troubled().first()) {
            (Some(id), _) if run.units[*id].question.as_ref().is_some_and(|(q, _)| q.by_hand) => (
                *id,
                &[
                    ("d", "done", Some(Decision::Done), None),
                    ("n", "no, it cannot be done", Some(Decision::Reject), None),
                    ("u", "undo everything", None, Some(Request::Rollback)),
                ],
            ),
            (Some(id), _) => (
                *id,
                &[
                    ("y", "yes", Some(Decision::Approve), None),
                    ("n", "no", Some(Decision::Reject), None),
                    ("u", "undo everything", None, Some(Request::Rollback)),
                ],
            ),
            (None, Some(id)) => (
                *id,
                &[
                    ("r", "retry", Some(Decision::Retry), None),
                    ("s", "skip", Some(Decision::Skip), None),
                    ("d", "done by hand", Some(Decision::Done), None),
                    ("u", "undo everything", None, Some(Request::Rollback)),
                    ("x", "stop", None, Some(Request::Stop)),
                ],
            ),
            (None, None) => return,
        };
        let unit = &run.units[id];
        let question = unit.question.as_ref().map(|(q, _)| q.clone());
        let about = question.as_ref().map_or_else(|| unit.error.clone().unwrap_or_default(), |q| q.text.clone());
        let keys: Vec<String> = menu.iter().map(|(key, what, ..)| format!("[{key}] {what}")).collect();
        self.print(&format!("\n{}: {}\n  {}", unit.path, crate::report::plain(&about), keys.join("  ")));
        let (tell, step, menu) = (self.tell.clone(), unit.path.to_string(), menu.to_vec());
        self.prompting.store(true, Ordering::Relaxed);
        let prompting = self.prompting.clone();
        // Blocking on the keyboard beside the run; the thread ends with the answer, or with the program.
        std::thread::spawn(move || {
            let chosen = choose(&menu);
            prompting.store(chosen.is_some(), Ordering::Relaxed);
            let Some((_, what, decision, request)) = chosen else { return };
            if let (Some(Decision::Done), Some(wanted)) = (decision, question.as_ref().and_then(|q| q.confirm.as_deref()))
                && prompt(&format!("type {wanted} to confirm")).as_deref() != Some(wanted)
            {
                eprintln!("that is not what was asked for; nothing is confirmed: use `runsheet decide`, or Ctrl-C");
                prompting.store(false, Ordering::Relaxed);
                return;
            }
            let role = question.as_ref().and_then(|q| q.roles.first()).and_then(|_| prompt("your role"));
            let reason = prompt(&format!("{what}: why")).unwrap_or_default();
            let by = login();
            let said = match (decision, request) {
                (Some(decision), _) => Tell::Decide { step, decision: *decision, by, role, reason },
                (None, Some(request)) => Tell::Request { request: *request, by, reason },
                (None, None) => return,
            };
            prompting.store(false, Ordering::Relaxed);
            let _ = tell.send(said);
        });
    }
}

type Choice = (&'static str, &'static str, Option<Decision>, Option<Request>);

fn choose(menu: &[Choice]) -> Option<&Choice> {
    loop {
        let typed = prompt("your choice")?;
        match menu.iter().find(|(key, what, ..)| typed == *key || typed == *what) {
            Some(choice) => return Some(choice),
            None => eprintln!("type one of {}", menu.iter().map(|(key, ..)| *key).collect::<Vec<_>>().join(", ")),
        }
    }
}

fn prompt(about: &str) -> Option<String> {
    eprint!("{about}> ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim().to_owned()),
    }
}

impl Observer for Screen {
    fn recorded(&mut self, record: &Record, run: &Run) {
        match self.format {
            Format::Json => say(&serde_json::to_string(record).unwrap_or_default()),
            Format::Text => {
                if let Some(line) = line::line(record, run) {
                    self.print(&line);
                }
            }
        }
        if self.asks && matches!(record.event, Event::Paused { .. } | Event::Asked { .. }) {
            self.close();
            self.ask(run);
        }
    }

    fn tick(&mut self, run: &Run, progress: &Progress) {
        let Some(bars) = self.bars.as_ref().filter(|_| !self.prompting.load(Ordering::Relaxed)) else { return };
        let live = |id: &Id| {
            let unit = &run.units[*id];
            unit.body == Body::Leaf && (matches!(unit.state, State::Running | State::Waiting) || unit.undo == Undo::Running)
        };
        self.running.retain(|id, bar| {
            let stays = live(id);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        let far = progress.lock().map(|p| p.clone()).unwrap_or_default();
        for id in (0..run.units.len()).filter(live).take(8) {
            let unit = &run.units[id];
            let bar = self.running.entry(id).or_insert_with(|| {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.set_style(ProgressStyle::with_template("  {spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.enable_steady_tick(Duration::from_millis(200));
                bar
            });
            let since = unit.began.map_or(0.0, |(_, up)| journal::up() - up);
            let how_far = far.get(&id).map_or(String::new(), |(done, total, unit)| how_far(*done, *total, unit, since));
            let waits = if unit.state == State::Waiting {
                if unit.question.is_some() { " waits for a person" } else { " waits to try again" }
            } else {
                ""
            };
            bar.set_message(format!("{} {}{how_far}{waits}", unit.path, print_duration(since.round())));
        }
    }
}

fn how_far(done: u64, total: u64, unit: &str, since: f64) -> String {
    let size = |n: u64| if unit == "bytes" { bytesize::ByteSize::b(n).display().iec().to_string() } else { format!("{n} {unit}") };
    let rate = if since >= 1.0 && unit == "bytes" { format!(", {}/s", size((done as f64 / since) as u64)) } else { String::new() };
    match total {
        0 => format!("  {}{rate}", size(done)),
        total => format!("  {:.0}% of {}{rate}", 100.0 * done as f64 / total as f64, size(total)),
    }
}
