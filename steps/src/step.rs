//! What a step is: the trait that a kind implements, and the row by which the runner knows it.
//! Unaware of runs, playbooks and journals.

use std::{future::Future, pin::Pin};

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::world::{View, World};

/// A step of some kind: its settings, and what can be done with them.
pub trait Step: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// `family.kind`, which is also the place of its file.
    const NAME: &'static str;
    /// TOML of `with`: shown in the reference, run by tests.
    const EXAMPLES: &'static [&'static str];
    /// Whether success proves something about a backup or a database.
    const VERIFIES: bool = false;
    /// Whether a step that may have run may simply run again.
    const RERUN: bool = false;
    /// Whether the kind says of a failure if it is worth another try.
    const TELLS_PASSING: bool = true;

    /// What was there before the first attempt: all that `undo` needs. Journaled before `apply`.
    type Before: Serialize + DeserializeOwned + Send + Sync;
    /// What `steps.ID.…` may name.
    type Output: Serialize + JsonSchema;

    /// What the step does to the world.
    fn effect(&self) -> Effect;
    /// How far `undo` brings back what was there.
    fn reversal(&self) -> Reversal;
    /// Programs that the step needs.
    fn tools(&self) -> Vec<Tool> {
        Vec::new()
    }
    /// What people have to answer before `apply`.
    fn question(&self) -> Option<Question> {
        None
    }
    /// Looks at the world without changing it, once, before the first attempt.
    fn look(&self, view: &View) -> impl Future<Output = Result<Self::Before, Error>> + Send;
    /// The line of a rehearsal: what `apply` would do.
    fn say(&self, before: &Self::Before) -> String;
    /// Does it. Called again after a failure, with the same `before`: it must do no harm twice.
    fn apply(&self, world: &World, before: &Self::Before) -> impl Future<Output = Result<Self::Output, Error>> + Send;
    /// Undoes it, also after half an `apply`, also twice.
    fn undo(&self, world: &World, before: &Self::Before) -> impl Future<Output = Result<(), Error>> + Send;
}

/// What a step does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Looks only.
    Read,
    /// Adds or changes what can be changed back.
    Write,
    /// Removes or replaces data.
    Destroy,
}

/// How far an undo goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reversal {
    /// The undo restores exactly what was there.
    Exact,
    /// The undo makes good, without restoring every byte.
    Compensates,
    /// There is nothing to undo.
    Nothing,
    /// It can never be undone.
    Never,
}

/// A program that a step needs, found by `which`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tool {
    /// Name or path of the program.
    pub name: String,
    /// The Debian package that brings it, where that is known.
    pub package: Option<&'static str>,
}

/// What people have to answer before a step goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// What is asked.
    pub text: String,
    /// Roles of the site that may answer; empty: anyone.
    pub roles: Vec<String>,
    /// How many different people have to say yes.
    pub count: u32,
    /// Seconds after which no answer counts as a refusal.
    pub expires_s: Option<f64>,
    /// Whether the person who started the run is not to answer.
    pub not_requester: bool,
    /// Text that has to be typed to confirm.
    pub confirm: Option<String>,
    /// Whether the answer is «done» (work by hand) and not «approve».
    pub by_hand: bool,
}

/// One person's yes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Who answered.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why, in the person's words.
    pub reason: String,
}

/// Why a step did not succeed. Whether another try is worth it is said, never guessed.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// It may pass: worth another try.
    Passing(String),
    /// Another try would fail as well.
    Final(String),
    /// A program ended with an exit status that is not among those that mean success.
    Exit {
        /// The exit status; none after a signal.
        code: Option<i32>,
        /// What happened and what to do.
        says: String,
    },
    /// It was told to stop, and has.
    Stopped,
}

impl Error {
    /// The sentence for people.
    pub fn says(&self) -> &str {
        match self {
            Self::Passing(says) | Self::Final(says) | Self::Exit { says, .. } => says,
            Self::Stopped => "stopped",
        }
    }
}

/// What a step does, under way.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A step of some kind with its two types frozen to JSON: what the engine holds.
pub trait AnyStep: Send + Sync {
    /// See [`Step::effect`].
    fn effect(&self) -> Effect;
    /// See [`Step::reversal`].
    fn reversal(&self) -> Reversal;
    /// See [`Step::tools`].
    fn tools(&self) -> Vec<Tool>;
    /// See [`Step::question`].
    fn question(&self) -> Option<Question>;
    /// See [`Step::look`].
    fn look<'a>(&'a self, view: &'a View) -> Doing<'a, Value>;
    /// See [`Step::say`].
    fn say(&self, before: &Value) -> Result<String, Error>;
    /// See [`Step::apply`].
    fn apply<'a>(&'a self, world: &'a World, before: &'a Value) -> Doing<'a, Value>;
    /// See [`Step::undo`].
    fn undo<'a>(&'a self, world: &'a World, before: &'a Value) -> Doing<'a, ()>;
}

impl<S: Step> AnyStep for S {
    fn effect(&self) -> Effect {
        Step::effect(self)
    }
    fn reversal(&self) -> Reversal {
        Step::reversal(self)
    }
    fn tools(&self) -> Vec<Tool> {
        Step::tools(self)
    }
    fn question(&self) -> Option<Question> {
        Step::question(self)
    }
    fn look<'a>(&'a self, view: &'a View) -> Doing<'a, Value> {
        Box::pin(async move { freeze(&Step::look(self, view).await?) })
    }
    fn say(&self, before: &Value) -> Result<String, Error> {
        Ok(Step::say(self, &thaw(before)?))
    }
    fn apply<'a>(&'a self, world: &'a World, before: &'a Value) -> Doing<'a, Value> {
        Box::pin(async move { freeze(&Step::apply(self, world, &thaw(before)?).await?) })
    }
    fn undo<'a>(&'a self, world: &'a World, before: &'a Value) -> Doing<'a, ()> {
        Box::pin(async move { Step::undo(self, world, &thaw(before)?).await })
    }
}

fn freeze(value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|e| Error::Final(format!("the result cannot be recorded: {e}")))
}

fn thaw<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(value).map_err(|e| Error::Final(format!("what was recorded before the step cannot be read: {e}")))
}

/// Settings that a kind refuses: where in `with`, and why.
#[derive(Debug)]
pub struct Refused {
    /// Keys from `with` down to the place.
    pub path: Vec<String>,
    /// Why, in words.
    pub says: String,
}

/// One row of the table of kinds.
pub struct Kind {
    /// `family.kind`.
    pub name: &'static str,
    /// TOML of `with`.
    pub examples: &'static [&'static str],
    /// See [`Step::VERIFIES`].
    pub verifies: bool,
    /// See [`Step::RERUN`].
    pub rerun: bool,
    /// See [`Step::TELLS_PASSING`].
    pub tells_passing: bool,
    /// The schema of `with`.
    pub settings: fn() -> Schema,
    /// The schema of the outputs.
    pub output: fn() -> Schema,
    /// Reads settings that have been rendered.
    pub read: fn(Value) -> Result<Box<dyn AnyStep>, Refused>,
}

impl Kind {
    /// The row of a kind.
    pub const fn of<S: Step>() -> Self {
        Self {
            name: S::NAME,
            examples: S::EXAMPLES,
            verifies: S::VERIFIES,
            rerun: S::RERUN,
            tells_passing: S::TELLS_PASSING,
            settings: || schemars::schema_for!(S),
            output: || schemars::schema_for!(S::Output),
            read: |with| match serde_path_to_error::deserialize::<_, S>(with) {
                Ok(step) => Ok(Box::new(step)),
                Err(e) => {
                    let path = e.path().iter().filter_map(segment).collect();
                    Err(Refused { path, says: e.into_inner().to_string() })
                }
            },
        }
    }
}

fn segment(segment: &serde_path_to_error::Segment) -> Option<String> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}
