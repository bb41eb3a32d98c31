//! Events: the only thing ever recorded. A run is the fold of its events. Unaware of files and of what follows from them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use steps::{process::Captured, step::Question};

/// The version of the journal's format.
pub const FORMAT: u32 = 1;

/// An event with its place in the journal and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 1, 2, 3, …
    pub seq: u64,
    /// Which append it came with; only the last group may be torn.
    pub group: u64,
    /// Wall time, for people.
    pub at: Timestamp,
    /// Seconds since the machine was started, suspended time included: durations are differences of these.
    pub up: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What a person decides about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Try again.
    Retry,
    /// Go on without it.
    Skip,
    /// It was done by hand.
    Done,
    /// Yes, to a gate.
    Approve,
    /// No, to a gate or to work by hand.
    Reject,
}

/// What a person, or a limit, asks of a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// End what runs, and undo.
    Cancel,
    /// Undo.
    Rollback,
    /// Start nothing more, undo nothing.
    Stop,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Ended {
    /// It did what it should.
    Succeeded {
        /// What the kind gave.
        outputs: Json,
    },
    /// It did not.
    Failed {
        /// Why, and what to do.
        error: String,
        /// Whether the kind says that another try may pass.
        passing: bool,
        /// The exit status, where a program ended.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        code: Option<i32>,
        /// Outputs that it had before an expectation failed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        outputs: Option<Json>,
    },
    /// Its time was up, and it was ended.
    TimedOut {
        /// Seconds that it was given.
        after_s: f64,
    },
    /// It was ended because the run was cancelled.
    Cancelled,
    /// Nobody knows: the runner died, or the step could not be ended.
    Unknown,
}

/// What can happen in a run. Steps are named by their path: `backup`, `outer/inner`, `each[0]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A run begins. Always first.
    RunBegan {
        /// [`FORMAT`].
        format: u32,
        /// The run's id.
        run: String,
        /// The playbook's name as it was given.
        playbook: String,
        /// The playbook's title.
        title: String,
        /// SHA-256 over the snapshot.
        digest: String,
        /// Who started it.
        by: String,
        /// On which machine.
        host: String,
        /// Which boot of the machine.
        boot: String,
        /// The playbook's folder.
        directory: String,
        /// The params; secrets are not among them.
        params: Json,
        /// The runner's version.
        version: String,
    },
    /// A runner takes the run up again.
    RunResumed {
        /// Who.
        by: String,
        /// Which boot of the machine.
        boot: String,
        /// The digest of a changed playbook that was accepted.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        accepted: Option<String>,
    },
    /// A step's `when` was false, or there was nothing to do it for.
    Skipped {
        /// Which step.
        step: String,
        /// Why.
        why: String,
    },
    /// A `for_each` knows its items.
    Expanded {
        /// Which step.
        step: String,
        /// The items.
        items: Vec<Json>,
    },
    /// A step that uses a playbook enters it.
    Opened {
        /// Which step.
        step: String,
        /// The params given.
        params: Json,
    },
    /// A `for_each` or a playbook has ended well.
    Closed {
        /// Which step.
        step: String,
        /// Its outputs.
        outputs: Json,
    },
    /// A `for_each` or a playbook has failed as a whole, beyond its steps.
    Broke {
        /// Which step.
        step: String,
        /// Why.
        error: String,
    },
    /// An attempt is about to begin. On disk before it does.
    Began {
        /// Which step.
        step: String,
        /// 1, 2, 3, …
        attempt: u32,
        /// What `look` saw, with the first attempt.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        before: Option<Json>,
        /// Things that have to be gone when the run has ended.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        creates: Vec<String>,
    },
    /// An attempt has ended. Without `Began` before it, it never began: its settings or its look failed.
    Ended {
        /// Which step.
        step: String,
        /// 1, 2, 3, …
        attempt: u32,
        /// How.
        #[serde(flatten)]
        how: Ended,
        /// What its programs put out.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        captured: Vec<Captured>,
        /// When it is tried again, as seconds of the epoch.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        again_at: Option<f64>,
    },
    /// People are asked.
    Asked {
        /// Which step.
        step: String,
        /// What.
        question: Question,
    },
    /// A question went unanswered for too long.
    Expired {
        /// Which step.
        step: String,
    },
    /// A person decides about a step.
    Decided {
        /// Which step.
        step: String,
        /// What.
        decision: Decision,
        /// Who.
        by: String,
        /// In which role, as that person says.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        role: Option<String>,
        /// Why.
        reason: String,
    },
    /// A probe told whether a step had happened.
    Probed {
        /// Which step.
        step: String,
        /// Whether it had; nothing when the probe could not tell.
        happened: Option<bool>,
        /// The probe's outputs, which stand for the step's.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        outputs: Option<Json>,
    },
    /// Something is asked of the whole run.
    Requested {
        /// What.
        request: Request,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The run waits for people, and nothing else can be done.
    Paused {
        /// Why.
        why: String,
    },
    /// Everything that was attempted is now undone.
    RollbackBegan {
        /// Why.
        why: String,
    },
    /// A handler is about to begin.
    UndoBegan {
        /// Whose handler.
        step: String,
    },
    /// A handler has ended.
    UndoEnded {
        /// Whose handler.
        step: String,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        error: Option<String>,
    },
    /// A step can only be undone by a person.
    UndoLeft {
        /// Which step.
        step: String,
        /// How.
        by_hand: String,
    },
    /// The `always` steps begin.
    AlwaysBegan,
    /// The run has ended.
    RunEnded {
        /// How.
        verdict: Verdict,
    },
}

impl Event {
    /// The step that it is about.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Skipped { step, .. }
            | Self::Expanded { step, .. }
            | Self::Opened { step, .. }
            | Self::Closed { step, .. }
            | Self::Broke { step, .. }
            | Self::Began { step, .. }
            | Self::Ended { step, .. }
            | Self::Asked { step, .. }
            | Self::Expired { step }
            | Self::Decided { step, .. }
            | Self::Probed { step, .. }
            | Self::UndoBegan { step }
            | Self::UndoEnded { step, .. }
            | Self::UndoLeft { step, .. } => Some(step),
            Self::RunBegan { .. }
            | Self::RunResumed { .. }
            | Self::Requested { .. }
            | Self::Paused { .. }
            | Self::RollbackBegan { .. }
            | Self::AlwaysBegan
            | Self::RunEnded { .. } => None,
        }
    }
}

/// How a run ended; each part told apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// What became of the work.
    pub outcome: Outcome,
    /// What became of the undoing.
    pub rollback: Rollback,
    /// What became of the `always` steps.
    pub always: AlwaysVerdict,
    /// Whether anything was proven.
    pub verification: Verification,
    /// What was measured against its limit.
    pub objectives: ObjectivesVerdict,
    /// What is left for a person, in words.
    #[serde(default)]
    pub left: Vec<String>,
    /// 0, 1, 3, 4 or 130.
    pub exit_code: u8,
}

/// What became of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All done.
    Succeeded,
    /// All done, some of it only on another try or by hand.
    Recovered,
    /// Not done.
    Failed,
    /// Stopped on request.
    Cancelled,
}

/// What became of the undoing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rollback {
    /// There was none.
    None,
    /// Everything attempted was undone.
    Complete,
    /// Something is left.
    Incomplete,
}

/// What became of the `always` steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlwaysVerdict {
    /// There were none.
    None,
    /// All did what they should.
    Succeeded,
    /// One did not.
    Failed,
}

/// Whether anything was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// Nothing was verified.
    None,
    /// Everything that was verified held.
    Passed,
    /// A verification failed.
    Failed,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectivesVerdict {
    /// How long the recovery took.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rto: Option<Measured>,
    /// How much data was lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rpo: Option<Measured>,
}

/// One objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// The limit, in seconds.
    pub limit_s: f64,
    /// What was measured, in seconds; nothing when it could not be.
    pub measured_s: Option<f64>,
    /// Of that, seconds that people were waited for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub people_s: Option<f64>,
    /// Whether the limit was kept.
    pub met: bool,
    /// Why it could not be measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}
