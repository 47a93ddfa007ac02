//! What a decision is made from and what it consists of: the cluster, its
//! tenants, what is held, what waits, and the plan. Data only; how a plan is
//! found is not here.
//!
//! Nodes, GPUs and devices are named by index into the snapshot they are part
//! of; an index means nothing outside it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Share of a GPU: 56 are one whole GPU (the least common multiple of 7
/// compute and 8 memory slices).
pub type Units = u64;

/// Units of one whole GPU.
pub const UNITS_PER_GPU: Units = 56;

/// Index into [`Snapshot::nodes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeIndex(pub u32);

/// Index into [`Snapshot::gpus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GpuIndex(pub u32);

/// A device: the GPU it is cut from, and its index into [`Gpu::devices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceIndex {
    /// The GPU.
    pub gpu: GpuIndex,
    /// Position among the GPU's devices.
    pub device: u8,
}

/// Everything a plan depends on, besides the time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// All nodes that have GPUs, by name.
    pub nodes: Vec<Node>,
    /// All GPUs, those of one node together.
    pub gpus: Vec<Gpu>,
    /// All tenants, by name.
    pub tenants: BTreeMap<String, Tenant>,
    /// Sets of devices that requests select; workloads with equal requests share one.
    pub device_sets: Vec<DeviceSet>,
    /// What waits to be decided, in any order.
    pub waiting: Vec<Workload>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether pods may be put there at all: ready, not cordoned, its agent's pool complete.
    pub schedulable: bool,
    /// What it offers to pods.
    pub allocatable: Resources,
    /// What the pods on it ask for, with those decided but not bound yet.
    pub requested: Resources,
}

/// Amounts of what pods ask of a node besides devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Number of pods.
    pub pods: u64,
    /// Everything else, by resource name (`ephemeral-storage`, `hugepages-1Gi`, ...).
    pub other: BTreeMap<String, u64>,
}

/// A GPU as its counters: a device fits if the counters it consumes are free.
/// This is all that is known of its geometry (KEP-4815).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// The node it is in.
    pub node: NodeIndex,
    /// Name of its counter set.
    pub name: String,
    /// What there is of each counter.
    pub capacity: Vec<u64>,
    /// What is held of each counter.
    pub used: Vec<u64>,
    /// The devices it can be cut into, at most 64.
    pub devices: Vec<Device>,
    /// Nothing may be placed here, though what is held stays held: its slices
    /// are missing or not of the newest complete generation.
    pub blocked: bool,
}

/// One way to use a part of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in the slice.
    pub name: String,
    /// What people call it: `gpu`, or the MIG profile (`3g.40gb`).
    pub kind: String,
    /// What it consumes of each counter of its GPU; as long as [`Gpu::capacity`]. Of at least one counter
    /// it must take more than half: that is what keeps it from being given out twice.
    pub consumes: Vec<u64>,
    /// What a tenant is charged for it.
    pub units: Units,
    /// Its memory.
    pub memory_bytes: u64,
    /// A taint other than the fence keeps new allocations away.
    pub tainted: bool,
}

/// A tenant: what it may hold and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// What it gets before others may borrow it.
    pub guaranteed: Units,
    /// What it may hold at most; `None` is all there is.
    pub limit: Option<Units>,
    /// What it holds now, allocated or planned.
    pub used: Units,
}

/// Something that is decided as a whole: a gang of equal pods, or a single pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Its identity, as `Kind/namespace/name`.
    pub key: String,
    /// The tenant charged; must be in [`Snapshot::tenants`].
    pub tenant: String,
    /// Higher goes first within a tenant.
    pub priority: i32,
    /// When it was queued, in milliseconds since 1970.
    pub queued_ms: i64,
    /// Not to be placed before this time, in milliseconds since 1970: it was withdrawn a moment ago.
    pub not_before_ms: i64,
    /// Nodes that did not work out last time; used only when no others do.
    pub avoid: BTreeSet<String>,
    /// Number of equal pods; all of them are placed or none.
    pub pods: u32,
    /// What each pod needs.
    pub shape: PodShape,
}

/// What a pod needs of a node and its GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodShape {
    /// CPU, memory and the rest; `pods` is 1.
    pub resources: Resources,
    /// Required node terms, of which one must match; empty means any node.
    pub node_terms: Vec<NodeTerm>,
    /// Taints it tolerates.
    pub tolerations: Vec<Toleration>,
    /// Only this node, because another claim of the pod is allocated there already.
    pub pinned: Option<String>,
    /// The devices it asks for, over all its claims; all on one node.
    pub requests: Vec<DeviceRequest>,
}

/// A number of devices of one sort.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// How many.
    pub count: u32,
    /// In words, what is asked for (`3g.40gb`, `gpu`, `memory 30Gi`).
    pub label: String,
    /// Which devices will do: index into [`Snapshot::device_sets`].
    pub eligible: usize,
    /// Take the smallest device in [`Device::units`] that will do, not just any.
    pub smallest: bool,
}

/// A set of devices: for each GPU of the snapshot, bit `i` stands for its device `i`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSet(pub Vec<u64>);

/// Requirements that must all hold on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeTerm {
    /// On its labels.
    pub labels: Vec<Requirement>,
    /// On its name (`matchFields metadata.name`).
    pub names: Vec<Requirement>,
}

/// One requirement on a label, or on the node's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requirement {
    /// The label; not used for names.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub values: Vec<String>,
}

/// Comparison of a [`Requirement`], as in Kubernetes' node affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// The value is one of the values.
    In,
    /// It is none of them, or there is no such label.
    NotIn,
    /// There is such a label.
    Exists,
    /// There is none.
    DoesNotExist,
    /// The value is an integer greater than the one given.
    Gt,
    /// The value is an integer less than the one given.
    Lt,
}

/// A node's taint; only those that keep pods away are here (`NoSchedule`, `NoExecute`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, often empty.
    pub value: String,
    /// Effect, as Kubernetes spells it.
    pub effect: String,
}

/// A pod's toleration; an absent field matches everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Toleration {
    /// Key; `None` tolerates every key.
    pub key: Option<String>,
    /// Value; `None` is the operator `Exists`.
    pub value: Option<String>,
    /// Effect; `None` tolerates every effect.
    pub effect: Option<String>,
}

/// What is to be done, and for everything else why not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Workloads that are placed whole, in the order they were decided.
    pub admissions: Vec<Admission>,
    /// Workloads that go on waiting, each with its reason.
    pub waits: Vec<Wait>,
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

/// Why a workload waits. Its `Display` is what users read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitReason {
    /// No device of this cluster satisfies a request, however empty it were.
    NoSuchDevice {
        /// What was asked for.
        label: String,
        /// What there is instead, as `kind (n)`.
        available: Vec<String>,
    },
    /// It would not fit even if the cluster were empty.
    NeverFits {
        /// What was asked for, in words (`2 × 8 GPUs`).
        asked: String,
        /// How many pods would fit into the empty cluster.
        empty_cluster_fits: u32,
        /// How many are asked for.
        pods: u32,
        /// Nodes whose devices would do but that suit no pod, by reason, with their number.
        turned_away: BTreeMap<String, u32>,
    },
    /// The tenant's limit is below what the workload alone needs.
    AboveLimit {
        /// The tenant.
        tenant: String,
        /// What the workload needs.
        needs: Units,
        /// What the tenant may hold.
        limit: Units,
    },
    /// The tenant has too little left.
    Quota {
        /// The tenant.
        tenant: String,
        /// What the workload needs.
        needs: Units,
        /// What the tenant has left.
        left: Units,
        /// What the tenant may hold.
        limit: Units,
    },
    /// There is not enough room now.
    NoRoom {
        /// What was asked for, in words.
        asked: String,
        /// How many of its pods fit now.
        fit: u32,
        /// How many are asked for.
        pods: u32,
        /// The tenant.
        tenant: String,
        /// What the tenant has left under its limit, if it has one, and that limit.
        left: Option<(Units, Units)>,
    },
    /// GPUs are free, but no node that has them suits the pod.
    NoNode {
        /// What was asked for, in words.
        asked: String,
        /// How many of its pods fit now.
        fit: u32,
        /// The tenant.
        tenant: String,
        /// What the tenant has left under its limit, if it has one, and that limit.
        left: Option<(Units, Units)>,
        /// Nodes turned away, by reason (`cpu`, `memory`, `node selector`, `taint x`), with their number.
        turned_away: BTreeMap<String, u32>,
        /// Nodes looked at.
        nodes: u32,
    },
    /// It was withdrawn and is tried again later.
    Backoff {
        /// Milliseconds left.
        left_ms: i64,
    },
    /// The tenant is not known (any more).
    NoTenant {
        /// Its name.
        tenant: String,
    },
}
