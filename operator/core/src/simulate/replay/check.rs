//! What a scenario must be, so that it can be played: a scenario that is not is
//! refused with the job and the field, before anything happens.

use std::collections::BTreeSet;

use crate::model::Workload;

use super::{Facts, Job, ReplayError, Scenario};

/// What runs at the start, as the jobs that they become when they are evicted.
pub(super) fn requeued(scenario: &Scenario) -> impl Iterator<Item = Job> + '_ {
    scenario
        .snapshot
        .running
        .iter()
        .zip(&scenario.running)
        .map(|(running, facts)| Job { workload: running.as_workload(), facts: facts.clone() })
}

/// Refuses what can't be played.
pub(super) fn check(scenario: &Scenario) -> Result<(), ReplayError> {
    let Scenario { snapshot, running, jobs, .. } = scenario;
    let wrong = |field, problem: &str| ReplayError::Scenario { field, problem: problem.to_owned() };
    if !snapshot.waiting.is_empty() {
        return Err(wrong("snapshot.waiting", "must be empty: put what waits among the jobs"));
    }
    if running.len() != snapshot.running.len() {
        let problem = format!("{} entries for {} that run", running.len(), snapshot.running.len());
        return Err(wrong("running", &problem));
    }
    if scenario.cycle_ms < 0 || scenario.sample_ms < 0 {
        return Err(wrong("cycle_ms", "must not be negative, nor sample_ms"));
    }
    let mut keys = BTreeSet::new();
    let entries = snapshot.running.iter().map(|running| (&running.key, &running.tenant, running.shape));
    let entries = entries.zip(running.iter().map(|facts| (facts, 1, None)));
    let queued = jobs.iter().map(|Job { workload, facts }| {
        let Workload { key, tenant, shape, pods, runs_ms, .. } = workload;
        ((key, tenant, *shape), (facts, *pods, *runs_ms))
    });
    for ((key, tenant, shape), (facts, pods, runs_ms)) in entries.chain(queued) {
        let Facts { duration_ms, checkpoint_ms, grace_ms, leaves_after_ms, .. } = *facts;
        let wrong = |field, problem: String| Err(ReplayError::Job { key: key.clone(), field, problem });
        if !keys.insert(key) {
            return wrong("key", "another job has the same: name each differently".to_owned());
        }
        if !snapshot.tenants.contains_key(tenant) {
            let known: Vec<&str> = snapshot.tenants.keys().map(String::as_str).collect();
            return wrong("tenant", format!("no tenant {tenant:?}; there are: {}", known.join(", ")));
        }
        if shape >= snapshot.shapes.len() {
            return wrong("shape", format!("{shape} is not one of {}", snapshot.shapes.len()));
        }
        if pods == 0 {
            return wrong("pods", "must be at least 1".to_owned());
        }
        if duration_ms <= 0 {
            return wrong("duration_ms", format!("{duration_ms} is not more than 0"));
        }
        if let Some(runs_ms) = runs_ms.filter(|runs_ms| *runs_ms < duration_ms) {
            return wrong("runs_ms", format!("{runs_ms} is less than the {duration_ms} ms that it runs"));
        }
        if checkpoint_ms.is_some_and(|every| every <= 0) {
            return wrong("checkpoint_ms", "must be more than 0, or absent".to_owned());
        }
        if grace_ms < 0 {
            return wrong("grace_ms", format!("{grace_ms} is negative"));
        }
        if leaves_after_ms.is_some_and(|after| !(0..=grace_ms).contains(&after)) {
            return wrong("leaves_after_ms", format!("must be between 0 and grace_ms, {grace_ms}"));
        }
    }
    Ok(())
}
