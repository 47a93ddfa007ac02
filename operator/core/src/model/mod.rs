//! What a decision is made from and what it consists of: the cluster, its
//! tenants, what is held, what waits, and the plan. Data only; how a plan is
//! found is not here.
//!
//! Nodes, GPUs and devices are named by index into the snapshot they are part
//! of; an index means nothing outside it.

mod devices;
mod plan;
mod reserve;
mod settings;
mod workload;

use std::collections::BTreeMap;

pub use devices::Devices;
pub use plan::{
    Admission, Eviction, EvictionReason, Plan, PodPlacement, Replacement, Reservation, Wait, WaitReason,
};
pub use reserve::{Class, Missing, Order, Reserve, ReservedShape};
pub use settings::{PlacementPolicy, Settings};
pub use workload::{
    DeviceRequest, Movable, NodeTerm, Operator, PodShape, Requirement, Right, Running, Toleration, Topology,
    Workload,
};

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
    /// What pods need; workloads with equal needs share one.
    pub shapes: Vec<PodShape>,
    /// What waits to be decided, in any order.
    pub waiting: Vec<Workload>,
    /// What holds devices, in any order; what it holds is in [`Gpu::used`] and [`Tenant::used`] as well.
    /// Devices may also be held by what is not here, and cannot be asked back.
    pub running: Vec<Running>,
    /// The sovereign reserves, each of a pool of GPUs of its own.
    #[serde(default)]
    pub reserves: Vec<Reserve>,
    /// How many jobs may be moved now to make room by shape.
    pub moves_left: u32,
    /// How the owner wants decisions made.
    pub settings: Settings,
}

impl Snapshot {
    /// What each pod of a waiting workload needs.
    pub fn shape_of(&self, workload: &Workload) -> &PodShape {
        &self.shapes[workload.shape]
    }
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
    /// Bit `i`: device `i` is held. What is used beyond these devices is held by others than vingt.
    pub held: u64,
    /// The devices it can be cut into, at most 64. GPUs that are alike best share them: they are told apart by address
    /// first.
    pub devices: Devices,
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

/// A set of devices: for each GPU of the snapshot, bit `i` stands for its device `i`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSet(pub Vec<u64>);

/// Units held, times the milliseconds they were held.
pub type UnitMs = u64;

/// A tenant: what it may hold and what it holds. Tenants form a tree: what is guaranteed to a
/// tenant and what it may hold at most is for it and all that are below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// The tenant above it; must be in [`Snapshot::tenants`]. A parent that is missing, or a tenant that
    /// is above itself, counts as none.
    pub parent: Option<String>,
    /// What it is to the reserves.
    #[serde(default)]
    pub class: Class,
    /// What it gets before others may borrow it.
    pub guaranteed: Units,
    /// What it may hold at most; `None` is all there is.
    pub limit: Option<Units>,
    /// Its share of what nobody is guaranteed, relative to the others of its parent; 0 counts as 1.
    pub weight: u32,
    /// What its own workloads hold now, allocated or planned.
    pub used: Units,
    /// Of this, what is held by workloads that may not be stopped for others ([`Workload::lasting`]).
    pub lasting: Units,
    /// What its own workloads held of late, older use counting less ([`Settings::half_life_ms`]).
    pub recent: UnitMs,
    /// When a workload of its own was last admitted in its turn ([`Plan::out_of_turn`]), in milliseconds since 1970; 0
    /// is never.
    pub last_admitted_ms: i64,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            parent: None,
            class: Class::Standard,
            guaranteed: 0,
            limit: None,
            weight: 1,
            used: 0,
            lasting: 0,
            recent: 0,
            last_admitted_ms: 0,
        }
    }
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
