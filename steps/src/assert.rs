//! `assert`: expressions that have to hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    setting::{Expression, OneOrMore},
    step::{Effect, Error, Kind, Reversal, Step},
    world::{View, World},
};

pub(crate) const KIND: Kind = Kind::of::<Assert>();

/// Fails unless every expression holds. All of them are evaluated, so that everything that is wrong is said at once. Say
/// `verifies = true` on the step when what it checks is a proof; by itself an assert is none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assert {
    /// The expressions that have to hold.
    that: OneOrMore<Expression>,
    /// What it means when one of them does not, and what to do.
    message: Option<String>,
}

/// Nothing is changed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Before {}

/// What was checked.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Asserted {
    /// How many expressions were evaluated; all of them hold.
    checked: usize,
}

impl Step for Assert {
    const NAME: &'static str = "assert";
    const EXAMPLES: &'static [&'static str] =
        &["that = [\"2 > 1\", \"'standby' != 'primary'\"]\nmessage = \"This is the primary: promote the other one.\"\n"];
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
        Ok(Before {})
    }
    fn say(&self, _: &Before) -> String {
        let all: Vec<String> = self.that.0.iter().map(|that| format!("`{}`", that.0)).collect();
        format!("check that {}", all.join(" and "))
    }
    async fn apply(&self, world: &World, _: &Before) -> Result<Asserted, Error> {
        let wrong: Vec<String> = self.that.0.iter().filter_map(|that| complaint(world, that)).collect();
        if wrong.is_empty() {
            return Ok(Asserted { checked: self.that.0.len() });
        }
        let message = self.message.as_ref().map(|message| format!("{message} ")).unwrap_or_default();
        Err(Error::Final(format!("{message}({})", wrong.join("; "))))
    }
    async fn undo(&self, _: &World, _: &Before) -> Result<(), Error> {
        Ok(())
    }
}

fn complaint(world: &World, that: &Expression) -> Option<String> {
    match world.holds(&that.0, &Value::Null) {
        Ok(true) => None,
        Ok(false) => Some(format!("`{}` does not hold", that.0)),
        Err(e) => Some(format!("`{}` cannot be evaluated: {}", that.0, e.says())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stage::{Stage, step};

    #[tokio::test]
    async fn everything_that_is_wrong_is_said_at_once() {
        let stage = Stage::new();
        assert_eq!(stage.apply("assert", json!({ "that": ["true", "not false"] })).await.unwrap(), json!({ "checked": 2 }));
        let wrong = stage.apply("assert", json!({ "that": ["false", "true", "nothing"], "message": "Call Ada." })).await;
        let says = "Call Ada. (`false` does not hold; `nothing` cannot be evaluated: `nothing` gives no bool)";
        assert_eq!(wrong, Err(Error::Final(says.into())));
        assert!(step("assert", json!({ "that": [] })).err().unwrap().contains("at least one entry"));
    }
}
