//! What there is to tell about one job, from its status; in words, and as data.

mod tell;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Serialize;
use vingt_crds::{Evictions, ExpectedStart, InferenceJob, TrainingJob, names};

/// Why a job waits, or that it does not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// One word; empty if nobody of vingt has looked at it yet.
    pub state: String,
    /// What it asks for, in words.
    pub asks: String,
    /// Who is charged.
    pub tenant: String,
    /// Higher goes first within the tenant.
    pub priority: i32,
    /// Since when it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Timestamp>,
    /// Why it waits.
    pub because: String,
    /// When it is likely to start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<Expected>,
    /// What would let it start at once, each by itself.
    pub helps: Vec<String>,
    /// Where it runs.
    pub nodes: String,
    /// What happened to it.
    pub history: Vec<String>,
    /// What could not be found out.
    pub notes: Vec<String>,
}

/// When something is likely to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expected {
    /// One in ten is earlier.
    pub p10: Timestamp,
    /// One in two.
    pub p50: Timestamp,
    /// Nine in ten.
    pub p90: Timestamp,
    /// What it was worked out from.
    pub basis: String,
}

impl Story {
    /// Of a gang.
    pub fn of_gang(job: &TrainingJob) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let mut history = Vec::new();
        if status.restarts > 0 {
            let most = job.spec.max_restarts;
            history
                .push(format!("started again after a failure {}, of at most {most}", times(status.restarts)));
        }
        if status.withdrawals > 0 {
            history
                .push(format!("withdrawn {}: its workers did not become ready", times(status.withdrawals)));
        }
        if !status.avoid_nodes.is_empty() {
            history.push(format!("avoids {}, where the last try failed", status.avoid_nodes.join(", ")));
        }
        history.extend(evicted(status.evictions.as_ref()));
        let workers = job.spec.workers;
        Self {
            asks: if workers == 1 {
                job.spec.gpu.to_string()
            } else {
                format!("{workers} × {}", job.spec.gpu)
            },
            state: status.state,
            tenant: status.tenant,
            priority: job.spec.priority,
            waiting_since: time(status.waiting_since.as_ref()),
            because: status.why,
            starts: status.expected_start.as_ref().map(Expected::of),
            nodes: status.nodes,
            history,
            ..Self::named("TrainingJob", &job.metadata)
        }
    }

    /// Of replicas.
    pub fn of_server(job: &InferenceJob) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let mut history: Vec<String> = evicted(status.evictions.as_ref()).into_iter().collect();
        if let Some(moving) = &status.move_ {
            let (pod, by, node) = (&moving.pod, &moving.by, &moving.node);
            history.push(format!("{pod} is being replaced by one on {node}, to make room for {by}"));
        }
        Self {
            asks: format!("{} × {}, {} ready", job.spec.replicas, job.spec.gpu, status.ready_replicas),
            state: status.state,
            tenant: status.tenant,
            priority: job.spec.priority,
            waiting_since: time(status.waiting_since.as_ref()),
            because: status.why,
            starts: status.expected_start.as_ref().map(Expected::of),
            nodes: status.nodes,
            history,
            ..Self::named("InferenceJob", &job.metadata)
        }
    }

    /// Of a pod.
    pub fn of_pod(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let mark = |name: &str| meta.annotations.as_ref().and_then(|marks| marks.get(name)).cloned();
        let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name));
        let spec = pod.spec.clone().unwrap_or_default();
        let gated = spec.scheduling_gates.iter().flatten().any(|gate| gate.name == names::GATE);
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let claims = spec.resource_claims.iter().flatten();
        let claims = claims.filter_map(|claim| {
            claim.resource_claim_template_name.clone().or_else(|| claim.resource_claim_name.clone())
        });
        let mut history = Vec::new();
        for (label, kind, short) in [
            (label(names::TRAINING_JOB_LABEL), "TrainingJob", "tj"),
            (label(names::INFERENCE_JOB_LABEL), "InferenceJob", "ij"),
        ] {
            if let Some(job) = label {
                history.push(format!("belongs to {kind} {job}: ask `kubectl vingt why {short}/{job}`"));
            }
        }
        Self {
            state: if gated { "Waiting".to_owned() } else { phase },
            asks: claims.collect::<Vec<_>>().join(", "),
            priority: spec.priority.unwrap_or(0),
            waiting_since: time(meta.creation_timestamp.as_ref()).filter(|_| gated),
            because: mark(names::WAIT_REASON).filter(|_| gated).unwrap_or_default(),
            nodes: spec.node_name.unwrap_or_default(),
            history,
            ..Self::named("Pod", meta)
        }
    }

    /// Whether there is something to wait for.
    pub fn waits(&self) -> bool {
        matches!(self.state.as_str(), "Waiting" | "Degraded")
    }

    /// What the planner calls it; of replicas, how their names begin.
    pub fn key(&self) -> String {
        let Self { kind, namespace, name, .. } = self;
        match *kind {
            "InferenceJob" => format!("Pod/{namespace}/{name}-"),
            kind => format!("{kind}/{namespace}/{name}"),
        }
    }

    fn named(kind: &'static str, meta: &ObjectMeta) -> Self {
        let name = |part: &Option<String>| part.clone().unwrap_or_default();
        Self { kind, namespace: name(&meta.namespace), name: name(&meta.name), ..Self::default() }
    }
}

impl Expected {
    fn of(expected: &ExpectedStart) -> Self {
        let basis = expected.basis.clone();
        Self { p10: expected.p10.0, p50: expected.p50.0, p90: expected.p90.0, basis }
    }
}

fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}

fn times(number: u32) -> String {
    match number {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        number => format!("{number} times"),
    }
}

/// How often it was taken back for others, and the last time for whom.
fn evicted(evictions: Option<&Evictions>) -> Option<String> {
    let evictions = evictions.filter(|evictions| evictions.count > 0)?;
    let mut text = format!("stopped for others {}", times(evictions.count));
    if let Some(last) = &evictions.last {
        let by = &last.by;
        let reason = match last.reason.as_str() {
            "Reclaimed" => format!("what its tenant had borrowed was taken back for {by}"),
            "Preempted" => format!("for {by}, of a higher priority"),
            "Moved" => format!("to make room by shape for {by}"),
            reason => format!("{reason}, for {by}"),
        };
        let last_time = if evictions.count == 1 { "" } else { "the last time " };
        let pod = last.pod.as_ref().map(|pod| format!(" ({pod})")).unwrap_or_default();
        text = format!("{text}{pod}; {last_time}at {}: {reason}", last.at.0.strftime("%Y-%m-%d %H:%M UTC"));
    }
    Some(text)
}
