//! `gate.approval`: people say yes or no.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    setting::Length,
    step::{Effect, Error, Kind, Question, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Approval>();

/// Waits until enough people have approved; one no is a refusal, and so is no answer in time. `runsheet decide RUN STEP
/// approve --reason …` answers it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Roles that may answer; anyone when none is named.
    #[serde(default)]
    roles: Vec<String>,
    /// How many different people have to approve.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    count: u32,
    /// How long an answer is waited for; after that it counts as no.
    expires: Option<Length>,
    /// What is asked.
    question: Option<String>,
    /// What a person should know to answer, by name.
    #[serde(default)]
    facts: BTreeMap<String, Value>,
    /// Whether the person who started the run may not approve it.
    #[serde(default)]
    not_requester: bool,
}

fn one() -> u32 {
    1
}

/// Nothing is changed.
#[derive(Serialize, Deserialize)]
pub struct Before {}

/// Who decided.
#[derive(Serialize, JsonSchema)]
pub struct Decided {
    /// Who approved, separated by commas.
    decided_by: String,
    /// When the last of them did, RFC 3339.
    decided_at: String,
    /// Why, in the words of the last of them.
    reason: String,
}

impl Step for Approval {
    const NAME: &'static str = "gate.approval";
    const EXAMPLES: &'static [&'static str] =
        &["roles = [\"ops-lead\"]\nquestion = \"Restore last night's backup over the shop?\"\nfacts = { lost_minutes = 14 }\nexpires = \"1h\"\n"];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Decided;
    fn effect(&self) -> Effect {
        Effect::Read
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    fn question(&self) -> Option<Question> {
        let fact = |(name, value): (&String, &Value)| format!("\n  {name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let facts: String = self.facts.iter().map(fact).collect();
        Some(Question {
            text: self.question.as_deref().unwrap_or("May this run go on?").to_owned() + &facts,
            roles: self.roles.clone(),
            count: self.count.max(1),
            expires_s: self.expires.map(|e| e.0.as_secs_f64()),
            not_requester: self.not_requester,
            confirm: None,
            by_hand: false,
        })
    }
    async fn look(&self, _: &View) -> Result<Before, Error> {
        Ok(Before {})
    }
    fn say(&self, _: &Before) -> String {
        let who = if self.roles.is_empty() { "anyone".to_owned() } else { self.roles.join(" or ") };
        format!("wait for {} of {who} to approve", self.count)
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Decided, Error> {
        let answers = &world.attempt().answers;
        let mut who: Vec<&str> = answers.iter().map(|a| a.by.as_str()).collect();
        who.sort_unstable();
        who.dedup();
        match answers.last() {
            Some(last) if who.len() >= self.count as usize => Ok(Decided { decided_by: who.join(", "), decided_at: last.at.clone(), reason: last.reason.clone() }),
            _ => Err(Error::Final(format!("{} of {} have approved", who.len(), self.count))),
        }
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}
