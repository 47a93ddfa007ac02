//! What the status of a `TrainingJob` says next: the facts in words and
//! conditions, and what the lifecycle wants recorded. A pure function of the
//! old status; who writes it, and when, is not here.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use vingt_core::lifecycle::{GangFacts, GangState, Leaving, Outcome};
use vingt_crds::{
    Assignment, Basis, ConditionType, LastEviction, TrainingJob, TrainingJobStatus, set_condition,
};

use super::facts::{Gang, leaving_reason, outcome_reason};

/// The state of a job that cannot be.
pub const INVALID: &str = "Invalid";

/// What is to be recorded besides the facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// Nothing.
    #[default]
    Nothing,
    /// The job cannot be, and why.
    Invalid(String),
    /// It waits, and why.
    Waits(String),
    /// The plan.
    Admit(Vec<Assignment>, Basis),
    /// The plan is being taken back.
    Withdraw {
        /// Why.
        reason: Leaving,
        /// Nodes to avoid in the next try.
        avoid: Vec<String>,
        /// The workload that gets its room, if it leaves for others.
        by: Option<String>,
    },
    /// A worker failed; the gang is started again.
    Restart,
    /// Nothing of the plan is left.
    Clear,
    /// It has ended.
    Finish(Outcome),
}

/// The status that says `record` and the facts.
pub fn next(
    job: &TrainingJob,
    gang: &Gang,
    tenant: Option<&str>,
    record: &Record,
    now: Timestamp,
) -> TrainingJobStatus {
    let mut status = job.status.clone().unwrap_or_default();
    let mut facts = gang.facts.clone();
    let generation = job.metadata.generation;
    let mut condition = |status: &mut TrainingJobStatus, type_, truth, reason: &str, message: &str| {
        set_condition(&mut status.conditions, type_, truth, reason, message, generation, now);
    };
    status.observed_generation = generation;
    status.gpu = job.spec.gpu.to_string();
    match tenant {
        Some(tenant) => tenant.clone_into(&mut status.tenant),
        // What it holds is still charged to the tenant it had.
        None if facts.planned => {}
        None => status.tenant.clear(),
    }
    enter(&mut status, &mut facts, record, gang, now, &mut condition);

    let state = if matches!(record, Record::Invalid(_)) { INVALID } else { GangState::of(&facts).as_str() };
    state.clone_into(&mut status.state);
    status.why = why(record, gang, state, &status);
    status.workers = format!("{}/{}", gang.well.min(job.spec.workers), job.spec.workers);
    if facts.planned && facts.finished.is_none() {
        status.nodes = short(&status.assignments);
    } else if facts.finished.is_none() {
        status.nodes.clear();
    }
    if state == GangState::Waiting.as_str() {
        let created = job.metadata.creation_timestamp.clone();
        let since = || {
            if status.observed_generation == Some(1) && status.admitted_at.is_none() { created } else { None }
        };
        status.waiting_since = status.waiting_since.take().or_else(since).or(Some(Time(now)));
    } else {
        status.waiting_since = None;
        status.expected_start = None;
    }
    if state == GangState::Suspended.as_str() {
        (status.queued_at, status.waited_seconds) = (None, 0);
    }
    status.last_checkpoint = gang.saved_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(Time);
    conditions(&mut status, &mut condition, gang, facts.planned && facts.finished.is_none());
    status
}

/// Enters what is to be recorded.
fn enter(
    status: &mut TrainingJobStatus,
    facts: &mut GangFacts,
    record: &Record,
    gang: &Gang,
    now: Timestamp,
    condition: &mut Set<'_>,
) {
    match record {
        Record::Nothing | Record::Invalid(_) | Record::Waits(_) => {}
        Record::Admit(assignments, basis) => {
            status.assignments.clone_from(assignments);
            status.basis = *basis;
            status.admitted_at = Some(Time(now));
            status.first_admitted_at.get_or_insert(Time(now));
            let since = status.waiting_since.clone().unwrap_or(Time(now));
            let waited = now.as_second().saturating_sub(since.0.as_second()).max(0);
            status.waited_seconds = status.waited_seconds.saturating_add(waited);
            status.queued_at.get_or_insert(since);
            facts.planned = true;
            facts.unready_since_ms = Some(now.as_millisecond());
            condition(
                status,
                ConditionType::QuotaReserved,
                true,
                "Admitted",
                "the tenant's quota holds the whole gang",
            );
            condition(
                status,
                ConditionType::Admitted,
                true,
                "Admitted",
                "nodes and devices are decided for every worker",
            );
            condition(status, ConditionType::PodsReady, false, "Starting", "the workers start");
            for type_ in [ConditionType::Evicted, ConditionType::Preempted] {
                if has(&status.conditions, type_) {
                    condition(status, type_, false, "Admitted", "admitted again");
                }
            }
        }
        Record::Withdraw { reason, avoid, by } => {
            if reason.backs_off() {
                status.withdrawals = status.withdrawals.saturating_add(1);
                status.avoid_nodes.clone_from(avoid);
            }
            if !reason.keeps_its_place() {
                status.queued_at = None;
            }
            facts.leaving = Some(*reason);
            let word = leaving_reason(*reason);
            let message = for_whom(*reason, by.as_deref());
            condition(status, ConditionType::Evicted, true, word, &message);
            if let Some(by) = by {
                let evictions = status.evictions.get_or_insert_default();
                evictions.count = evictions.count.saturating_add(1);
                let last = LastEviction { at: Time(now), reason: word.to_owned(), by: by.clone(), pod: None };
                evictions.last = Some(last);
                condition(status, ConditionType::Preempted, true, word, &message);
            }
        }
        Record::Restart => {
            status.restarts = status.restarts.saturating_add(1);
            status.queued_at = None;
            facts.leaving = Some(Leaving::Restart);
            let why = gang.failure.clone().unwrap_or_else(|| Leaving::Restart.to_string());
            condition(status, ConditionType::Evicted, true, leaving_reason(Leaving::Restart), &why);
        }
        Record::Clear => {
            status.assignments.clear();
            if facts.leaving == Some(Leaving::Suspended) {
                status.first_admitted_at = None;
            }
            facts.planned = false;
            facts.leaving = None;
            condition(
                status,
                ConditionType::QuotaReserved,
                false,
                "Waiting",
                "nothing of the last try is left",
            );
            condition(status, ConditionType::Admitted, false, "Waiting", "nothing of the last try is left");
        }
        Record::Finish(outcome) => {
            status.nodes = short(&status.assignments);
            status.assignments.clear();
            facts.finished = Some(*outcome);
            let message = match outcome {
                Outcome::Succeeded => "every worker succeeded".to_owned(),
                Outcome::Failed(_) => failure(gang, *outcome),
            };
            condition(status, ConditionType::Finished, true, outcome_reason(*outcome), &message);
        }
    }
}

type Set<'a> = dyn FnMut(&mut TrainingJobStatus, ConditionType, bool, &str, &str) + 'a;

/// The conditions that follow from the state.
fn conditions(status: &mut TrainingJobStatus, set: &mut Set<'_>, gang: &Gang, planned: bool) {
    let state = status.state.clone();
    let why = status.why.clone();
    let well = gang.facts.unready_since_ms.is_none();
    if planned && gang.facts.planned {
        if well {
            status.withdrawals = 0;
            status.avoid_nodes.clear();
            set(status, ConditionType::PodsReady, true, "AllReady", "every worker is ready or has succeeded");
        } else {
            let message = format!("{} workers are ready or have succeeded", status.workers);
            set(status, ConditionType::PodsReady, false, "Starting", &message);
        }
    } else if state == "Waiting" || state == INVALID || state == "Suspended" {
        set(status, ConditionType::QuotaReserved, false, &state, &why);
        set(status, ConditionType::Admitted, false, &state, &why);
        if has(&status.conditions, ConditionType::PodsReady) {
            set(status, ConditionType::PodsReady, false, &state, "no worker runs");
        }
    }
    let done = matches!(state.as_str(), "Running" | "Succeeded");
    set(status, ConditionType::Ready, done, &state, &why);
    let working = matches!(state.as_str(), "Waiting" | "Starting" | "Restarting");
    set(status, ConditionType::Reconciling, working, &state, &why);
}

fn why(record: &Record, gang: &Gang, state: &str, status: &TrainingJobStatus) -> String {
    match (record, state) {
        (Record::Invalid(why) | Record::Waits(why), _) => why.clone(),
        (Record::Finish(outcome @ Outcome::Failed(_)), _) => failure(gang, *outcome),
        (_, "Starting") => gang.stuck.clone().unwrap_or_default(),
        (_, "Failed" | "Invalid") => status.why.clone(),
        (_, "Suspended") => Leaving::Suspended.to_string(),
        (Record::Restart, _) => gang.failure.clone().unwrap_or_else(|| Leaving::Restart.to_string()),
        (Record::Withdraw { reason, by, .. }, _) => {
            format!("{}; it is tried again when its workers have left", for_whom(*reason, by.as_deref()))
        }
        (Record::Clear, _) => "it waits for its next try".to_owned(),
        // What was said while it waits stands until there is something newer to say.
        (_, "Waiting" | "Restarting") => status.why.clone(),
        _ => String::new(),
    }
}

/// Why it leaves, and for whom if it is for others.
fn for_whom(reason: Leaving, by: Option<&str>) -> String {
    match by {
        Some(by) => format!("evicted for {by}: {reason}"),
        None => reason.to_string(),
    }
}

fn failure(gang: &Gang, outcome: Outcome) -> String {
    match (outcome, &gang.failure) {
        (Outcome::Failed(vingt_core::lifecycle::Failure::DeadlineExceeded), _) => {
            "it ran longer than activeDeadlineSeconds".to_owned()
        }
        (_, Some(failure)) => failure.clone(),
        (_, None) => "a worker failed".to_owned(),
    }
}

fn has(conditions: &[Condition], type_: ConditionType) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_.as_str())
}

/// The nodes in short: the first three, and how many more.
pub fn short(assignments: &[Assignment]) -> String {
    short_list(assignments.iter().map(|assignment| assignment.node.as_str()))
}

/// Names in short: the first three, and how many more.
pub fn short_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<&str> = names.collect();
    let first: Vec<&str> = names.iter().take(3).copied().collect();
    let more = names.len() - first.len();
    if more == 0 { first.join(",") } else { format!("{},+{more}", first.join(",")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vingt_core::lifecycle::{Failure, GangStep, JobState, next_step};

    use super::*;

    fn job() -> TrainingJob {
        serde_json::from_value(json!({
            "apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": "t", "namespace": "n", "uid": "u", "generation": 1, "creationTimestamp": "1970-01-01T00:00:05Z"},
            "spec": {"workers": 2, "gpu": {"count": 1}, "template": {"spec": {"containers": [{"name": "c"}]}}},
        }))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn truth(status: &TrainingJobStatus, type_: ConditionType) -> Option<(&str, &str)> {
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_.as_str())?;
        Some((condition.status.as_str(), condition.reason.as_str()))
    }

    fn plan() -> Vec<Assignment> {
        let worker = |worker, node: &str| Assignment { worker, node: node.into(), devices: vec![], units: 0 };
        vec![worker(0, "a"), worker(1, "b")]
    }

    #[test]
    fn a_waiting_job_says_why_and_since_when() {
        let status = next(
            &job(),
            &Gang::default(),
            Some("prod"),
            &Record::Waits("needs 2 × GPU; 0 fit now".into()),
            at(9),
        );
        assert_eq!((status.state.as_str(), status.why.as_str()), ("Waiting", "needs 2 × GPU; 0 fit now"));
        assert_eq!(
            (status.tenant.as_str(), status.workers.as_str(), status.gpu.as_str()),
            ("prod", "0/2", "1 GPU")
        );
        assert_eq!(status.waiting_since, Some(Time(at(5))), "since it was made");
        assert_eq!(truth(&status, ConditionType::Admitted), Some(("False", "Waiting")));
        assert_eq!(truth(&status, ConditionType::Ready), Some(("False", "Waiting")));
        let mut again = job();
        again.status = Some(status.clone());
        let same = next(
            &again,
            &Gang::default(),
            Some("prod"),
            &Record::Waits("needs 2 × GPU; 0 fit now".into()),
            at(20),
        );
        assert_eq!(same, status, "nothing new is no change");
    }

    #[test]
    fn a_gang_is_admitted_withdrawn_and_waits_again() {
        let mut job = job();
        job.status =
            Some(next(&job, &Gang::default(), Some("p"), &Record::Admit(plan(), Basis::Ordinary), at(10)));
        let status = job.status.clone().unwrap();
        assert_eq!(
            (status.state.as_str(), status.nodes.as_str(), &status.waiting_since),
            ("Starting", "a,b", &None)
        );
        assert_eq!(truth(&status, ConditionType::PodsReady), Some(("False", "Starting")));

        let mut gang = Gang::default();
        gang.facts.planned = true;
        gang.facts.unready_since_ms = Some(10_000);
        let record = Record::Withdraw { reason: Leaving::NotReady, avoid: vec!["b".into()], by: None };
        job.status = Some(next(&job, &gang, Some("p"), &record, at(400)));
        let status = job.status.clone().unwrap();
        assert_eq!((status.withdrawals, status.avoid_nodes.len(), status.assignments.len()), (1, 1, 2));
        assert_eq!(truth(&status, ConditionType::Evicted), Some(("True", "NotReady")));
        assert_eq!(status.state, "Waiting");

        gang.facts.leaving = Some(Leaving::NotReady);
        job.status = Some(next(&job, &gang, Some("p"), &Record::Clear, at(401)));
        let status = job.status.clone().unwrap();
        assert!(status.assignments.is_empty() && status.nodes.is_empty());
        assert_eq!(
            truth(&status, ConditionType::Evicted),
            Some(("True", "NotReady")),
            "why it was taken back stays"
        );
        assert_eq!(truth(&status, ConditionType::Admitted), Some(("False", "Waiting")));

        job.status =
            Some(next(&job, &Gang::default(), Some("p"), &Record::Admit(plan(), Basis::Ordinary), at(500)));
        let status = job.status.clone().unwrap();
        assert_eq!(truth(&status, ConditionType::Evicted), Some(("False", "Admitted")));
        let first = |status: &TrainingJobStatus| status.first_admitted_at.clone();
        assert_eq!(first(&status), Some(Time(at(10))), "its deadline does not start anew");
        gang.facts.leaving = Some(Leaving::Suspended);
        let status = next(&job, &gang, Some("p"), &Record::Clear, at(600));
        assert_eq!(first(&status), None, "unless the user suspended it");
    }

    #[test]
    fn a_running_gang_forgets_what_went_wrong_before() {
        let mut job = job();
        job.status = Some(TrainingJobStatus {
            withdrawals: 3,
            avoid_nodes: vec!["x".into()],
            assignments: plan(),
            ..Default::default()
        });
        let mut gang = Gang { well: 2, ..Gang::default() };
        gang.facts.planned = true;
        let status = next(&job, &gang, Some("p"), &Record::Nothing, at(10));
        assert_eq!((status.state.as_str(), status.withdrawals, status.avoid_nodes.len()), ("Running", 0, 0));
        assert_eq!(truth(&status, ConditionType::Ready), Some(("True", "Running")));
        assert_eq!(status.workers, "2/2");
    }

    #[test]
    fn a_gang_that_leaves_for_others_says_for_whom_and_queues_anew_unless_it_is_moved() {
        let mut job = job();
        job.status = Some(next(&job, &Gang::default(), Some("p"), &Record::Waits("why".into()), at(9)));
        job.status =
            Some(next(&job, &Gang::default(), Some("p"), &Record::Admit(plan(), Basis::Ordinary), at(10)));
        assert_eq!(job.status.as_ref().unwrap().queued_at, Some(Time(at(5))), "since it was made");
        let mut gang = Gang::default();
        gang.facts.planned = true;
        let leaves = |reason| {
            let by = Some("TrainingJob/n/big".to_owned());
            Record::Withdraw { reason, avoid: vec![], by }
        };
        let moved = next(&job, &gang, Some("p"), &leaves(Leaving::Moved), at(400));
        assert_eq!(moved.queued_at, Some(Time(at(5))), "nobody had a right to its room");
        let preempted = next(&job, &gang, Some("p"), &leaves(Leaving::Preempted), at(400));
        assert_eq!(preempted.queued_at, None);
        let status = next(&job, &gang, Some("p"), &leaves(Leaving::Reclaimed), at(400));
        let last = status.evictions.clone().unwrap().last.unwrap();
        assert_eq!(
            (last.by.as_str(), last.reason.as_str(), last.at),
            ("TrainingJob/n/big", "Reclaimed", Time(at(400)))
        );
        assert_eq!(truth(&status, ConditionType::Preempted), Some(("True", "Reclaimed")));
        assert!(status.why.starts_with("evicted for TrainingJob/n/big: "), "{}", status.why);
        assert_eq!((status.withdrawals, status.queued_at.clone()), (0, None));
        assert_eq!(status.waiting_since, Some(Time(at(400))), "it waits, and is queued, since now");
        job.status = Some(status);
        job.status =
            Some(next(&job, &Gang::default(), Some("p"), &Record::Admit(plan(), Basis::Ordinary), at(500)));
        let status = job.status.clone().unwrap();
        assert_eq!(truth(&status, ConditionType::Preempted), Some(("False", "Admitted")));
        assert_eq!(
            (status.queued_at, status.waited_seconds),
            (Some(Time(at(400))), 5 + 100),
            "of both tries"
        );
        gang.failure = Some("worker 0 failed".into());
        let status = next(&job, &gang, Some("p"), &Record::Restart, at(600));
        assert_eq!(status.queued_at, None, "one that failed goes to the end");
    }

    #[test]
    fn a_failed_gang_keeps_its_reason() {
        let mut job = job();
        let gang =
            Gang { failure: Some("worker 1: container c exited with code 3".into()), ..Gang::default() };
        let record = Record::Finish(Outcome::Failed(Failure::WorkerFailed));
        job.status = Some(next(&job, &gang, Some("p"), &record, at(10)));
        let mut later = Gang::default();
        later.facts.finished = Some(Outcome::Failed(Failure::WorkerFailed));
        later.facts.job = JobState::Failed;
        assert!(matches!(next_step(&later.facts, 0), GangStep::Wait { .. }));
        let status = next(&job, &later, Some("p"), &Record::Nothing, at(20));
        assert_eq!(
            (status.state.as_str(), status.why.as_str()),
            ("Failed", "worker 1: container c exited with code 3")
        );
        assert_eq!(truth(&status, ConditionType::Finished), Some(("True", "WorkerFailed")));
        assert_eq!(Some(status), job.status, "nothing new is no change");
    }
}
