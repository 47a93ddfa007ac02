//! What a virtual node reports of its pods.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Not started.
    Waiting {
        /// CamelCase reason.
        reason: &'static str,
        /// What went wrong, or empty.
        message: String,
    },
    /// Runs since then.
    Running {
        /// When it started.
        since: Timestamp,
        /// Whether its probe succeeds.
        ready: bool,
    },
    /// Has ended.
    Terminated {
        /// Exit code.
        exit_code: i32,
        /// When it started.
        since: Timestamp,
    },
}

/// Phase and containers of a pod; all its containers are reported alike but
/// for their states.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub phase: &'static str,
    /// By position in the spec's `containers`.
    pub containers: &'a [ContainerState],
    /// By position in the spec's `containers`.
    pub restarts: &'a [i32],
    /// The pod's address.
    pub pod_ip: &'a str,
    /// The node's address.
    pub host_ip: &'a str,
}

/// Writes the status of a pod, unless it is another pod of the same name.
pub async fn write(client: &Client, pod: &Pod, report: &Report<'_>) -> kube::Result<()> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let body = json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": body(pod, &spec, report),
    });
    match pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(body)).await {
        // The pod, or this one of its name, is gone: nothing to report on.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

fn body(pod: &Pod, spec: &PodSpec, report: &Report<'_>) -> Value {
    let now = Timestamp::now();
    let ended = matches!(report.phase, "Succeeded" | "Failed");
    let ready = report.phase == "Running"
        && report.containers.iter().all(|state| matches!(state, ContainerState::Running { ready: true, .. }));
    let text = |is: bool| if is { "True" } else { "False" };
    let completed = if report.phase == "Succeeded" { Some("PodCompleted") } else { None };
    let old = pod.status.clone().unwrap_or_default().conditions.unwrap_or_default();
    let condition = |kind: &str, is: bool| {
        // The time stays while the value does.
        let same = old.iter().find(|found| found.type_ == kind && found.status == text(is));
        let since = same.and_then(|found| found.last_transition_time.as_ref());
        let since = since.map_or(now, |time| time.0);
        json!({"type": kind, "status": text(is), "reason": completed,
               "lastTransitionTime": since.to_string()})
    };
    let init: Vec<Value> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| {
            // Virtual pods have nothing to initialize: done at once.
            let done = ContainerState::Terminated { exit_code: 0, since: now };
            container_status(container, &done, 0, true)
        })
        .collect();
    let containers: Vec<Value> = spec
        .containers
        .iter()
        .zip(report.containers.iter().zip(report.restarts))
        .map(|(container, (state, restarts))| {
            let ready = matches!(state, ContainerState::Running { ready: true, .. });
            container_status(container, state, *restarts, ready)
        })
        .collect();
    let start = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    json!({
        "phase": report.phase,
        "hostIP": report.host_ip,
        "hostIPs": [{"ip": report.host_ip}],
        "podIP": report.pod_ip,
        // A node that was away gives its pods new addresses; merged, there would be two.
        "podIPs": [{"$patch": "replace"}, {"ip": report.pod_ip}],
        "startTime": start.map_or(now, |time| time.0).to_string(),
        "initContainerStatuses": init,
        "containerStatuses": containers,
        "conditions": [
            condition("PodReadyToStartContainers", report.phase == "Running"),
            condition("Initialized", report.phase != "Pending"),
            condition("ContainersReady", ready && !ended),
            condition("Ready", ready && !ended),
        ],
    })
}

fn container_status(container: &Container, state: &ContainerState, restarts: i32, ready: bool) -> Value {
    let shown = match state {
        ContainerState::Waiting { reason, message } => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        ContainerState::Running { since, .. } => {
            json!({"running": {"startedAt": since.to_string()}})
        }
        ContainerState::Terminated { exit_code, since } => json!({"terminated": {
            "exitCode": exit_code,
            "reason": if *exit_code == 0 { "Completed" } else { "Error" },
            "startedAt": since.to_string(),
            "finishedAt": Timestamp::now().to_string(),
        }}),
    };
    json!({
        "name": container.name,
        "image": container.image,
        "imageID": container.image,
        "ready": ready,
        "started": matches!(state, ContainerState::Running { .. }),
        "restartCount": restarts,
        "state": shown,
    })
}
