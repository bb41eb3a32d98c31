//! `show RUN`: a run at a glance.

use serde_json::json;

use super::{json::state, line, plain_line};
use crate::{
    event::Event,
    expression::print_duration,
    run::{Run, State, Undo},
};

/// A run as people see it. `alive`: whether a runner holds it.
pub fn text(run: &Run, alive: bool) -> String {
    let mut out = String::new();
    if let Some(record) = &run.began
        && let Event::RunBegan { run: id, title, playbook, by, host, .. } = &record.event
    {
        out += &format!("{id}  {}\n", plain_line(title));
        out += &format!(
            "{}, begun {} by {} on {}, {}\n\n",
            plain_line(playbook),
            record.at.strftime("%F %T UTC"),
            plain_line(by),
            plain_line(host),
            state(run, alive)
        );
    }
    let wide = run.units.iter().map(|unit| unit.path.chars().count()).max().unwrap_or(0).min(40);
    let mut stage = None;
    for id in in_order(run) {
        let unit = &run.units[id];
        let head = &run.text(id).head;
        if head.stage.is_some() && head.stage != stage {
            stage.clone_from(&head.stage);
            out += &format!("{}\n", plain_line(stage.as_deref().unwrap_or("")));
        }
        let took = match (unit.began, unit.ended) {
            (Some((_, from)), Some((_, to))) if unit.state != State::NotReached => print_duration((to - from).max(0.0)),
            _ => String::new(),
        };
        let tries = if unit.attempts > 1 { format!(", {} attempts", unit.attempts) } else { String::new() };
        let undo = match unit.undo {
            Undo::None => "",
            Undo::Succeeded => ", undone",
            Undo::Failed => ", NOT UNDONE",
            Undo::Running | Undo::Unknown => ", undo unknown",
        };
        let state = json!(unit.state).as_str().unwrap_or_default().replace('_', " ");
        out += &format!("{} {:wide$}  {:11} {took:>8}{tries}{undo}", mark(unit.state), unit.path, state);
        if let Some(error) = &unit.error {
            out += &format!("  {}", plain_line(error));
        }
        out = out.trim_end().to_owned() + "\n";
    }
    match (&run.verdict, &run.paused) {
        (Some(verdict), _) => out += &format!("\n{}\n", line::verdict(verdict, run)),
        (None, Some(why)) => out += &format!("\npaused: {}\n", plain_line(why)),
        (None, None) => {}
    }
    out
}

/// Steps in the order of the text, with what is within a loop or playbook right behind it.
fn in_order(run: &Run) -> Vec<usize> {
    let mut within: std::collections::HashMap<Option<usize>, Vec<usize>> = std::collections::HashMap::new();
    for (id, unit) in run.units.iter().enumerate().rev() {
        let outer = unit.item.map(|(parent, _)| parent).or(run.frames[unit.frame].owner);
        within.entry(outer).or_default().push(id);
    }
    let (mut open, mut order) = (within.remove(&None).unwrap_or_default(), Vec::new());
    while let Some(id) = open.pop() {
        order.push(id);
        open.extend(within.remove(&Some(id)).unwrap_or_default());
    }
    order
}

/// A sign for a state.
pub fn mark(state: State) -> &'static str {
    match state {
        State::Pending | State::NotReached => "·",
        State::Waiting => "?",
        State::Running => "▶",
        State::Succeeded | State::Recovered => "✓",
        State::Failed | State::Cancelled => "✗",
        State::Skipped => "-",
        State::Unknown => "?",
    }
}
