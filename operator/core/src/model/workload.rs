//! What waits for devices, and what runs on them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{PodPlacement, Resources, UnitMs, Units};

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
    /// What each pod needs: index into [`super::Snapshot::shapes`].
    pub shape: usize,
    /// How long it runs at most, in milliseconds, if that is known.
    pub runs_ms: Option<i64>,
    /// It may not be stopped for others, and so starts only within what its tenant is guaranteed: else the tenant
    /// could borrow and never give back.
    pub lasting: bool,
    /// How long after being asked it would leave at the latest, in milliseconds, if it may be stopped for others.
    #[serde(default)]
    pub grace_ms: i64,
    /// The advance order it is to run under, as [`super::Order::key`].
    #[serde(default)]
    pub order: Option<String>,
    /// Where its pods are to be close to one another.
    pub topology: Option<Topology>,
    /// The places that were kept for it, from [`super::Reservation::pods`] of the last plan; empty if none were.
    pub reserved: Vec<PodPlacement>,
    /// Where it was among the reservations of the last plan; those that come first were promised first.
    pub reserved_rank: u32,
    /// From [`super::Reservation::right`] of the last plan.
    #[serde(default)]
    pub reserved_right: Right,
}

/// Pods that are to be close to one another: on nodes with the same value of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Topology {
    /// The label (`topology.kubernetes.io/rack`, `kubernetes.io/hostname`, an `NVLink` domain).
    pub label: String,
    /// Whether it waits until it can be so; else it takes what there is, packed as well as possible.
    pub required: bool,
}

/// Something that holds devices and may be asked to give them back, as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Its identity, as [`Workload::key`].
    pub key: String,
    /// The tenant charged.
    pub tenant: String,
    /// As [`Workload::priority`].
    pub priority: i32,
    /// What each pod needs: index into [`super::Snapshot::shapes`].
    pub shape: usize,
    /// Where its pods are.
    pub pods: Vec<PodPlacement>,
    /// What its tenant is charged for it.
    pub units: Units,
    /// How long it had waited in all before it was admitted, in milliseconds, with what it waited before earlier tries.
    /// Waiting outweighs priority: who went before others by it is not stopped for them.
    #[serde(default)]
    pub waited_ms: i64,
    /// When it was admitted, in milliseconds since 1970.
    pub admitted_ms: i64,
    /// When it has ended at the latest, in milliseconds since 1970, if that is known.
    pub ends_ms: Option<i64>,
    /// When its progress was last saved, in milliseconds since 1970; `None` loses all since it was admitted, unless it
    /// serves.
    pub saved_ms: Option<i64>,
    /// It answers requests, and gets no further by running for longer: if it has to leave, it does not serve until it is
    /// back, and that is all that is lost.
    #[serde(default)]
    pub serves: bool,
    /// How long after being asked it leaves at the latest, in milliseconds.
    pub grace_ms: i64,
    /// It has been asked to leave, and holds nothing any more at this time, in milliseconds since 1970.
    pub leaves_ms: Option<i64>,
    /// Whether it may be asked to leave at all, for others to have its devices.
    pub evictable: bool,
    /// It holds what it holds by the right of a reserve: as an instant claim, or under the order named. As long as
    /// it does, only who is of a higher class may ask it to leave.
    #[serde(default)]
    pub right: Right,
    /// Whether, and how, it may be moved to other devices.
    pub movable: Movable,
    /// As [`Workload::topology`].
    #[serde(default)]
    pub topology: Option<Topology>,
}

impl Running {
    /// It as the workload that it was, or is again once it has left. When it was queued is not known any more: the time
    /// of its admission stands for it.
    pub fn as_workload(&self) -> Workload {
        Workload {
            key: self.key.clone(),
            tenant: self.tenant.clone(),
            priority: self.priority,
            lasting: !self.evictable,
            grace_ms: self.grace_ms,
            queued_ms: self.admitted_ms,
            pods: u32::try_from(self.pods.len()).unwrap_or(u32::MAX),
            shape: self.shape,
            runs_ms: self.ends_ms.map(|ends_ms| ends_ms.saturating_sub(self.admitted_ms)),
            topology: self.topology.clone(),
            ..Workload::default()
        }
    }

    /// What is lost if it has to leave now: of something that serves its restart, of anything else what it did since it
    /// last saved its progress.
    pub fn lost(&self, now_ms: i64) -> UnitMs {
        let lost_ms = if self.serves {
            self.grace_ms.max(0).saturating_add(RESTART_MS)
        } else {
            let saved_ms = self.saved_ms.map_or(self.admitted_ms, |saved_ms| saved_ms.max(self.admitted_ms));
            now_ms.saturating_sub(saved_ms)
        };
        self.units.saturating_mul(u64::try_from(lost_ms).unwrap_or(0))
    }
}

/// How long something that serves is taken to be away after it has left, in milliseconds: it starts, and loads its
/// model.
const RESTART_MS: i64 = 120_000;

/// By what right something holds what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Right {
    /// As any other workload of its tenant.
    #[default]
    Ordinary,
    /// Others were asked to leave for it, and it spends tokens.
    Claimed,
    /// Under the order with this key.
    Ordered(String),
}

/// How something that runs gets to other devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Movable {
    /// Not at all.
    #[default]
    No,
    /// It is asked to leave, and starts anew elsewhere from its last checkpoint.
    Restart,
    /// Another like it is started elsewhere; when that is ready, it is asked to leave.
    Replace,
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
