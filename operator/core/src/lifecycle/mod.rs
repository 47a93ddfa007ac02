//! What to do next with one training gang: a total function from what is wished,
//! recorded and there to one step. Takes no step itself, and says nothing about
//! where the gang goes.
//!
//! ```text
//!            plan recorded          Job there        resumed       pods, claims there
//!   Queue ----------------> CreateJob -------> Resume -------> Wait ----------> Bind -> Ungate -> Wait
//!     ^                                                                                            |
//!     |  nothing left                 pods leave            recorded: withdrawals or restarts + 1  |
//!   ClearPlan <------- DeleteJob, Wait <-------- Suspend, DeleteJob <----- Withdraw, Restart <-----+
//! ```
//! Workers that their Job left behind are removed before anything else.
//!
//! Each step is one thing to bring about; when it has, the facts have changed and
//! lead to the next one. A crash between two steps repeats at most the first: what
//! a step must not do twice (counting) is a write to the status together with the
//! fact that rules it out ([`GangFacts::leaving`]).

mod backoff;

use std::fmt;

pub use backoff::{backoff_ms, not_before_ms};

/// Everything the next step depends on, besides the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Independent facts, each seen in another object.
pub struct GangFacts {
    /// The object is being deleted and waits for our finalizer.
    pub deleted: bool,
    /// The user wants it not to run.
    pub suspend: bool,
    /// Number of workers wished for.
    pub workers: u32,
    /// Whether a failed gang is started again.
    pub restart: Restart,
    /// How often at most.
    pub max_restarts: u32,
    /// How long not all pods may be ready before the gang is withdrawn.
    pub ready_timeout_ms: i64,
    /// How long it may run, from its first admission on.
    pub active_deadline_ms: Option<i64>,

    /// Recorded in the status: it has ended.
    pub finished: Option<Outcome>,
    /// Recorded in the status: how often it was started again after a failure.
    pub restarts: u32,
    /// Recorded in the status: there is a plan.
    pub planned: bool,
    /// Recorded in the status: the plan is being taken back, and why.
    pub leaving: Option<Leaving>,
    /// Recorded in the status: when the plan was made, in milliseconds since 1970.
    pub admitted_ms: Option<i64>,
    /// Recorded in the status: when the first plan was made since the user last
    /// suspended it, in milliseconds since 1970. Later tries don't change it.
    pub first_admitted_ms: Option<i64>,
    /// Since when not all pods are ready, in milliseconds since 1970: the
    /// admission, or when the gang stopped being ready; `None` while it is ready.
    pub unready_since_ms: Option<i64>,

    /// The Job.
    pub job: JobState,
    /// Its pods.
    pub pods: PodCounts,
    /// Claims of the gang that still hold a decision or an allocation.
    pub claims_held: u32,
    /// Of these, the claims of pods that are gone, have ended, or are being deleted.
    pub claims_stray: u32,
    /// Pods that hold claims of the gang and are no Job's: theirs was deleted without them.
    pub abandoned: u32,
    /// A node or a device of the plan is gone.
    pub plan_lost: bool,
    /// Decided just now: others get its room, and by what right. It is recorded before anything else is done.
    pub asked: Option<Leaving>,
}

/// Whether a failed gang is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Yes, as a whole.
    #[default]
    OnFailure,
    /// No.
    Never,
}

/// The gang's Job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobState {
    /// There is none.
    #[default]
    None,
    /// It is suspended, so that it has no pods or they are leaving.
    Suspended,
    /// It makes and keeps pods.
    Running,
    /// It has failed; pods of it may still be leaving.
    Failed,
    /// All its pods have succeeded.
    Succeeded,
    /// It is being deleted.
    Deleting,
}

/// The pods of the gang that are there, however far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// Pods that are neither failed nor being deleted; those that have succeeded count.
    pub live: u32,
    /// Of the live ones, those with our gate.
    pub gated: u32,
    /// Of the gated ones, those whose claim is not there yet.
    pub claim_missing: u32,
    /// Of the gated ones, those whose claim is not yet recorded and allocated as planned.
    pub claim_unwritten: u32,
    /// Of the gated ones, those whose claim was given other devices than planned.
    pub claim_conflicting: u32,
    /// Pods that have not ended, whether gated or being deleted.
    pub present: u32,
}

/// How a gang ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every worker succeeded.
    Succeeded,
    /// It failed, for this reason.
    Failed(Failure),
}

/// Why a gang failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A worker failed and the gang is not, or not any more, started again.
    WorkerFailed,
    /// It ran for longer than it may.
    DeadlineExceeded,
}

/// Why a plan is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Not all pods were ready in time.
    NotReady,
    /// A node or a device of the plan is gone.
    PlanLost,
    /// A claim was given other devices than planned.
    ClaimTaken,
    /// The user suspended it.
    Suspended,
    /// A worker failed; all are started again.
    Restart,
    /// Its tenant held what is guaranteed to another.
    Reclaimed,
    /// A job of the same tenant has a higher priority.
    Preempted,
    /// A sovereign reserve took its room.
    Claimed,
    /// It stood in the way by its place only.
    Moved,
}

impl Leaving {
    /// Whether the next try waits longer the more often this happened.
    pub const fn backs_off(self) -> bool {
        match self {
            Self::NotReady | Self::PlanLost | Self::ClaimTaken => true,
            Self::Suspended
            | Self::Restart
            | Self::Reclaimed
            | Self::Preempted
            | Self::Claimed
            | Self::Moved => false,
        }
    }

    /// Whether it keeps its place in the queue: it stood in the way by its place only. Who leaves for somebody that has a
    /// right to its room queues anew: else two who are evicted in turn could be ahead of a third for ever.
    pub const fn keeps_its_place(self) -> bool {
        matches!(self, Self::Moved)
    }
}

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "not all workers were ready in time",
            Self::PlanLost => "a node or a device of the plan is gone",
            Self::ClaimTaken => "a worker's claim was given other devices than planned",
            Self::Suspended => "suspended by the user",
            Self::Restart => "a worker failed; the gang is started again",
            Self::Reclaimed => "stopped for a tenant that took back what it is guaranteed",
            Self::Preempted => "stopped for a job of the same tenant with a higher priority",
            Self::Claimed => "stopped for a job that draws on a sovereign reserve",
            Self::Moved => "stopped to be started elsewhere, because another job fits only where it ran",
        })
    }
}

/// The next thing to bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GangStep {
    /// Nothing of it is anywhere: it takes part in planning. When it is
    /// admitted, the plan and the time are recorded in its status.
    Queue,
    /// Make the Job, suspended, with the Service and the `ResourceClaimTemplate`.
    CreateJob,
    /// Resume the Job, so that its pods appear, gated.
    Resume,
    /// Write decision record and allocation of every claim that lacks them.
    Bind,
    /// Every claim is written: take the gates off and pin the pods to their nodes.
    Ungate,
    /// Nothing, until something changes or this time comes (milliseconds since 1970).
    Wait {
        /// When to look again, if nothing changes before.
        until_ms: Option<i64>,
    },
    /// Record in the status that the plan is being taken back, one withdrawal
    /// more if [`Leaving::backs_off`], and the nodes to avoid.
    Withdraw {
        /// Why.
        reason: Leaving,
        /// Whether the nodes of the pods that are not ready are to be avoided.
        avoid: bool,
    },
    /// Record in the status one restart more, and that the plan is being taken back.
    Restart,
    /// Suspend the Job, so that its pods leave.
    Suspend,
    /// Delete the Job.
    DeleteJob,
    /// Nothing of the plan is left: clear it, and that it is being taken back.
    ClearPlan,
    /// Record in the status that it has ended.
    Finish(Outcome),
    /// Delete the pods that are no Job's: no other is made for a worker while they hold what it is to get.
    DeleteAbandoned,
    /// Nothing of the deleted object is left: remove the finalizer.
    Release,
}

/// The next step with a gang.
pub fn next_step(facts: &GangFacts, now_ms: i64) -> GangStep {
    if facts.abandoned > 0 {
        return GangStep::DeleteAbandoned;
    }
    let something_left = facts.pods.present > 0 || facts.claims_held > 0;
    if facts.deleted {
        return match facts.job {
            JobState::Deleting => WAIT,
            JobState::None if something_left => WAIT,
            JobState::None => GangStep::Release,
            JobState::Suspended | JobState::Running | JobState::Failed | JobState::Succeeded => {
                GangStep::DeleteJob
            }
        };
    }
    if facts.finished.is_some() {
        return match facts.job {
            JobState::Running => GangStep::Suspend,
            JobState::None
            | JobState::Suspended
            | JobState::Failed
            | JobState::Succeeded
            | JobState::Deleting => WAIT,
        };
    }
    if facts.job == JobState::Succeeded {
        return GangStep::Finish(Outcome::Succeeded);
    }
    if facts.planned && facts.leaving.is_none() {
        return forward(facts, now_ms);
    }
    match facts.job {
        JobState::Running => GangStep::Suspend,
        JobState::Deleting => WAIT,
        JobState::None | JobState::Suspended | JobState::Succeeded if something_left => WAIT,
        // Resumed again it would leave out the workers that were done: a gang starts whole, with a new one.
        JobState::Failed | JobState::Suspended | JobState::Succeeded => GangStep::DeleteJob,
        JobState::None => {
            if facts.planned || facts.leaving.is_some() {
                GangStep::ClearPlan
            } else if facts.suspend {
                WAIT
            } else {
                GangStep::Queue
            }
        }
    }
}

const WAIT: GangStep = GangStep::Wait { until_ms: None };

/// The next step with a gang that has a plan and is to run.
fn forward(facts: &GangFacts, now_ms: i64) -> GangStep {
    let deadline = facts.first_admitted_ms.zip(facts.active_deadline_ms);
    let deadline = deadline.map(|(admitted, active)| admitted.saturating_add(active));
    let ready_by = facts.unready_since_ms.map(|since| since.saturating_add(facts.ready_timeout_ms));
    let passed = |time: Option<i64>| time.is_some_and(|time| time <= now_ms);
    let pods = &facts.pods;

    if facts.suspend {
        return GangStep::Withdraw { reason: Leaving::Suspended, avoid: false };
    }
    if passed(deadline) {
        return GangStep::Finish(Outcome::Failed(Failure::DeadlineExceeded));
    }
    if facts.job == JobState::Failed {
        let again = facts.restart == Restart::OnFailure && facts.restarts < facts.max_restarts;
        let failed = GangStep::Finish(Outcome::Failed(Failure::WorkerFailed));
        return if again { GangStep::Restart } else { failed };
    }
    if facts.plan_lost {
        return GangStep::Withdraw { reason: Leaving::PlanLost, avoid: true };
    }
    if pods.claim_conflicting > 0 {
        return GangStep::Withdraw { reason: Leaving::ClaimTaken, avoid: false };
    }
    if let Some(reason) = facts.asked {
        return GangStep::Withdraw { reason, avoid: false };
    }
    if passed(ready_by) {
        // Pods that never got to a node tell nothing about it.
        return GangStep::Withdraw { reason: Leaving::NotReady, avoid: pods.live > pods.gated };
    }
    let complete = pods.gated > 0 && pods.live >= facts.workers && pods.claim_missing == 0;
    match facts.job {
        JobState::None => GangStep::CreateJob,
        JobState::Suspended => GangStep::Resume,
        JobState::Running if complete && pods.claim_unwritten == 0 => GangStep::Ungate,
        // What a worker's last pod still holds cannot be given to its next one.
        JobState::Running if complete && facts.claims_stray == 0 => GangStep::Bind,
        JobState::Running | JobState::Failed | JobState::Succeeded | JobState::Deleting => {
            GangStep::Wait { until_ms: ready_by.into_iter().chain(deadline).min() }
        }
    }
}

/// Where a gang is, in the one word that users read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GangState {
    /// It waits for its turn or for room.
    Waiting,
    /// It has a plan; not all workers are ready yet.
    Starting,
    /// All workers are ready.
    Running,
    /// Its workers leave, to be started again.
    Restarting,
    /// The user suspended it.
    Suspended,
    /// Every worker succeeded.
    Succeeded,
    /// It failed for good.
    Failed,
}

impl GangState {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Restarting => "Restarting",
            Self::Suspended => "Suspended",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// The state that the facts amount to.
    pub fn of(facts: &GangFacts) -> Self {
        match (facts.finished, facts.leaving) {
            (Some(Outcome::Succeeded), _) => Self::Succeeded,
            (Some(Outcome::Failed(_)), _) => Self::Failed,
            (None, _) if facts.suspend => Self::Suspended,
            (None, Some(Leaving::Restart)) => Self::Restarting,
            (None, Some(_)) => Self::Waiting,
            (None, None) if !facts.planned => Self::Waiting,
            (None, None) if facts.unready_since_ms.is_some() => Self::Starting,
            (None, None) => Self::Running,
        }
    }
}

#[cfg(test)]
mod tests;
