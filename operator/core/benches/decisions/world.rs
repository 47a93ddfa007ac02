//! Clusters to measure with: nodes of eight H100s that may be cut into every
//! partition of their table, partly in use, and what waits for them.

use std::collections::{BTreeMap, BTreeSet};

use vingt_core::charge;
use vingt_core::model::{
    Device, DeviceIndex, DeviceRequest, DeviceSet, Gpu, GpuIndex, Node, NodeIndex, PodPlacement, PodShape,
    Resources, Running, Snapshot, Tenant, Workload,
};
use vingt_core::simulate::Random;
use vingt_core::simulate::cards::{self, HOPPER, MEDIA, Profile};

const GIB: u64 = 1 << 30;

/// Kinds of partitions, as people call them.
pub const KINDS: [&str; 7] = ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb", "1g.10gb+me"];

/// Of 100 jobs, how many ask for each kind.
const MIX: [u32; 7] = [25, 10, 20, 20, 5, 15, 5];

/// An H100 with its 25 placements.
fn h100() -> Gpu {
    let profiles: Vec<Profile> = HOPPER.iter().copied().chain([MEDIA]).collect();
    let card = cards::card(&profiles, 7, 8);
    let name = |counter: usize| match counter {
        7 => String::new(),
        8 => "compute-slices".to_owned(),
        9 => "engines".to_owned(),
        slice => format!("memory-slice-{slice}"),
    };
    let names: Vec<String> =
        (0..card.capacity.len()).map(|i| if i < 8 { format!("memory-slice-{i}") } else { name(i) }).collect();
    let device = |(index, device): (usize, &vingt_core::states::CardDevice)| {
        let kind = KINDS[device.serves.trailing_zeros() as usize];
        let counters = names.iter().zip(&card.capacity).zip(&device.consumes);
        let units = charge(counters.map(|((name, &capacity), &consumes)| vingt_core::Counter {
            name,
            capacity,
            consumes,
        }));
        Device {
            name: format!("{kind}-{index}"),
            kind: kind.into(),
            consumes: device.consumes.clone(),
            units,
            ..Device::default()
        }
    };
    let devices = card.devices.iter().enumerate().map(device).collect();
    Gpu { used: vec![0; card.capacity.len()], capacity: card.capacity.clone(), devices, ..Gpu::default() }
}

/// A cluster of `gpus` H100s on nodes of eight, of which about `full` of 100 slices are in use by what cannot be
/// asked to leave, and the shapes that jobs have: [`KINDS`] by three amounts of CPU, then whole GPUs by 2, 4 and 8.
pub fn cluster(gpus: usize, full: f64, seed: u64) -> Snapshot {
    let mut random = Random::new(seed);
    let mut snapshot = Snapshot::default();
    let card = h100();
    for node in 0..gpus.div_ceil(8) {
        let labels = [("zone", node % 3), ("rack", node / 16)].map(|(k, v)| (k.to_owned(), v.to_string()));
        snapshot.nodes.push(Node {
            name: format!("node-{node:05}"),
            labels: labels.into(),
            schedulable: true,
            allocatable: Resources {
                cpu_milli: 192_000,
                memory_bytes: 2048 * GIB,
                pods: 250,
                other: BTreeMap::new(),
            },
            ..Node::default()
        });
        for _ in 0..8.min(gpus - node * 8) {
            snapshot.gpus.push(Gpu {
                node: NodeIndex(u32::try_from(node).unwrap()),
                name: format!("gpu-{}", snapshot.gpus.len() % 8),
                ..card.clone()
            });
        }
    }
    for kind in KINDS {
        let mask =
            card.devices.iter().zip(0..).filter(|(d, _)| d.kind == kind).fold(0, |m, (_, b)| m | 1_u64 << b);
        snapshot.device_sets.push(DeviceSet(vec![mask; snapshot.gpus.len()]));
    }
    for (eligible, kind) in KINDS.iter().enumerate() {
        // A GPU has 24 of its node's CPUs: a half, nearly all and somewhat more of a partition's share.
        let units = card.devices.iter().find(|device| device.kind == *kind).map_or(56, |device| device.units);
        for part in [50, 90, 110] {
            snapshot.shapes.push(shape(kind, eligible, 1, units * 24_000 / 56 * part / 100));
        }
    }
    for count in [2, 4, 8] {
        snapshot.shapes.push(shape("7g.80gb", 5, count, 20_000 * u64::from(count)));
    }
    fill(&mut snapshot, full, &mut random);
    snapshot
}

fn shape(label: &str, eligible: usize, count: u32, cpu_milli: u64) -> PodShape {
    let memory_bytes = cpu_milli / 125 * GIB;
    let resources = Resources { cpu_milli, memory_bytes, pods: 1, other: BTreeMap::new() };
    let request = DeviceRequest { count, label: label.into(), eligible, smallest: false };
    PodShape { resources, requests: vec![request], ..PodShape::default() }
}

/// Puts jobs on GPUs at random until so much is in use.
fn fill(snapshot: &mut Snapshot, full: f64, random: &mut Random) {
    let wanted = (full * snapshot.gpus.len() as f64 * 56.0) as u64;
    let mut units = 0;
    let mut tries = 0;
    while units < wanted && tries < snapshot.gpus.len() * 100 {
        tries += 1;
        let index = (random.unit() * snapshot.gpus.len() as f64) as usize;
        let gpu = &mut snapshot.gpus[index];
        let kind = kind_of(random);
        let ways: Vec<usize> =
            (0..gpu.devices.len()).filter(|&d| gpu.devices[d].kind == KINDS[kind]).collect();
        let at = ways[(random.unit() * ways.len() as f64) as usize];
        let device = &gpu.devices[at];
        let fits =
            gpu.used.iter().zip(&device.consumes).zip(&gpu.capacity).all(|((u, c), all)| u + c <= *all);
        if !fits {
            continue;
        }
        for (used, more) in gpu.used.iter_mut().zip(&device.consumes) {
            *used += more;
        }
        gpu.held |= 1 << at;
        units += device.units;
        let shape = 3 * kind + 1;
        let (node, units) = (gpu.node, device.units);
        let needs = &snapshot.shapes[shape].resources;
        let requested = &mut snapshot.nodes[node.0 as usize].requested;
        requested.cpu_milli += needs.cpu_milli;
        requested.memory_bytes += needs.memory_bytes;
        requested.pods += 1;
        let device = DeviceIndex { gpu: GpuIndex(u32::try_from(index).unwrap()), device: at as u8 };
        snapshot.running.push(Running {
            key: format!("Job/a/run-{}", snapshot.running.len()),
            tenant: "tenant-0000".into(),
            shape,
            pods: vec![PodPlacement { node, devices: vec![vec![device]] }],
            units,
            ..Running::default()
        });
    }
}

fn kind_of(random: &mut Random) -> usize {
    let mut at = (random.unit() * 100.0) as u32;
    MIX.iter()
        .position(|share| {
            let here = at < *share;
            at = at.saturating_sub(*share);
            here
        })
        .unwrap_or(0)
}

/// Lets `jobs` jobs of `tenants` tenants wait.
pub fn wait(snapshot: &mut Snapshot, jobs: usize, tenants: usize, seed: u64) {
    let mut random = Random::new(seed);
    for tenant in 0..tenants {
        let guaranteed = if tenant % 2 == 0 { 5 * 56 } else { 0 };
        snapshot.tenants.insert(format!("tenant-{tenant:04}"), Tenant { guaranteed, ..Tenant::default() });
    }
    for running in &snapshot.running {
        if let Some(tenant) = snapshot.tenants.get_mut(&running.tenant) {
            tenant.used += running.units;
        }
    }
    let many = snapshot.shapes.len() - 3;
    for job in 0..jobs {
        let (shape, pods) = match (random.unit() * 100.0) as u32 {
            0..4 => (many, 1),
            4..6 => (many + 1, 1 + (random.unit() * 2.0) as u32),
            6..8 => (many + 2, 1 + (random.unit() * 4.0) as u32),
            _ => (3 * kind_of(&mut random) + (random.unit() * 3.0) as usize, 1),
        };
        let tenant = (random.unit() * tenants as f64) as usize;
        snapshot.waiting.push(Workload {
            key: format!("TrainingJob/ns-{tenant:04}/job-{job:06}"),
            tenant: format!("tenant-{tenant:04}"),
            priority: (random.unit() * 3.0) as i32,
            queued_ms: (random.unit() * 3_600_000.0) as i64,
            avoid: BTreeSet::new(),
            pods,
            shape,
            ..Workload::default()
        });
    }
}
