//! The condition types of vingt's kinds, and how one is set.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Condition types; the words are Kueue's where the meaning is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The tenant's quota holds the whole job.
    QuotaReserved,
    /// Quota, nodes and devices are decided for the whole job.
    Admitted,
    /// Every pod of the job is ready.
    PodsReady,
    /// The job was taken back after it was admitted.
    Evicted,
    /// It was taken back in favour of another job.
    Preempted,
    /// It has ended, well or badly; the reason says which.
    Finished,
    /// The object does what its spec asks for.
    Ready,
    /// The operator is still working on the latest spec.
    Reconciling,
    /// What a reserve promises at once fits now.
    Deliverable,
    /// A reserve's share is raised.
    Crisis,
}

impl ConditionType {
    /// The `type` of the condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QuotaReserved => "QuotaReserved",
            Self::Admitted => "Admitted",
            Self::PodsReady => "PodsReady",
            Self::Evicted => "Evicted",
            Self::Preempted => "Preempted",
            Self::Finished => "Finished",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Deliverable => "Deliverable",
            Self::Crisis => "Crisis",
        }
    }
}

/// Sets one condition. `lastTransitionTime` moves only when the status does.
/// Returns whether anything changed.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    type_: ConditionType,
    status: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let status = if status { "True" } else { "False" };
    let old = conditions.iter_mut().find(|condition| condition.type_ == type_.as_str());
    let since = match &old {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        _ => Time(now),
    };
    let new = Condition {
        type_: type_.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match old {
        Some(old) if *old == new => false,
        Some(old) => {
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut conditions = Vec::new();
        let mut set = |status, message, second| {
            let changed = set_condition(
                &mut conditions,
                ConditionType::Admitted,
                status,
                "R",
                message,
                Some(1),
                at(second),
            );
            (changed, conditions[0].last_transition_time.0, conditions.len())
        };
        assert_eq!(set(false, "a", 1), (true, at(1), 1));
        assert_eq!(set(false, "a", 2), (false, at(1), 1), "nothing new is no change");
        assert_eq!(set(false, "b", 3), (true, at(1), 1), "a new message keeps the time");
        assert_eq!(set(true, "b", 4), (true, at(4), 1), "a new status moves it");
    }
}
