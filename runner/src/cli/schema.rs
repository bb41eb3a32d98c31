//! `runsheet schema`.

use clap::Args;

use super::{Outcome, say};

/// Prints the JSON Schema of a playbook with all kinds, for editors.
#[derive(Args)]
#[command(
    after_help = "Example:\n  runsheet schema > playbook.schema.json\n  then begin a playbook with:  #:schema ./playbook.schema.json"
)]
pub(super) struct SchemaCommand {}

impl SchemaCommand {
    pub(super) fn run(&self) -> Outcome {
        say(&serde_json::to_string_pretty(&crate::report::schema::schema()).unwrap_or_default());
        Ok(0)
    }
}
