//! Clusters for tests: real cards as their published counters, and builders.

use std::collections::BTreeMap;

use crate::charge;
use crate::geometry::Counter;
use crate::model::{
    Device, DeviceRequest, DeviceSet, Gpu, Node, NodeIndex, PodShape, Resources, Snapshot, Tenant, Workload,
};

pub const GIB: u64 = 1 << 30;

/// Name, compute slices, memory slices, memory in GiB, OFA engines, starts.
type Profile = (&'static str, u64, u64, u64, u64, &'static [u64]);

const H100: &[Profile] = &[
    ("1g.10gb", 1, 1, 10, 0, &[0, 1, 2, 3, 4, 5, 6]),
    ("1g.10gb+me", 1, 1, 10, 1, &[0, 1, 2, 3, 4, 5, 6]),
    ("1g.20gb", 1, 2, 20, 0, &[0, 2, 4, 6]),
    ("2g.20gb", 2, 2, 20, 0, &[0, 2, 4]),
    ("3g.40gb", 3, 4, 40, 0, &[0, 4]),
    ("4g.40gb", 4, 4, 40, 0, &[0]),
    ("7g.80gb", 7, 8, 80, 1, &[0]),
];

const A30: &[Profile] = &[
    ("1g.6gb", 1, 1, 6, 0, &[0, 1, 2, 3]),
    ("1g.6gb+me", 1, 1, 6, 1, &[0, 1, 2, 3]),
    ("2g.12gb", 2, 2, 12, 0, &[0, 2]),
    ("4g.24gb", 4, 4, 24, 1, &[0]),
];

/// An H100 in MIG mode with all of its 25 placements.
pub fn h100() -> Gpu {
    card(H100, 7, 8)
}

/// An H100 in MIG mode with the placements of some profiles only.
pub fn h100_with(profiles: &[&str]) -> Gpu {
    let some: Vec<Profile> = H100.iter().filter(|profile| profiles.contains(&profile.0)).copied().collect();
    card(&some, 7, 8)
}

/// An A30 in MIG mode: four slices.
pub fn a30() -> Gpu {
    card(A30, 4, 4)
}

/// An H100 that is not in MIG mode: one device that takes everything.
pub fn whole() -> Gpu {
    let mut gpu = h100_with(&["7g.80gb"]);
    gpu.devices[0].kind = "gpu".into();
    gpu.devices[0].name = "whole".into();
    gpu.devices[0].consumes.clone_from(&gpu.capacity);
    gpu
}

/// An H100 that may still be either: its partitions and the whole GPU.
pub fn either() -> Gpu {
    let mut gpu = h100();
    gpu.devices.extend(whole().devices.iter().cloned());
    gpu
}

fn card(profiles: &[Profile], compute: u64, slices: u64) -> Gpu {
    let memory = profiles.iter().map(|profile| profile.3).max().unwrap_or(0);
    let capacity: Vec<u64> = [compute, memory * GIB, 1].into_iter().chain((0..slices).map(|_| 1)).collect();
    let mut devices = Vec::new();
    for (kind, compute, size, memory, ofa, starts) in profiles {
        for start in *starts {
            let slice = |i| u64::from((*start..start + size).contains(&i));
            // Real tables give each profile a little less memory than its slices have.
            let consumes: Vec<u64> =
                [*compute, memory * GIB * 9 / 10, *ofa].into_iter().chain((0..slices).map(slice)).collect();
            devices.push(Device {
                name: format!("{kind}-{start}"),
                kind: (*kind).into(),
                units: charged(&capacity, &consumes),
                consumes,
                memory_bytes: memory * GIB,
                tainted: false,
            });
        }
    }
    Gpu { used: vec![0; capacity.len()], capacity, devices: devices.into(), ..Gpu::default() }
}

fn charged(capacity: &[u64], consumes: &[u64]) -> u64 {
    let name = |i: usize| match i {
        0 => "compute-slices".to_owned(),
        1 => "memory".to_owned(),
        2 => "ofa-engines".to_owned(),
        i => format!("memory-slice-{}", i - 3),
    };
    let names: Vec<String> = (0..capacity.len()).map(name).collect();
    let counters = names.iter().zip(capacity).zip(consumes);
    charge(counters.map(|((name, capacity), consumes)| Counter {
        name,
        capacity: *capacity,
        consumes: *consumes,
    }))
}

/// A cluster of nodes `n0`, `n1`, ... that each have these GPUs, and one tenant `t` without limit.
pub fn cluster(nodes: u32, gpus: &[Gpu]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in 0..nodes {
        add_node(&mut snapshot, gpus);
        debug_assert_eq!(snapshot.nodes.len(), node as usize + 1);
    }
    snapshot.tenants.insert("t".into(), Tenant::default());
    snapshot
}

/// Adds a node with room for many pods.
pub fn add_node(snapshot: &mut Snapshot, gpus: &[Gpu]) {
    let index = NodeIndex(u32::try_from(snapshot.nodes.len()).unwrap());
    for (gpu, minor) in gpus.iter().zip(0..) {
        let mut gpu = Gpu { node: index, name: format!("gpu-{minor}"), ..gpu.clone() };
        for device in gpu.devices.iter_mut() {
            device.name = format!("gpu-{minor}-{}", device.name);
        }
        snapshot.gpus.push(gpu);
    }
    snapshot.nodes.push(Node {
        name: format!("n{}", index.0),
        schedulable: true,
        allocatable: Resources {
            cpu_milli: 192_000,
            memory_bytes: 2048 * GIB,
            pods: 110,
            ..Resources::default()
        },
        ..Node::default()
    });
}

/// The set of all devices for which `will_do`; its index.
pub fn devices(snapshot: &mut Snapshot, will_do: impl Fn(&Device) -> bool) -> usize {
    let mask = |gpu: &Gpu| {
        let bits = gpu.devices.iter().enumerate().filter(|(_, device)| will_do(device));
        bits.fold(0, |mask, (bit, _)| mask | 1_u64 << bit)
    };
    let set = DeviceSet(snapshot.gpus.iter().map(mask).collect());
    if let Some(known) = snapshot.device_sets.iter().position(|known| *known == set) {
        return known;
    }
    snapshot.device_sets.push(set);
    snapshot.device_sets.len() - 1
}

/// A request for some devices of one kind.
pub fn request(snapshot: &mut Snapshot, count: u32, kind: &str) -> DeviceRequest {
    let eligible = devices(snapshot, |device| device.kind == kind);
    DeviceRequest { count, label: kind.into(), eligible, smallest: false }
}

/// A workload of tenant `t`, of `pods` pods with one device each; it is not queued yet.
pub fn job(snapshot: &mut Snapshot, key: &str, pods: u32, kind: &str) -> Workload {
    let requests = vec![request(snapshot, 1, kind)];
    job_of(snapshot, key, pods, requests)
}

/// A workload of tenant `t` whose pods make these requests; it is not queued yet.
pub fn job_of(snapshot: &mut Snapshot, key: &str, pods: u32, requests: Vec<DeviceRequest>) -> Workload {
    let resources = Resources { cpu_milli: 1000, memory_bytes: GIB, pods: 1, other: BTreeMap::new() };
    snapshot.shapes.push(PodShape { resources, requests, ..PodShape::default() });
    let shape = snapshot.shapes.len() - 1;
    Workload { key: key.into(), tenant: "t".into(), pods, shape, ..Workload::default() }
}

/// Counts a device of a GPU as held.
pub fn hold(snapshot: &mut Snapshot, gpu: usize, name: &str) {
    let gpu = &mut snapshot.gpus[gpu];
    let at = gpu.devices.iter().position(|device| device.name.ends_with(name)).unwrap();
    let device = &gpu.devices[at];
    gpu.held |= 1 << at;
    for (used, more) in gpu.used.iter_mut().zip(&device.consumes) {
        *used += more;
    }
    assert!(gpu.used.iter().zip(&gpu.capacity).all(|(used, all)| used <= all), "{name} does not fit");
}
