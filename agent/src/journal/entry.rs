//! One claim in the journal.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vingt_crds::DecidedDevice;

use crate::target::Target;

/// A claim that the agent has begun to prepare and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim.
    pub name: String,
    /// Tenant charged, from the decision record.
    pub tenant: String,
    /// Job or pod, from the decision record.
    pub workload: String,
    /// Units charged, from the decision record; 56 are one GPU.
    pub units: u64,
    /// When the charge began, from the decision record.
    pub start: Timestamp,
    /// How far it is.
    pub state: State,
    /// Its devices, in the order of the allocation.
    pub devices: Vec<DeviceEntry>,
}

/// How far a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Begun; an interrupted one is rolled back.
    Preparing,
    /// Ready for its pod.
    Prepared,
    /// Being undone after a failure; the claim itself has not ended.
    RollingBack,
    /// Being removed at the claim's end.
    Unpreparing,
}

impl State {
    /// All states, with their names in metrics.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Preparing, "preparing"),
        (Self::Prepared, "prepared"),
        (Self::RollingBack, "rolling-back"),
        (Self::Unpreparing, "unpreparing"),
    ];
}

/// A device of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceEntry {
    /// As the operator decided it.
    pub decided: DecidedDevice,
    /// The hardware it means.
    pub target: Target,
    /// What of it is known to exist.
    pub created: Created,
}

/// What is known to exist of a device; written after the fact, so there may be one step more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "stage")]
pub enum Created {
    /// Nothing yet; or a whole GPU, for which nothing is made.
    Nothing,
    /// The place was seen to be empty, and its GPU instance is being made: what lies there after a
    /// crash is taken to be ours.
    Intended,
    /// The GPU instance.
    #[serde(rename_all = "camelCase")]
    GpuInstance {
        /// Its id.
        gpu_instance: u32,
    },
    /// The whole partition.
    #[serde(rename_all = "camelCase")]
    Partition {
        /// Id of the GPU instance.
        gpu_instance: u32,
        /// Id of the compute instance.
        compute_instance: u32,
        /// UUID of the MIG device. The driver derives it from the GPU and the place: it tells the
        /// partition from those in other places, but not from one that takes its place later.
        uuid: String,
    },
    /// It was there, and is so no more: a reboot, a reload of the driver or somebody else removed it.
    Lost,
}
