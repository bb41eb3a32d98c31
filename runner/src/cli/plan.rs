//! `runsheet plan`.

use clap::{Args, ValueEnum};

use super::{Outcome, playbook, say};
use crate::report::draw;

/// Draws a playbook: the order, what runs side by side, the undo order, the effects.
#[derive(Args)]
#[command(after_help = "Example:\n  runsheet plan recovery.toml\n  runsheet plan recovery.toml --format svg > recovery.svg")]
pub(super) struct PlanCommand {
    /// The playbook: a file, or a name of the library.
    playbook: String,
    /// How it is drawn.
    #[arg(long, value_enum, default_value = "text")]
    format: Drawing,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Drawing {
    /// A list for people.
    Text,
    /// For programs.
    Json,
    /// For Graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
    /// A picture.
    Svg,
}

impl PlanCommand {
    pub(super) fn run(&self) -> Outcome {
        let plan = playbook(&self.playbook, true)?.plan;
        say(&match self.format {
            Drawing::Text => draw::text(&plan),
            Drawing::Json => serde_json::to_string_pretty(&draw::json(&plan)).unwrap_or_default(),
            Drawing::Dot => draw::dot(&plan),
            Drawing::Mermaid => draw::mermaid(&plan),
            Drawing::Svg => draw::svg(&plan),
        });
        Ok(0)
    }
}
