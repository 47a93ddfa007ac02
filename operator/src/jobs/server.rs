//! What the status of an `InferenceJob` says next, from its Deployment and its
//! replicas.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use vingt_crds::{ConditionType, InferenceJob, InferenceJobStatus, names, set_condition};

use super::objects::replicas;
use super::status::{INVALID, short_list};

/// What is known of a server's replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Pods that exist and are not ending.
    pub there: u32,
    /// Of these, those that are ready.
    pub ready: u32,
    /// Of these, those that wait at the gate.
    pub gated: u32,
    /// Why one of them waits or does not start.
    pub why: Option<String>,
    /// Nodes they are bound to.
    pub nodes: Vec<String>,
}

/// The status that says so; `invalid` is why the job cannot be, `waits` why
/// nothing is made for it.
pub fn next(
    job: &InferenceJob,
    known: &Replicas,
    tenant: Option<&str>,
    invalid: Option<&str>,
    waits: Option<&str>,
    now: Timestamp,
) -> InferenceJobStatus {
    let mut status = job.status.clone().unwrap_or_default();
    let generation = job.metadata.generation;
    let wanted = replicas(job);
    let state = match known {
        _ if invalid.is_some() => INVALID,
        _ if waits.is_some() => "Waiting",
        _ if job.spec.suspend => "Suspended",
        known if known.ready >= wanted => "Running",
        known if known.ready > 0 => "Degraded",
        known if known.gated > 0 => "Waiting",
        _ => "Starting",
    };
    let waiting = known.gated > 0 || state == "Waiting";
    let why = invalid.or(waits).map(str::to_owned).or_else(|| {
        let why = known.why.as_ref().filter(|_| known.ready < wanted)?;
        Some(if known.gated > 0 {
            format!("{} of {wanted} replicas wait: {why}", known.gated)
        } else {
            why.clone()
        })
    });
    let why = why.unwrap_or_else(|| {
        if state == "Suspended" { "suspended by the user".to_owned() } else { String::new() }
    });

    state.clone_into(&mut status.state);
    status.gpu = job.spec.gpu.to_string();
    status.ready = format!("{}/{wanted}", known.ready);
    tenant.unwrap_or_default().clone_into(&mut status.tenant);
    status.nodes = short_list(known.nodes.iter().map(String::as_str));
    status.waiting_since = if waiting { status.waiting_since.take().or(Some(Time(now))) } else { None };
    status.replicas = known.there;
    status.ready_replicas = known.ready;
    status.selector =
        format!("{}={}", names::INFERENCE_JOB_LABEL, job.metadata.name.as_deref().unwrap_or_default());
    status.observed_generation = generation;
    status.why = why;

    let message = status.why.clone();
    let last = status.evictions.as_ref().and_then(|evictions| evictions.last.as_ref());
    let evicted = last.map(|last| (last.reason.clone(), last.by.clone()));
    let mut set = |type_, truth, reason: &str, message: &str| {
        set_condition(&mut status.conditions, type_, truth, reason, message, generation, now);
    };
    let admitted = !waiting && invalid.is_none();
    for type_ in [ConditionType::QuotaReserved, ConditionType::Admitted] {
        set(type_, admitted, if admitted { "Admitted" } else { state }, &message);
    }
    let all = invalid.is_none() && waits.is_none() && known.ready >= wanted;
    set(ConditionType::PodsReady, all, state, &format!("{} of {wanted} replicas are ready", known.ready));
    if let Some((reason, by)) = evicted {
        let message =
            if all { "all replicas run again".to_owned() } else { format!("a replica was evicted for {by}") };
        for type_ in [ConditionType::Evicted, ConditionType::Preempted] {
            set(type_, !all, if all { "Admitted" } else { &reason }, &message);
        }
    }
    set(ConditionType::Ready, all && !job.spec.suspend, state, &message);
    set(ConditionType::Reconciling, matches!(state, "Waiting" | "Starting" | "Degraded"), state, &message);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(replicas: u32, suspend: bool, known: &Replicas, waits: Option<&str>) -> (String, String, String) {
        let job: InferenceJob = serde_json::from_value(json!({
            "apiVersion": "vingt.dev/v1alpha1", "kind": "InferenceJob", "metadata": {"name": "s", "generation": 1},
            "spec": {"replicas": replicas, "suspend": suspend, "gpu": {"profile": "1g.10gb"}, "template": {"spec": {"containers": [{"name": "c"}]}}},
        }))
        .unwrap();
        let status = next(&job, known, Some("prod"), None, waits, Timestamp::UNIX_EPOCH);
        (status.state, status.ready, status.why)
    }

    #[test]
    fn the_state_is_told_from_the_replicas() {
        let known = |there, ready, gated, why: Option<&str>| Replicas {
            there,
            ready,
            gated,
            why: why.map(str::to_owned),
            nodes: vec![],
        };
        let text = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(told(3, false, &known(3, 3, 0, None), None), text("Running", "3/3", ""));
        assert_eq!(
            told(3, false, &known(3, 2, 1, Some("no room")), None),
            text("Degraded", "2/3", "1 of 3 replicas wait: no room")
        );
        assert_eq!(told(3, false, &known(3, 0, 3, Some("no room")), None).0, "Waiting");
        assert_eq!(told(3, false, &known(3, 0, 0, None), None), text("Starting", "0/3", ""));
        assert_eq!(
            told(3, true, &known(0, 0, 0, None), None),
            text("Suspended", "0/0", "suspended by the user")
        );
        assert_eq!(
            told(1, false, &Replicas::default(), Some("no tenant")),
            text("Waiting", "0/1", "no tenant")
        );
    }
}
