//! `runsheet check`.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use clap::Args;
use serde_json::json;

use super::{Failure, Format, Outcome, say};
use crate::{book::Problem, store};

/// Says everything that is wrong with a playbook, without touching the machine.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet check recovery.toml\n  runsheet check --strict --format json recovery.toml")]
pub(super) struct Check {
    /// Playbooks: files, or names of the library.
    #[arg(required = true)]
    files: Vec<String>,
    /// Refuse warnings too.
    #[arg(long)]
    strict: bool,
    /// `text` for people, `json` for editors.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Check {
    pub(super) fn run(&self) -> Outcome {
        let mut all = Vec::new();
        for file in &self.files {
            let (sources, root, _) = store::load(file).map_err(Failure::usage)?;
            all.extend(crate::plan::plan(&sources, &root).1);
        }
        let bad = all.iter().any(|p| self.strict || !p.warning);
        match self.format {
            Format::Json => {
                let problems: Vec<_> = all.iter().map(|p| shown(p, self.strict)).collect();
                say(&serde_json::to_string_pretty(&json!({ "format": 1, "good": !bad, "problems": problems })).unwrap_or_default());
            }
            Format::Text if all.is_empty() => eprintln!("{}: good", self.files.join(", ")),
            Format::Text => {
                eprint!("{}", rendered(&all));
                let (warnings, errors): (Vec<_>, Vec<_>) = all.iter().partition(|p| p.warning && !self.strict);
                eprintln!("{}: {} and {}", self.files.join(", "), count(errors.len(), "problem"), count(warnings.len(), "warning"));
            }
        }
        Ok(if bad { 2 } else { 0 })
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Line and column of a byte, both from 1; a column counts characters.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line = before.matches('\n').count() + 1;
    (line, before[before.rfind('\n').map_or(0, |at| at + 1)..].chars().count() + 1)
}

fn shown(problem: &Problem, strict: bool) -> serde_json::Value {
    let text = &problem.source.text;
    let (line, column) = place(text, problem.at.start);
    let (end_line, end_column) = place(text, problem.at.end);
    json!({
        "file": problem.source.name, "line": line, "column": column, "end_line": end_line, "end_column": end_column,
        "severity": if problem.warning && !strict { "warning" } else { "error" }, "message": problem.says, "hint": problem.hint,
    })
}

/// Problems as rustc shows them.
pub(super) fn rendered(problems: &[Problem]) -> String {
    use std::io::IsTerminal;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for problem in problems {
        let text = &problem.source.text;
        let at = text.floor_char_boundary(problem.at.start)..text.ceil_char_boundary(problem.at.end.max(problem.at.start));
        let level = if problem.warning { Level::WARNING } else { Level::ERROR };
        let says = crate::report::plain(&problem.says);
        // A table's place is its header and all below it: its first line is enough to be found by.
        let first_line = text[at.clone()].find('\n').map_or(at.end, |end| at.start + end);
        let snippet = Snippet::source(text.as_str())
            .path(problem.source.name.as_str())
            .annotation(AnnotationKind::Primary.span(at.start..first_line));
        let mut report = vec![level.primary_title(says.as_str()).element(snippet)];
        let hint = problem.hint.as_deref().map(crate::report::plain);
        if let Some(hint) = &hint {
            report.push(Group::with_title(Level::HELP.secondary_title(hint.as_str())));
        }
        out += &renderer.render(&report).to_string();
        out += "\n\n";
    }
    out
}
