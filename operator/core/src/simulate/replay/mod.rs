//! A stream of jobs played against the very planner that decides in a cluster
//! ([`crate::plan`]): tenants, queues, gangs, evictions, moves and
//! reservations, event by event. Nothing is read or drawn here: a scenario
//! says when jobs come, how long they really run and how fast they leave.
//!
//! What the planner sees of a job is its [`Workload`] and [`Running`] entry;
//! the rest ([`Facts`]) is known to the replay alone.

mod check;
mod engine;
mod outcome;
pub(super) mod world;

#[cfg(test)]
mod tests;

pub use outcome::{JobOutcome, Outcome, Point, ProfileSummary, Quantiles, Summary, TenantOutcome};

use serde::{Deserialize, Serialize};

use crate::model::{Movable, Plan, Running, Snapshot, Workload};
use crate::policy::Scorer;
use crate::queue::plan_with;

/// What is played.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// The cluster at the start, its tenants, the settings, and what runs already. `waiting` must be
    /// empty: what waits at the start is a job that was queued before.
    pub snapshot: Snapshot,
    /// When it starts, in milliseconds since 1970.
    pub start_ms: i64,
    /// For each of [`Snapshot::running`]: how it goes on from the start. Its `duration_ms` counts from there.
    pub running: Vec<Facts>,
    /// The jobs, in any order; their keys differ from one another's and from those of what runs.
    pub jobs: Vec<Job>,
    /// When it is cut off, in milliseconds since 1970; `None` plays until nothing happens any more.
    pub until_ms: Option<i64>,
    /// Time between two plans at least, in milliseconds; what happens in between is planned for together.
    pub cycle_ms: i64,
    /// Time between two [`Point`]s at least, in milliseconds.
    pub sample_ms: i64,
    /// Time from a replacement's start until it is ready, in milliseconds.
    pub ready_ms: i64,
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What is queued, at its `queued_ms`.
    pub workload: Workload,
    /// How it really goes.
    pub facts: Facts,
}

/// How a job really goes. The planner sees of it what a cluster would: the grace, that it may be asked
/// to leave, when its progress was last saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// How long it runs if nobody disturbs it, in milliseconds; more than 0.
    pub duration_ms: i64,
    /// Its progress is saved whenever it has run for this long, in milliseconds; `None`: never.
    pub checkpoint_ms: Option<i64>,
    /// How long after being asked it leaves at the latest, in milliseconds.
    pub grace_ms: i64,
    /// How long after being asked it does leave, in milliseconds; at most `grace_ms`. `None` takes all of it.
    pub leaves_after_ms: Option<i64>,
    /// Whether it may be asked to leave.
    pub evictable: bool,
    /// Whether, and how, it may be moved.
    pub movable: Movable,
}

/// Why a scenario could not be played, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Something about the scenario as a whole.
    #[error("scenario, field {field}: {problem}")]
    Scenario {
        /// The field.
        field: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Something about a job.
    #[error("job {key:?}, field {field}: {problem}")]
    Job {
        /// The job.
        key: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A plan that cannot be carried out: a fault of the planner, not of the scenario.
    #[error("the plan made at {now_ms} ms cannot be carried out: {problem}")]
    Plan {
        /// When it was made.
        now_ms: i64,
        /// What is wrong with it.
        problem: String,
    },
    /// Plan after plan, nothing comes of it: a fault of the planner.
    #[error(
        "{plans} plans up to {now_ms} ms without a job that arrived or ended: the planner goes round in circles"
    )]
    Circles {
        /// When it was given up.
        now_ms: i64,
        /// How many.
        plans: u32,
    },
}

/// Hears of a replay while it goes on. Every method may be left as it is.
pub trait Observer {
    /// How much of it has been played, from 0 to 1; called a few hundred times at most.
    fn progress(&mut self, fraction: f64) {
        let _ = fraction;
    }

    /// A plan was made for `snapshot`, and is carried out next.
    fn planned(&mut self, snapshot: &Snapshot, now_ms: i64, plan: &Plan) {
        let _ = (snapshot, now_ms, plan);
    }

    /// Something gave its devices back: it ended, or it left because it was asked to.
    fn left(&mut self, running: &Running, now_ms: i64, ended: bool) {
        let _ = (running, now_ms, ended);
    }

    /// Asked after each plan: whether to stop here, as if [`Scenario::until_ms`] had come.
    fn enough(&self) -> bool {
        false
    }
}

/// Hears nothing.
impl Observer for () {}

/// Plays `scenario` with the planner of the cluster.
pub fn replay(scenario: &Scenario, observer: &mut impl Observer) -> Result<Outcome, ReplayError> {
    let scorer = Scorer::new(&scenario.snapshot);
    replay_by(scenario, |snapshot, now_ms| plan_with(snapshot, &scorer, now_ms), observer)
}

/// The same with another planner, for comparison.
pub fn replay_by(
    scenario: &Scenario,
    planner: impl FnMut(&Snapshot, i64) -> Plan,
    observer: &mut impl Observer,
) -> Result<Outcome, ReplayError> {
    engine::Engine::new(scenario)?.run(planner, observer)
}
