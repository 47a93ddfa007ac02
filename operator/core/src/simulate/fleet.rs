//! Clusters to play with, in the form in which a live one is seen: nodes with
//! GPUs and what they can be cut into, and requests for these. Decisions about
//! a live cluster never use them.

use crate::geometry::{Counter, charge};
use crate::model::{
    Device, DeviceRequest, DeviceSet, Gpu, Node, NodeIndex, PodShape, Resources, Snapshot, Tenant,
};

/// A sort of GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// An H100 of 80 GB that is cut into partitions, of which the largest is the whole.
    H100Mig,
    /// An H100 of 80 GB that is given out whole.
    H100,
    /// An H100 of 80 GB that may be either.
    H100Either,
    /// An A30 that is cut into partitions.
    A30Mig,
}

/// Name, compute slices, memory slices, memory in GB, whether it takes the media engines, starts.
type Profile = (&'static str, u64, u64, u64, bool, &'static [u64]);

const H100: &[Profile] = &[
    ("1g.10gb", 1, 1, 10, false, &[0, 1, 2, 3, 4, 5, 6]),
    ("1g.10gb+me", 1, 1, 10, true, &[0, 1, 2, 3, 4, 5, 6]),
    ("1g.20gb", 1, 2, 20, false, &[0, 2, 4, 6]),
    ("2g.20gb", 2, 2, 20, false, &[0, 2, 4]),
    ("3g.40gb", 3, 4, 40, false, &[0, 4]),
    ("4g.40gb", 4, 4, 40, false, &[0]),
    ("7g.80gb", 7, 8, 80, true, &[0]),
];

const A30: &[Profile] = &[
    ("1g.6gb", 1, 1, 6, false, &[0, 1, 2, 3]),
    ("1g.6gb+me", 1, 1, 6, true, &[0, 1, 2, 3]),
    ("2g.12gb", 2, 2, 12, false, &[0, 2]),
    ("4g.24gb", 4, 4, 24, true, &[0]),
];

const GIB: u64 = 1 << 30;

impl Sort {
    /// A GPU of this sort, of which nothing is held.
    pub fn gpu(self) -> Gpu {
        let (profiles, compute, slices) = match self {
            Self::A30Mig => (A30, 4, 4),
            Self::H100 | Self::H100Mig | Self::H100Either => (H100, 7, 8),
        };
        let memory = profiles.iter().map(|profile| profile.3).max().unwrap_or(0) * GIB;
        let capacity: Vec<u64> = [compute, memory, 1].into_iter().chain((0..slices).map(|_| 1)).collect();
        let mut devices = Vec::new();
        for &(kind, compute, size, gb, media, starts) in profiles.iter().filter(|_| self != Self::H100) {
            for &start in starts {
                let slice = |at| u64::from((start..start + size).contains(&at));
                // Published profiles have a little less memory than their slices.
                let first = [compute, gb * GIB / 16 * 15, u64::from(media)];
                let consumes: Vec<u64> = first.into_iter().chain((0..slices).map(slice)).collect();
                let name = format!("mig-{}-{start}", kind.replace('.', "").replace('+', "-"));
                devices.push(device(name, kind, &capacity, consumes, gb * GIB));
            }
        }
        if matches!(self, Self::H100 | Self::H100Either) {
            devices.push(device("gpu".to_owned(), "gpu", &capacity, capacity.clone(), memory));
        }
        Gpu { used: vec![0; capacity.len()], capacity, devices: devices.into(), ..Gpu::default() }
    }
}

fn device(name: String, kind: &str, capacity: &[u64], consumes: Vec<u64>, memory_bytes: u64) -> Device {
    let name_of = |index: usize| match index {
        0 => "compute-slices".to_owned(),
        1 => "memory".to_owned(),
        2 => "media-engines".to_owned(),
        slice => format!("memory-slice-{}", slice - 3),
    };
    let names: Vec<String> = (0..capacity.len()).map(name_of).collect();
    let counters = names.iter().zip(capacity).zip(&consumes);
    let counters = counters.map(|((name, capacity), consumes)| Counter {
        name,
        capacity: *capacity,
        consumes: *consumes,
    });
    let units = charge(counters);
    Device { name, kind: kind.to_owned(), consumes, units, memory_bytes, tainted: false }
}

/// Adds a node called `name` with `count` GPUs of a sort, with 24 CPUs and 256 GiB for each and at least for one.
/// Sets of devices are not widened: add nodes first.
pub fn add_node(snapshot: &mut Snapshot, name: &str, count: u32, sort: Sort) {
    let Ok(index) = u32::try_from(snapshot.nodes.len()) else { return };
    let gpu = sort.gpu();
    for minor in 0..count {
        let devices = gpu.devices.iter().map(|device| Device {
            name: if device.kind == "gpu" {
                format!("gpu-{minor}")
            } else {
                format!("gpu-{minor}-{}", device.name)
            },
            ..device.clone()
        });
        snapshot.gpus.push(Gpu {
            node: NodeIndex(index),
            name: format!("gpu-{minor}"),
            devices: devices.collect(),
            ..gpu.clone()
        });
    }
    let times = u64::from(count.max(1));
    snapshot.nodes.push(Node {
        name: name.to_owned(),
        schedulable: true,
        labels: [("kubernetes.io/hostname".to_owned(), name.to_owned())].into(),
        allocatable: Resources {
            cpu_milli: 24_000 * times,
            memory_bytes: 256 * GIB * times,
            pods: 110,
            ..Resources::default()
        },
        ..Node::default()
    });
}

/// Nodes `node-0000` and so on with `gpus` GPUs each, and one tenant, `default`, without limit.
pub fn fleet(nodes: u32, gpus: u32, sort: Sort) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in 0..nodes {
        add_node(&mut snapshot, &format!("node-{node:04}"), gpus, sort);
    }
    snapshot.tenants.insert("default".to_owned(), Tenant::default());
    snapshot
}

/// The shape of pods that ask for `count` devices of a kind (`gpu`, `3g.40gb`) and for these resources of their node;
/// its index into [`Snapshot::shapes`]. `None` if no GPU of the cluster has such a device.
pub fn shape(snapshot: &mut Snapshot, count: u32, kind: &str, resources: &Resources) -> Option<usize> {
    let mask = |gpu: &Gpu| {
        let bits = (0..64).zip(&gpu.devices).filter(|(_, device)| device.kind == kind);
        bits.fold(0_u64, |mask, (bit, _)| mask | 1 << bit)
    };
    let set = DeviceSet(snapshot.gpus.iter().map(mask).collect());
    if set.0.iter().all(|mask| *mask == 0) {
        return None;
    }
    let eligible = position_or_push(&mut snapshot.device_sets, set);
    let request = DeviceRequest { count, label: kind.to_owned(), eligible, smallest: false };
    let resources = Resources { pods: 1, ..resources.clone() };
    let shape = PodShape { resources, requests: vec![request], ..PodShape::default() };
    Some(position_or_push(&mut snapshot.shapes, shape))
}

fn position_or_push<T: PartialEq>(all: &mut Vec<T>, one: T) -> usize {
    all.iter().position(|known| *known == one).unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    })
}
