//! `assert`: expressions that have to hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    setting::Expression,
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Assert>();

/// Fails unless every expression holds. Say `verifies = true` on the step when what it checks is a proof.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assert {
    /// What has to hold.
    #[schemars(length(min = 1))]
    that: Vec<Expression>,
    /// What it means when it does not, and what to do.
    message: Option<String>,
}

/// Nothing is changed, so nothing has to be known.
#[derive(Serialize, Deserialize)]
pub struct Before {}

/// What was checked.
#[derive(Serialize, JsonSchema)]
pub struct Asserted {
    /// How many expressions held.
    checked: usize,
}

impl Step for Assert {
    const NAME: &'static str = "assert";
    const EXAMPLES: &'static [&'static str] = &["that = [\"1 + 1 == 2\"]\nmessage = \"arithmetic is broken\"\n"];
    const RERUN: bool = true;
    type Before = Before;
    type Output = Asserted;
    fn effect(&self) -> Effect {
        Effect::Read
    }
    fn reversal(&self) -> Reversal {
        Reversal::Nothing
    }
    async fn look(&self, _: &View) -> Result<Before, Error> {
        match self.that.is_empty() {
            true => Err(Error::Final("`that` is empty: an assert that checks nothing proves nothing".into())),
            false => Ok(Before {}),
        }
    }
    fn say(&self, _: &Before) -> String {
        format!("check that {}", self.that.iter().map(|e| e.0.as_str()).collect::<Vec<_>>().join(", and that "))
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Asserted, Error> {
        let mut wrong = Vec::new();
        for that in &self.that {
            if !world.holds(&that.0, &Value::Null)? {
                wrong.push(format!("`{}`", that.0));
            }
        }
        if wrong.is_empty() {
            return Ok(Asserted { checked: self.that.len() });
        }
        let message = self.message.as_ref().map_or(String::new(), |message| format!("{message}: "));
        Err(Error::Final(format!("{message}{} {} not so", wrong.join(", "), if wrong.len() == 1 { "is" } else { "are" })))
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}
