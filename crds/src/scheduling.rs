//! What jobs of both kinds say about their place among the others, and what
//! the operator answers: topology, moves, evictions, expected start.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decision::DecidedDevice;

/// Workers that are to be close to one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpec {
    /// Label of nodes: workers are put on nodes with the same value of it
    /// (`topology.kubernetes.io/rack`, an `NVLink` domain's, `kubernetes.io/hostname`).
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Whether the job waits until that is possible; else it takes what there is, packed as well as possible.
    #[serde(default)]
    pub required: bool,
}

/// Whether a gang may be moved to other devices, to make room by shape for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrainingMove {
    /// Never.
    Never,
    /// It is stopped, and starts elsewhere from its last checkpoint.
    Restart,
}

/// Whether a replica may be moved to other devices, to make room by shape for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplicaMove {
    /// Never.
    Never,
    /// One more replica is started elsewhere; when it is ready, the one that was to move ends.
    #[default]
    Replace,
}

/// When a job is likely to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedStart {
    /// One job in ten starts before this time.
    pub p10: Time,
    /// One in two.
    pub p50: Time,
    /// Nine in ten.
    pub p90: Time,
    /// What it was worked out from, in words.
    pub basis: String,
}

/// How often something was taken back in favour of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Evictions {
    /// How often.
    pub count: u32,
    /// The last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastEviction>,
}

/// What was taken back, for whom and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastEviction {
    /// When it was decided.
    pub at: Time,
    /// `Reclaimed`, `Preempted`, `Claimed` or `Moved`.
    pub reason: String,
    /// The workload that gets the room, as `Kind/namespace/name`.
    pub by: String,
    /// The pod, if one pod alone was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// A replica on its way to other devices. It is written before anything is done, so that another process can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoveState {
    /// The pod that is to end.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
    /// The workload that gets the room, as `Kind/namespace/name`.
    pub by: String,
    /// When it was decided.
    pub started_at: Time,
    /// The node of the place that is kept for the new replica.
    pub node: String,
    /// The devices of that place.
    pub devices: Vec<DecidedDevice>,
    /// The new replica is ready: the Deployment has one replica less again.
    #[serde(default)]
    pub leaving: bool,
}
