//! What a plan consists of, and why something waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DeviceIndex, Missing, NodeIndex, Right, UnitMs, Units};

/// What is to be done, and for everything else why not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Workloads that are placed whole, in the order they were decided.
    pub admissions: Vec<Admission>,
    /// Of these, the workloads that go before one of their own tenant that is ahead, has waited long and goes on
    /// waiting: they do not count for [`super::Tenant::last_admitted_ms`], or that one would never be old.
    pub out_of_turn: Vec<usize>,
    /// What is asked to leave, for waiting workloads.
    pub evictions: Vec<Eviction>,
    /// What gets another in its stead elsewhere, and leaves when that is ready.
    pub replacements: Vec<Replacement>,
    /// Places that are kept for waiting workloads.
    pub reservations: Vec<Reservation>,
    /// Workloads that go on waiting, each with its reason.
    pub waits: Vec<Wait>,
    /// What of the reserves can't be delivered at once then, though all left that can be asked.
    #[serde(default)]
    pub missing: Vec<Missing>,
}

/// Something that is asked to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eviction {
    /// Index into [`super::Snapshot::running`].
    pub running: usize,
    /// The workload that gets the room: index into [`super::Snapshot::waiting`].
    pub by: usize,
    /// By what right.
    pub reason: EvictionReason,
    /// Work that is lost: units, times milliseconds since it was last saved.
    pub lost: UnitMs,
}

/// By what right something is asked to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EvictionReason {
    /// Its tenant holds what is guaranteed to another.
    Reclaimed,
    /// A workload of the same tenant has a higher priority.
    Preempted,
    /// Its room is taken by the right of a reserve.
    Claimed,
    /// It stands in the way by its place only, and starts anew elsewhere.
    Moved,
}

/// A pod that gets another in its stead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// Index into [`super::Snapshot::running`].
    pub running: usize,
    /// Index into [`super::Running::pods`].
    pub pod: usize,
    /// Where the other one goes.
    pub to: PodPlacement,
    /// The workload that gets the room: index into [`super::Snapshot::waiting`].
    pub by: usize,
}

/// Places that are kept for a workload until it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Index into [`super::Snapshot::waiting`].
    pub workload: usize,
    /// Where each of its pods is to go.
    pub pods: Vec<PodPlacement>,
    /// When all of it is free at the latest, in milliseconds since 1970, if that is known.
    pub free_ms: Option<i64>,
    /// As what the workload runs if it starts there.
    #[serde(default)]
    pub right: Right,
}

/// A workload that is placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Index into [`Snapshot::waiting`].
    pub workload: usize,
    /// Where each of its pods goes.
    pub pods: Vec<PodPlacement>,
    /// What its tenant is charged for it.
    pub units: Units,
    /// As what it runs.
    #[serde(default)]
    pub right: Right,
}

/// Where one pod goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlacement {
    /// The node.
    pub node: NodeIndex,
    /// Its devices: for each of the shape's requests, in order, as many as it counts.
    pub devices: Vec<Vec<DeviceIndex>>,
}

/// A workload that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// Index into [`Snapshot::waiting`].
    pub workload: usize,
    /// Why.
    pub reason: WaitReason,
}

/// Why a workload waits. Its `Display` is what users read. Names are shared by all that wait for the same: most wait
/// in the next cycle, too, and nobody reads of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitReason {
    /// No device of this cluster satisfies a request, however empty it were.
    NoSuchDevice {
        /// What was asked for.
        label: Arc<str>,
        /// What there is instead, as `kind (n)`.
        available: Arc<[String]>,
    },
    /// It would not fit even if the cluster were empty.
    NeverFits {
        /// What was asked for, in words (`2 × 8 GPUs`).
        asked: Arc<str>,
        /// How many pods would fit into the empty cluster.
        empty_cluster_fits: u32,
        /// How many are asked for.
        pods: u32,
        /// Nodes whose devices would do but that suit no pod, by reason, with their number.
        turned_away: Arc<BTreeMap<String, u32>>,
    },
    /// The limit of the tenant, or of one above it, is below what the workload alone needs.
    AboveLimit {
        /// The tenant whose limit it is.
        tenant: Arc<str>,
        /// What the workload needs.
        needs: Units,
        /// What the tenant may hold.
        limit: Units,
    },
    /// The tenant, or one above it, has too little left.
    Quota {
        /// The tenant that has the least left.
        tenant: Arc<str>,
        /// What the workload needs.
        needs: Units,
        /// What the tenant has left.
        left: Units,
        /// What the tenant may hold.
        limit: Units,
    },
    /// It may not be stopped for others, and the tenant's guarantee is not enough for it beside what else it has that
    /// may not be stopped.
    Guarantee {
        /// The tenant.
        tenant: Arc<str>,
        /// What the workload needs.
        needs: Units,
        /// What is left of the guarantee.
        left: Units,
        /// What the tenant is guaranteed.
        guaranteed: Units,
    },
    /// There is not enough room now.
    NoRoom {
        /// What was asked for, in words.
        asked: Arc<str>,
        /// How many of its pods fit now.
        fit: u32,
        /// How many are asked for.
        pods: u32,
        /// The tenant; if it or one above it has a limit, the one that has the least left.
        tenant: Arc<str>,
        /// What that tenant has left under its limit, and that limit.
        left: Option<(Units, Units)>,
    },
    /// GPUs are free, but no node that has them suits the pod.
    NoNode {
        /// What was asked for, in words.
        asked: Arc<str>,
        /// How many of its pods fit now.
        fit: u32,
        /// The tenant; if it or one above it has a limit, the one that has the least left.
        tenant: Arc<str>,
        /// What that tenant has left under its limit, and that limit.
        left: Option<(Units, Units)>,
        /// Nodes turned away, by reason (`cpu`, `memory`, `node selector`, `taint x`), with their number.
        turned_away: Arc<BTreeMap<String, u32>>,
        /// Nodes looked at.
        nodes: u32,
    },
    /// There is room, but then what a reserve promises could not be delivered.
    Promised {
        /// What was asked for, in words.
        asked: Arc<str>,
    },
    /// There is room, but it is kept for a workload that is ahead.
    Kept {
        /// What was asked for, in words.
        asked: Arc<str>,
    },
    /// Room is being made: others have been asked to leave.
    MakingRoom {
        /// What was asked for, in words.
        asked: Arc<str>,
        /// How many jobs leave.
        leaving: u32,
        /// When they have left at the latest, in milliseconds since 1970.
        until_ms: i64,
    },
    /// A place is kept for it, where others are to end by themselves.
    Reserved {
        /// What was asked for, in words.
        asked: Arc<str>,
        /// How many jobs are there.
        ending: u32,
        /// When they have ended at the latest, in milliseconds since 1970, if that is known.
        free_ms: Option<i64>,
    },
    /// It was withdrawn and is tried again later.
    Backoff {
        /// Milliseconds left.
        left_ms: i64,
    },
    /// The tenant is not known (any more).
    NoTenant {
        /// Its name.
        tenant: Arc<str>,
    },
}
