//! `manual`: work for a person.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    step::{Effect, Error, Kind, Question, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Manual>();

/// Waits until a person has done something by hand, and records who, when and what they note. `runsheet decide RUN STEP done
/// --reason …` answers it. What a person did is not undone by itself: give the step a `rollback`, or say `by_hand` how.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manual {
    /// What is to be done, step by step, for somebody who does it for the first time.
    instructions: String,
    /// The role whose members may say that it is done; anyone when not said.
    role: Option<String>,
    /// What the person has to type to confirm, such as the name of the server that was switched off.
    confirm: Option<String>,
}

/// Nothing: what a person found there is not known.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {}

/// Who did it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Done {
    /// Who said that it is done.
    done_by: String,
    /// When that was, as RFC 3339.
    done_at: String,
    /// What the person noted.
    note: String,
}

impl Step for Manual {
    const NAME: &'static str = "manual";
    const EXAMPLES: &'static [&'static str] = &[
        "instructions = \"Take today's tape out of drive 2 and put it into the safe.\"\n",
        "instructions = \"Switch off the old primary at its power button.\"\nrole = \"infrastructure\"\nconfirm = \"db1\"\n",
    ];
    // All that it does is take the answers, which are recorded: nobody is asked twice.
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
        let who = self.role.as_ref().map_or("a person".into(), |role| format!("one of {role}"));
        format!("wait for {who} to do by hand: {}", self.instructions.trim())
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Done, Error> {
        match world.attempt().answers.last() {
            Some(answer) => Ok(Done { done_by: answer.by.clone(), done_at: answer.at.clone(), note: answer.reason.clone() }),
            None => Err(Error::Final("nobody has said that it is done".into())),
        }
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        stage::{Stage, step},
        step::Answer,
    };

    #[tokio::test]
    async fn a_persons_word_becomes_the_outputs() {
        let with = json!({ "instructions": "Pull the plug.", "role": "ops", "confirm": "db1" });
        let question = step("manual", with.clone()).unwrap().question().unwrap();
        assert_eq!((question.roles, question.confirm, question.by_hand), (vec!["ops".to_owned()], Some("db1".to_owned()), true));
        let answer = Answer { by: "ada".into(), at: "2026-01-02T03:04:05Z".into(), reason: "plug 7".into() };
        let out = Stage::with(&[], vec![answer]).apply("manual", with.clone()).await.unwrap();
        assert_eq!(out, json!({ "done_by": "ada", "done_at": "2026-01-02T03:04:05Z", "note": "plug 7" }));
        assert_eq!(Stage::new().apply("manual", with).await, Err(Error::Final("nobody has said that it is done".into())));
    }
}
