//! `InferenceJob`: replicas of a server, each on its own part of a GPU.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gpu::GpuRequest;
use crate::pod_template::PodTemplate;
use crate::scheduling::{Evictions, ExpectedStart, MoveState, ReplicaMove};
use crate::training_job::default_preemptible;

/// Replicas of a server on GPUs. It runs as a Deployment and a Service of the
/// same name; each replica is admitted by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "vingt.dev",
    version = "v1alpha1",
    kind = "InferenceJob",
    namespaced,
    status = "InferenceJobStatus",
    shortname = "ij",
    category = "vingt",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.size() <= 52").message("the name may have at most 52 characters: the pods' names are made from it"),
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"GPU","type":"string","jsonPath":".status.gpu"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"Tenant","type":"string","jsonPath":".status.tenant"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.nodes"}"#,
    printcolumn = r#"{"name":"Wait","type":"date","jsonPath":".status.waitingSince"}"#,
    printcolumn = r#"{"name":"Why","type":"string","jsonPath":".status.why"}"#,
    printcolumn = r#"{"name":"Starts","type":"string","priority":1,"jsonPath":".status.expectedStart.p50","description":"when a waiting replica is likely to start"}"#,
    printcolumn = r#"{"name":"Evictions","type":"integer","priority":1,"jsonPath":".status.evictions.count"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.order) == has(oldSelf.order) && (!has(self.order) || self.order == oldSelf.order)",
    "order cannot be changed after creation: make a new job"))]
pub struct InferenceJobSpec {
    /// Number of replicas.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 4096))]
    pub replicas: u32,
    /// What each replica needs.
    #[x_kube(validation = ("self == oldSelf", "gpu cannot be changed after creation: make a new job"))]
    pub gpu: GpuRequest,
    /// Template of the replicas' pods; changing it rolls them over one by one.
    /// The first container gets the devices, unless containers name the claim `gpu` themselves.
    pub template: PodTemplate,
    /// Port the replicas listen on; the Service has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
    /// Higher runs first, within a tenant.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Scale to nothing, until this is false again.
    #[serde(default)]
    pub suspend: bool,
    /// Whether replicas may be stopped for others: by a tenant that takes its guarantee back, or by a job of its own
    /// tenant with a higher priority. Those that may not are started only within what the tenant is guaranteed.
    #[serde(default = "default_preemptible")]
    #[x_kube(validation = ("self == oldSelf", "preemptible cannot be changed after creation: make a new job"))]
    pub preemptible: bool,
    /// Name of the `SovereignOrder` of this namespace that the job runs on: from its begin until its end, in what was
    /// ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub order: Option<String>,
    /// Whether a replica may be moved, to make room by shape for others.
    #[serde(default, rename = "move")]
    pub move_: ReplicaMove,
}

fn default_replicas() -> u32 {
    1
}

/// What the operator knows of an `InferenceJob`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InferenceJobStatus {
    /// One word: Waiting, Starting, Running, Degraded, Suspended or Invalid.
    pub state: String,
    /// What each replica holds or asks for.
    pub gpu: String,
    /// Ready of wanted, as `2/3`.
    pub ready: String,
    /// Tenant the job is charged to.
    pub tenant: String,
    /// The nodes of the replicas, in short.
    pub nodes: String,
    /// In words, why a replica waits; empty when none does.
    pub why: String,
    /// Since when a replica waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// When a waiting replica is likely to start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_start: Option<ExpectedStart>,
    /// How often replicas were stopped for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evictions: Option<Evictions>,
    /// A replica that is being moved.
    #[serde(rename = "move", skip_serializing_if = "Option::is_none")]
    pub move_: Option<MoveState>,
    /// Replicas that exist.
    pub replicas: u32,
    /// Replicas that are ready.
    pub ready_replicas: u32,
    /// Label selector of the replicas, for autoscalers.
    pub selector: String,
    /// `metadata.generation` this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: QuotaReserved, Admitted, PodsReady, Evicted, Preempted, Ready, Reconciling.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
