//! `TrainingJob`: a gang of workers that starts whole or not at all.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decision::{Basis, DecidedDevice};
use crate::gpu::GpuRequest;
use crate::pod_template::PodTemplate;
use crate::scheduling::{Evictions, ExpectedStart, TopologySpec, TrainingMove};

/// A gang of workers on GPUs. It runs as an indexed `batch/v1` Job of the same
/// name, with a headless Service and the usual rendezvous variables
/// (`MASTER_ADDR`, `MASTER_PORT`, `WORLD_SIZE`, `RANK`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "vingt.dev",
    version = "v1alpha1",
    kind = "TrainingJob",
    namespaced,
    status = "TrainingJobStatus",
    shortname = "tj",
    category = "vingt",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 52").message("the name may have at most 52 characters: the pods' names and their DNS labels are made from it"),
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"GPU","type":"string","jsonPath":".status.gpu"}"#,
    printcolumn = r#"{"name":"Workers","type":"string","jsonPath":".status.workers"}"#,
    printcolumn = r#"{"name":"Tenant","type":"string","jsonPath":".status.tenant"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.nodes"}"#,
    printcolumn = r#"{"name":"Wait","type":"date","jsonPath":".status.waitingSince"}"#,
    printcolumn = r#"{"name":"Why","type":"string","jsonPath":".status.why"}"#,
    printcolumn = r#"{"name":"Starts","type":"string","priority":1,"jsonPath":".status.expectedStart.p50","description":"when it is likely to start"}"#,
    printcolumn = r#"{"name":"Evictions","type":"integer","priority":1,"jsonPath":".status.evictions.count"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.order) == has(oldSelf.order) && (!has(self.order) || self.order == oldSelf.order)",
    "order cannot be changed after creation: make a new job"))]
pub struct TrainingJobSpec {
    /// Number of workers; all start together.
    #[schemars(range(min = 1, max = 4096))]
    #[x_kube(validation = ("self == oldSelf", "workers cannot be changed after creation: make a new job"))]
    pub workers: u32,
    /// What each worker needs.
    #[x_kube(validation = ("self == oldSelf", "gpu cannot be changed after creation: make a new job"))]
    pub gpu: GpuRequest,
    /// Template of the workers' pods. The first container gets the devices,
    /// unless containers name the claim `gpu` themselves.
    #[x_kube(validation = ("self == oldSelf", "template cannot be changed after creation: make a new job"))]
    pub template: PodTemplate,
    /// Higher runs first, within a tenant.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Take the job back, or don't start it, until this is false again.
    #[serde(default)]
    pub suspend: bool,
    /// What happens when a worker fails.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// How often the gang is restarted before the job counts as failed.
    #[serde(default = "default_max_restarts")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_restarts: u32,
    /// Seconds, from its first admission, after which the job is ended as failed; suspending it starts them anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds within which all workers must be ready; else the gang is withdrawn whole and tried elsewhere.
    #[serde(default = "default_ready_timeout_seconds")]
    #[schemars(range(min = 10, max = 86_400))]
    pub ready_timeout_seconds: u32,
    /// How the workers save their progress when they are asked to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// Whether the job may be stopped for others: by a tenant that takes its guarantee back, or by a job of its own
    /// tenant with a higher priority. One that may not is started only within what its tenant is guaranteed.
    #[serde(default = "default_preemptible")]
    #[x_kube(validation = ("self == oldSelf", "preemptible cannot be changed after creation: make a new job"))]
    pub preemptible: bool,
    /// Name of the `SovereignOrder` of this namespace that the job runs on: from its begin until its end, in what was
    /// ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub order: Option<String>,
    /// Whether the job may be stopped and started elsewhere, to make room by shape for others. By default `Restart` if
    /// `checkpoint.intervalSeconds` is given, and `Never` otherwise.
    #[serde(default, rename = "move", skip_serializing_if = "Option::is_none")]
    pub move_: Option<TrainingMove>,
    /// Where the workers are to be close to one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self == oldSelf", "topology cannot be changed after creation: make a new job"))]
    pub topology: Option<TopologySpec>,
}

impl TrainingJobSpec {
    /// Whether the job may be stopped and started elsewhere.
    pub fn moves(&self) -> TrainingMove {
        let saves = self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.interval_seconds.is_some());
        self.move_.unwrap_or(if saves { TrainingMove::Restart } else { TrainingMove::Never })
    }
}

/// Jobs may be stopped for others unless they say otherwise.
pub(crate) fn default_preemptible() -> bool {
    true
}

fn default_max_restarts() -> u32 {
    3
}

fn default_ready_timeout_seconds() -> u32 {
    300
}

/// What happens to a gang when one of its workers fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestartPolicy {
    /// All workers are stopped, and the gang is queued and started again as a whole.
    #[default]
    OnFailure,
    /// The job has failed.
    Never,
}

/// How a worker saves its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Seconds between SIGTERM and SIGKILL: the time a checkpoint takes.
    #[serde(default = "default_grace_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub grace_seconds: i64,
    /// Seconds between two checkpoints, counted from when all workers were ready. A job that sets the annotation
    /// `vingt.dev/checkpointed-at` on itself or on its pods, to an RFC 3339 time, is believed instead. When jobs have to
    /// be stopped for others, those that lose least are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub interval_seconds: Option<i64>,
}

/// What Kubernetes gives a pod that says nothing.
fn default_grace_seconds() -> i64 {
    30
}

/// What the operator knows of a `TrainingJob`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrainingJobStatus {
    /// One word: Waiting, Starting, Running, Restarting, Suspended, Succeeded, Failed or Invalid.
    pub state: String,
    /// What each worker holds or asks for.
    pub gpu: String,
    /// Ready of wanted, as `3/4`.
    pub workers: String,
    /// Tenant the job is charged to.
    pub tenant: String,
    /// The nodes of the workers, in short.
    pub nodes: String,
    /// By what right it was last admitted: `ordinary`, `claimed` or `ordered`.
    #[serde(skip_serializing_if = "Basis::is_ordinary")]
    pub basis: Basis,
    /// In words, why the job waits; empty when it doesn't.
    pub why: String,
    /// Since when it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// When the gang was last admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admitted_at: Option<Time>,
    /// When it was first admitted since it was last suspended: `activeDeadlineSeconds` counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_admitted_at: Option<Time>,
    /// Since when it is queued, for its place in the queue; kept while it runs, and when it is moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<Time>,
    /// How long it had waited in all, in seconds, when it was last admitted, since it was last suspended. As long as that
    /// outweighs a higher priority, it is not preempted by it.
    pub waited_seconds: i64,
    /// When it is likely to start, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_start: Option<ExpectedStart>,
    /// When its progress was last saved, as the job's or its pods' annotation says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<Time>,
    /// How often it was stopped for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evictions: Option<Evictions>,
    /// How often the gang was restarted after a failure.
    pub restarts: u32,
    /// How often the gang was withdrawn since it last ran: its wait for the next try grows with it.
    pub withdrawals: u32,
    /// Nodes on which the last try did not become ready; avoided while others fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub avoid_nodes: Vec<String>,
    /// The plan: where each worker runs. Decided as a whole, before any pod starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub assignments: Vec<Assignment>,
    /// `metadata.generation` this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: QuotaReserved, Admitted, PodsReady, Evicted, Preempted, Finished, Ready, Reconciling.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Where one worker runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Completion index of the worker's pod.
    pub worker: u32,
    /// The node.
    pub node: String,
    /// The devices, by the request names of the worker's claim.
    pub devices: Vec<DecidedDevice>,
    /// What they are charged together; 56 units are one GPU.
    #[serde(default)]
    pub units: u64,
}
