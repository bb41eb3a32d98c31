//! `gate.approval`: people say yes or no.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::{
    setting::Length,
    step::{Answer, Effect, Error, Kind, Question, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Approval>();

/// Waits until enough people have approved; one no is a refusal, and so is no answer in time. `runsheet decide RUN STEP approve
/// --reason …` answers it. Put it before what cannot be taken back, and give it in `facts` what the decision needs.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Approval {
    /// The roles whose members may approve; anyone when not said.
    #[serde(default)]
    roles: Vec<String>,
    /// How many different people have to approve.
    #[serde(default = "one")]
    count: NonZeroU32,
    /// The time after which no answer counts as a no; when not said, it waits without end.
    expires: Option<Length>,
    /// What is asked; `May this run go on?` when not said.
    question: Option<String>,
    /// What a person should know to answer, by name: text, numbers, true or false, shown with the question.
    #[serde(default)]
    facts: BTreeMap<String, Fact>,
    /// Whether the person who started the run may not approve it.
    #[serde(default)]
    not_requester: bool,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

/// A text, a number or a bool.
struct Fact(Value);

impl<'de> Deserialize<'de> for Fact {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            fact @ (Value::String(_) | Value::Number(_) | Value::Bool(_)) => Ok(Self(fact)),
            _ => Err(D::Error::custom("a fact is a text, a number, true or false")),
        }
    }
}

impl JsonSchema for Fact {
    fn schema_name() -> Cow<'static, str> {
        "Fact".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// Nothing is changed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {}

/// Who decided.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Decided {
    /// Who approved, with `, ` between the names.
    decided_by: String,
    /// When the last of them did, as RFC 3339.
    decided_at: String,
    /// Why, in their words; of several people each reason behind its name.
    reason: String,
}

impl Step for Approval {
    const NAME: &'static str = "gate.approval";
    const EXAMPLES: &'static [&'static str] = &[
        "roles = [\"ops-lead\"]\nnot_requester = true\nexpires = \"1h\"\n",
        "question = \"Restore last night's backup over the shop?\"\nfacts = { lost_minutes = 14, taken_by = \"db1\", verified = true }\n",
    ];
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
        Some(Question {
            text: self.text(),
            roles: self.roles.clone(),
            count: self.count.get(),
            expires_s: self.expires.map(|expires| expires.0.as_secs_f64()),
            not_requester: self.not_requester,
            confirm: None,
            by_hand: false,
        })
    }
    async fn look(&self, _: &View) -> Result<Before, Error> {
        Ok(Before {})
    }
    fn say(&self, _: &Before) -> String {
        let people = if self.count.get() == 1 { "person" } else { "people" };
        let roles = if self.roles.is_empty() { String::new() } else { format!(" of {}", self.roles.join(" or ")) };
        let but = if self.not_requester { ", not the one who started the run," } else { "" };
        format!("wait for {} {people}{roles}{but} to approve: {}", self.count, self.text())
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Decided, Error> {
        let answers = &world.attempt().answers;
        let mut people = BTreeSet::new();
        let names: Vec<&str> = answers.iter().map(|answer| answer.by.as_str()).filter(|name| people.insert(*name)).collect();
        match answers.last() {
            Some(last) if names.len() >= self.count.get() as usize => {
                Ok(Decided { decided_by: names.join(", "), decided_at: last.at.clone(), reason: reason(answers) })
            }
            _ => Err(Error::Final(format!("only {} of {} different people have approved", names.len(), self.count))),
        }
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}

impl Approval {
    fn text(&self) -> String {
        let fact =
            |(name, fact): (&String, &Fact)| format!("\n  {name}: {}", fact.0.as_str().map_or_else(|| fact.0.to_string(), str::to_owned));
        self.question.as_deref().unwrap_or("May this run go on?").to_owned() + &self.facts.iter().map(fact).collect::<String>()
    }
}

fn reason(answers: &[Answer]) -> String {
    match answers {
        [one] => one.reason.clone(),
        several => several.iter().map(|answer| format!("{}: {}", answer.by, answer.reason)).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stage::{Stage, step};

    fn yes(by: &str, minute: u32) -> Answer {
        Answer { by: by.into(), at: format!("2026-01-02T03:{minute:02}:00Z"), reason: format!("reason {minute}") }
    }

    #[test]
    fn the_question_holds_the_facts() {
        let with = json!({ "question": "Promote?", "facts": { "lag_s": 3, "standby": "db2", "off": true }, "expires": "1h", "count": 2 });
        let question = step("gate.approval", with).unwrap().question().unwrap();
        assert_eq!(question.text, "Promote?\n  lag_s: 3\n  off: true\n  standby: db2");
        assert_eq!((question.count, question.expires_s, question.by_hand), (2, Some(3600.0), false));
        for with in [json!({ "count": 0 }), json!({ "facts": { "x": [1] } })] {
            assert!(step("gate.approval", with).is_err());
        }
    }

    #[tokio::test]
    async fn different_people_are_counted_and_not_their_answers() {
        let with = || json!({ "count": 2 });
        let twice = Stage::with(&[], vec![yes("ada", 1), yes("ada", 2)]).apply("gate.approval", with()).await;
        assert_eq!(twice, Err(Error::Final("only 1 of 2 different people have approved".into())));
        assert!(Stage::new().apply("gate.approval", json!({})).await.is_err());
        let out = Stage::with(&[], vec![yes("bob", 1), yes("ada", 2)]).apply("gate.approval", with()).await.unwrap();
        assert_eq!(
            out,
            json!({ "decided_by": "bob, ada", "decided_at": "2026-01-02T03:02:00Z", "reason": "bob: reason 1; ada: reason 2" })
        );
    }
}
