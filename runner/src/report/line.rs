//! One line of text per event, for logs, pipes and eyes.

use serde_json::json;

use crate::{
    event::{Ended, Event, Outcome, Record, Rollback, Verdict, Verification},
    expression::{print_duration, print_timestamp},
    report::plain_line,
    run::Run,
};

/// The line of an event; nothing for events that only the machine needs.
pub fn line(record: &Record, run: &Run) -> Option<String> {
    let text = match &record.event {
        Event::RunBegan { run, title, .. } => format!("run {run}: {title}"),
        Event::RunResumed { by, .. } => format!("resumed by {by}"),
        Event::Skipped { step, why } => format!("- {step}: skipped, {why}"),
        Event::Expanded { step, items } => format!("  {step}: for {} items", items.len()),
        Event::Opened { .. } => return None,
        Event::Closed { step, .. } => format!("✓ {step}"),
        Event::Broke { step, error } => format!("✗ {step}: {error}"),
        Event::Began { step, attempt, .. } => {
            let title = run.unit(step).and_then(|id| run.text(id).head.title.as_deref()).map_or(String::new(), |t| format!(": {t}"));
            if *attempt > 1 { format!("▶ {step}{title} (attempt {attempt})") } else { format!("▶ {step}{title}") }
        }
        Event::Ended { step, attempt, how, again_at, .. } => ended(step, *attempt, how, *again_at, run),
        Event::Asked { step, question } => format!("? {step}: {}", question.text),
        Event::Expired { step } => format!("✗ {step}: nobody answered in time"),
        Event::Decided { step, decision, by, reason, .. } => format!("! {step}: {} by {by}: {reason}", word(decision)),
        Event::Probed { step, happened, .. } => {
            let says = match happened {
                Some(true) => "its probe says that it happened",
                Some(false) => "its probe says that it did not happen",
                None => "its probe could not tell",
            };
            format!("  {step}: {says}")
        }
        Event::Requested { request, by, reason } => format!("! {} by {by}: {reason}", word(request)),
        Event::Paused { why } => format!("⏸ paused: {why}"),
        Event::RollbackBegan { why } => format!("↩ undoing, because {why}"),
        Event::UndoBegan { .. } => return None,
        Event::UndoEnded { step, error: None } => format!("↩ {step}: undone"),
        Event::UndoEnded { step, error: Some(error) } => format!("✗ {step}: undoing it failed: {error}"),
        Event::UndoLeft { step, by_hand } => format!("! {step}: a person has to undo it: {by_hand}"),
        Event::AlwaysBegan => return None,
        Event::RunEnded { verdict } => return Some(self::verdict(verdict, run)),
    };
    Some(format!("{} {}", record.at.strftime("%H:%M:%S"), plain_line(&text)))
}

fn ended(step: &str, attempt: u32, how: &Ended, again_at: Option<f64>, run: &Run) -> String {
    let unit = run.unit(step).map(|id| &run.units[id]);
    let took = match unit.and_then(|u| Some((u.began?, u.ended?))) {
        Some(((_, from), (_, to))) => format!(" ({})", print_duration(to - from)),
        None => String::new(),
    };
    let again = again_at.map_or(String::new(), |at| format!("; again at {}", print_timestamp(at.round())));
    match how {
        Ended::Succeeded { .. } if attempt > 1 => format!("✓ {step}{took}, recovered at attempt {attempt}"),
        Ended::Succeeded { .. } => format!("✓ {step}{took}"),
        Ended::Failed { error, .. } => format!("✗ {step}{took}: {error}{again}"),
        Ended::TimedOut { after_s } => format!("✗ {step}: its time was up after {}{again}", print_duration(*after_s)),
        Ended::Cancelled => format!("✗ {step}: ended on request"),
        Ended::Unknown => format!("? {step}: nobody knows whether it happened"),
    }
}

fn word(value: &impl serde::Serialize) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

/// The verdict, for a tired person: what happened, what was proven, what was measured, what is left to do.
pub fn verdict(verdict: &Verdict, run: &Run) -> String {
    let head = match (verdict.outcome, verdict.rollback) {
        (Outcome::Succeeded, _) => "DONE".to_owned(),
        (Outcome::Recovered, _) => "DONE, after trouble".to_owned(),
        (Outcome::Failed, Rollback::None) => "FAILED".to_owned(),
        (Outcome::Failed, Rollback::Complete) => "FAILED, and everything was undone".to_owned(),
        (Outcome::Failed, Rollback::Incomplete) => "FAILED, and NOT everything was undone".to_owned(),
        (Outcome::Cancelled, Rollback::None) => "CANCELLED".to_owned(),
        (Outcome::Cancelled, Rollback::Complete) => "CANCELLED, and everything was undone".to_owned(),
        (Outcome::Cancelled, Rollback::Incomplete) => "CANCELLED, and NOT everything was undone".to_owned(),
    };
    let took = match (&run.began, run.last) {
        (Some(began), Some((_, _, up))) => format!(" in {}", print_duration((up - began.up).max(0.0))),
        _ => String::new(),
    };
    let mut lines = vec![format!("{head}{took}")];
    for (id, unit) in run.units.iter().enumerate().filter(|(_, u)| u.state == crate::run::State::Failed && u.body == crate::run::Body::Leaf)
    {
        let title = run.text(id).head.title.as_deref().unwrap_or(&unit.path);
        lines.push(format!("  failed        {}: {}", plain_line(title), plain_line(unit.error.as_deref().unwrap_or(""))));
    }
    match verdict.verification {
        Verification::None => {}
        Verification::Passed => lines.push("  verification  passed".into()),
        Verification::Failed => lines.push("  verification  FAILED: do not trust this backup".into()),
    }
    for (name, about, measured) in [("RTO", "time to recover", &verdict.objectives.rto), ("RPO", "data lost", &verdict.objectives.rpo)] {
        let Some(m) = measured else { continue };
        let limit = print_duration(m.limit_s);
        lines.push(match (m.measured_s, &m.error) {
            (Some(s), _) => {
                let people = m.people_s.map_or(String::new(), |p| format!(", {} of it waiting for people", print_duration(p)));
                format!("  {name}           {} {about}, limit {limit}: {}{people}", print_duration(s), if m.met { "met" } else { "MISSED" })
            }
            (None, error) => format!("  {name}           not measured, limit {limit}: {}", error.as_deref().unwrap_or("unknown")),
        });
    }
    for left in &verdict.left {
        lines.push(format!("  LEFT TO DO    {}", plain_line(left)));
    }
    lines.join("\n")
}
