//! `manual`: work for a person.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    step::{Effect, Error, Kind, Question, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Manual>();

/// Waits until a person has done something by hand, and records who, when and what they note.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manual {
    /// What is to be done, step by step.
    instructions: String,
    /// The role that does it.
    role: Option<String>,
    /// What the person has to type to confirm.
    confirm: Option<String>,
}

/// Nothing is changed by the runner.
#[derive(Serialize, Deserialize)]
pub struct Before {}

/// Who did it.
#[derive(Serialize, JsonSchema)]
pub struct Done {
    /// Who did it.
    done_by: String,
    /// When it was confirmed, RFC 3339.
    done_at: String,
    /// What the person noted.
    note: String,
}

impl Step for Manual {
    const NAME: &'static str = "manual";
    const EXAMPLES: &'static [&'static str] = &["instructions = \"Put tape 42 into drive 1.\"\nrole = \"infrastructure\"\nconfirm = \"tape 42\"\n"];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Done;
    fn effect(&self) -> Effect {
        Effect::Write
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    fn question(&self) -> Option<Question> {
        Some(Question {
            text: self.instructions.clone(),
            roles: self.role.iter().cloned().collect(),
            count: 1,
            expires_s: None,
            not_requester: false,
            confirm: self.confirm.clone(),
            by_hand: true,
        })
    }
    async fn look(&self, _: &View) -> Result<Before, Error> {
        Ok(Before {})
    }
    fn say(&self, _: &Before) -> String {
        format!("wait for {} to do: {}", self.role.as_deref().unwrap_or("a person"), self.instructions)
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Done, Error> {
        let answers = &world.attempt().answers;
        let answer = answers.last().ok_or_else(|| Error::Final("nobody has said that it is done".into()))?;
        Ok(Done { done_by: answer.by.clone(), done_at: answer.at.clone(), note: answer.reason.clone() })
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}
