//! A plan as text, JSON, Graphviz, Mermaid and SVG: the order, what may run side by side, the undo order, the effects.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use steps::step::Effect;

use super::plain_line;
use crate::plan::{Action, Plan};

/// Which steps may run side by side: those of one wave wait for none of the same wave.
fn waves(plan: &Plan) -> Vec<usize> {
    let mut wave = vec![0; plan.steps.len()];
    for &at in &plan.order {
        let step = &plan.steps[at];
        wave[at] = step.needs.iter().chain(&step.after).map(|on| wave[*on] + 1).max().unwrap_or(0);
    }
    wave
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Read => "read",
        Effect::Write => "write",
        Effect::Destroy => "DESTROY",
    }
}

fn title(plan: &Plan, at: usize) -> String {
    let text = plan.text(at);
    plain_line(text.head.title.as_deref().unwrap_or(&text.id.name))
}

/// How a step would be undone, in a few words.
fn undo(plan: &Plan, at: usize) -> String {
    let (text, step) = (plan.text(at), &plan.steps[at]);
    match (&text.rollback, &text.head.by_hand, step.facts.reversal) {
        (Some(handler), _, _) => format!("undone by {}", handler.head.uses.get_ref()),
        (None, Some(_), _) => "undone by hand".into(),
        (None, None, Some(reversal)) => match reversal {
            steps::step::Reversal::Exact => "undone exactly".into(),
            steps::step::Reversal::Compensates => "undone".into(),
            steps::step::Reversal::Nothing => "nothing to undo".into(),
            steps::step::Reversal::Never => "can never be undone".into(),
        },
        (None, None, None) => "undone by its kind".into(),
    }
}

/// A list for people.
pub fn text(plan: &Plan) -> String {
    let mut out = format!("{}\n", plain_line(&plan.book.head.title));
    levels(plan, "  ", &mut out);
    let undo: Vec<&str> = plan.undo_order().into_iter().map(|at| &*plan.steps[at].id).collect();
    out += &format!("\nundo order: {}\n", shortened(&undo));
    let mut tools: Vec<&str> = plan.steps.iter().flat_map(|s| &s.facts.tools).map(|t| t.name.as_str()).collect();
    tools.sort_unstable();
    tools.dedup();
    if !tools.is_empty() {
        out += &format!("programs:   {}\n", tools.join(", "));
    }
    out
}

fn shortened(names: &[&str]) -> String {
    if names.len() <= 30 {
        names.join(", ")
    } else {
        format!("{}, … {} more …, {}", names[..15].join(", "), names.len() - 30, names[names.len() - 15..].join(", "))
    }
}

fn levels(plan: &Plan, indent: &str, out: &mut String) {
    let waves = waves(plan);
    let mut order = plan.order.clone();
    order.sort_by_key(|at| (plan.is_always(*at), waves[*at], *at));
    let mut before = None;
    for at in order {
        let step = &plan.steps[at];
        let now = (plan.is_always(at), waves[at]);
        let sign = if before == Some(now) { "∥" } else { " " };
        if plan.is_always(at) && !matches!(before, Some((true, _))) {
            *out += &format!("{indent}always, after the rollback:\n");
        }
        before = Some(now);
        let waits: Vec<&str> = step.needs.iter().chain(&step.after).map(|on| &*plan.steps[*on].id).collect();
        let waits = if waits.is_empty() { String::new() } else { format!("  ← {}", shortened(&waits)) };
        let marks = [
            (step.when.is_some(), "when"),
            (step.each.is_some(), "for each"),
            (step.verifies, "verifies"),
            (step.facts.asks, "asks people"),
        ];
        let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, name)| format!(", {name}")).collect();
        *out +=
            &format!("{indent}{sign} {}: {} [{}, {}{marks}]{waits}\n", step.id, title(plan, at), effect(step.facts.effect), undo(plan, at));
        if let Action::Playbook(inner) = &step.action {
            levels(inner, &format!("{indent}    "), out);
        }
    }
}

/// For programs.
pub fn json(plan: &Plan) -> Json {
    let waves = waves(plan);
    let steps: Vec<Json> = plan
        .order
        .iter()
        .map(|&at| {
            let step = &plan.steps[at];
            let names = |on: &[usize]| on.iter().map(|on| plan.steps[*on].id.to_string()).collect::<Vec<_>>();
            json!({
                "id": &*step.id, "title": title(plan, at), "uses": plan.text(at).head.uses.get_ref(), "always": plan.is_always(at),
                "wave": waves[at], "needs": names(&step.needs), "after": names(&step.after), "effect": step.facts.effect,
                "undo": undo(plan, at), "verifies": step.verifies, "asks": step.facts.asks, "tools": step.facts.tools,
                "when": step.when.as_ref().map(|when| when.text()),
                "steps": match &step.action { Action::Playbook(inner) => json(inner), Action::Kind(_) => Json::Null },
            })
        })
        .collect();
    let undo: Vec<&str> = plan.undo_order().into_iter().map(|at| &*plan.steps[at].id).collect();
    json!({ "format": 1, "title": plan.book.head.title, "steps": steps, "undo_order": undo })
}

fn edges(plan: &Plan) -> impl Iterator<Item = (usize, usize, bool)> {
    plan.steps.iter().enumerate().flat_map(|(at, step)| {
        let hard = step.needs.iter().map(move |on| (*on, at, true));
        hard.chain(step.after.iter().map(move |on| (*on, at, false)))
    })
}

/// For Graphviz.
pub fn dot(plan: &Plan) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = String::from("digraph playbook {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n");
    for at in 0..plan.steps.len() {
        let style = match plan.steps[at].facts.effect {
            Effect::Destroy => ", color=red",
            _ if plan.is_always(at) => ", style=\"rounded,dashed\"",
            _ => "",
        };
        out += &format!("  {} [label={}{style}];\n", plan.steps[at].id, quote(&title(plan, at)));
    }
    for (from, to, hard) in edges(plan) {
        out += &format!("  {} -> {}{};\n", plan.steps[from].id, plan.steps[to].id, if hard { "" } else { " [style=dashed]" });
    }
    out + "}\n"
}

/// For Markdown.
pub fn mermaid(plan: &Plan) -> String {
    let quote = |text: &str| text.replace('"', "#quot;").replace(['[', ']', '<', '>'], " ");
    let mut out = String::from("flowchart LR\n");
    for at in 0..plan.steps.len() {
        out += &format!("  {}[\"{}\"]\n", plan.steps[at].id, quote(&title(plan, at)));
    }
    for (from, to, hard) in edges(plan) {
        out += &format!("  {} {} {}\n", plan.steps[from].id, if hard { "-->" } else { "-.->" }, plan.steps[to].id);
    }
    out
}

const BOX: (usize, usize) = (220, 44);
const GAP: (usize, usize) = (60, 16);

/// A picture: waves from left to right. It follows the reader's light or dark scheme.
pub fn svg(plan: &Plan) -> String {
    let waves = waves(plan);
    let (mut rows, mut places): (HashMap<usize, usize>, Vec<(usize, usize)>) = (HashMap::new(), vec![(0, 0); plan.steps.len()]);
    let last = (0..plan.forward).map(|at| waves[at] + 1).max().unwrap_or(0);
    for at in 0..plan.steps.len() {
        let column = if plan.is_always(at) { last + waves[at] } else { waves[at] };
        let row = rows.entry(column).or_default();
        places[at] = (20 + column * (BOX.0 + GAP.0), 20 + *row * (BOX.1 + GAP.1));
        *row += 1;
    }
    let width = places.iter().map(|p| p.0 + BOX.0 + 20).max().unwrap_or(40);
    let height = places.iter().map(|p| p.1 + BOX.1 + 20).max().unwrap_or(40);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    out += "<style>rect{fill:#fff;stroke:#456}text{fill:#123}path{fill:none;stroke:#789}.destroy{stroke:#c22;stroke-width:2}.always{stroke-dasharray:4}.after{stroke-dasharray:4}\n";
    out += "@media(prefers-color-scheme:dark){svg{background:#16191d}rect{fill:#22272e;stroke:#9ab}text{fill:#dde}}</style>\n";
    for (from, to, hard) in edges(plan) {
        let ((x1, y1), (x2, y2)) = (places[from], places[to]);
        let (x1, y1, y2) = (x1 + BOX.0, y1 + BOX.1 / 2, y2 + BOX.1 / 2);
        out += &format!(
            "<path{} d=\"M{x1} {y1}C{} {y1} {} {y2} {x2} {y2}\"/>\n",
            if hard { "" } else { " class=\"after\"" },
            x1 + GAP.0 / 2,
            x2.saturating_sub(GAP.0 / 2)
        );
    }
    for (at, &(x, y)) in places.iter().enumerate() {
        let class = match plan.steps[at].facts.effect {
            Effect::Destroy => " class=\"destroy\"",
            _ if plan.is_always(at) => " class=\"always\"",
            _ => "",
        };
        let name: String = title(plan, at).chars().take(34).collect();
        out += &format!("<rect{class} x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\"/>", BOX.0, BOX.1);
        out += &format!("<text x=\"{}\" y=\"{}\">{}</text>", x + 8, y + 18, escaped(&name));
        out += &format!(
            "<text x=\"{}\" y=\"{}\" opacity=\".7\">{} · {}</text>\n",
            x + 8,
            y + 34,
            escaped(plan.text(at).head.uses.get_ref()),
            effect(plan.steps[at].facts.effect)
        );
    }
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    quick_junit::XmlString::new(text).as_str().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
