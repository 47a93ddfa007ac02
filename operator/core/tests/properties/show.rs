//! The world as the planner sees it.

use std::collections::BTreeMap;

use vingt_core::model::{
    Class, Device, DeviceIndex, DeviceRequest, DeviceSet, Gpu, Movable, NodeTerm, Operator, PodPlacement,
    PodShape, Requirement, Resources, Right, Running, Settings, Snapshot, Tenant, Toleration, Topology,
    Workload,
};

use super::scenario::{ASKED, JobSpec, SHARE};
use super::world::{Job, Run, State, World};

/// How much later than it takes a replaced pod is said to have left.
const SLACK_MS: i64 = 3000;

pub fn key(job: usize) -> String {
    format!("Job/a/j{job}")
}

/// Whether a device is what was asked for.
pub fn will_do(device: &Device, asked: &str) -> bool {
    asked.strip_prefix(">=").map_or(device.kind == asked, |gib| {
        device.memory_bytes >= gib.parse::<u64>().unwrap() << 30 && device.kind != "gpu"
    })
}

impl World {
    /// The snapshot, and the jobs that its `waiting` and `running` are, in order.
    pub fn snapshot(&self) -> (Snapshot, Vec<usize>, Vec<usize>) {
        let mut snapshot = Snapshot {
            nodes: self.nodes.clone(),
            gpus: self.gpus.clone(),
            tenants: self.shown_tenants(),
            moves_left: self.scenario.settings.moves.into(),
            settings: self.settings(),
            ..Snapshot::default()
        };
        let set = |asked: &&str| {
            let mask = |gpu: &Gpu| {
                let bits = gpu.devices.iter().enumerate().filter(|(_, device)| will_do(device, asked));
                bits.fold(0, |mask, (bit, _)| mask | 1_u64 << bit)
            };
            DeviceSet(self.gpus.iter().map(mask).collect())
        };
        snapshot.device_sets = ASKED.iter().map(set).collect();
        let mut shapes = BTreeMap::new();
        let mut shape_of = |snapshot: &mut Snapshot, spec: &JobSpec| {
            let shape = self.shape(spec);
            *shapes.entry(shape.clone()).or_insert_with(|| {
                snapshot.shapes.push(shape);
                snapshot.shapes.len() - 1
            })
        };
        for at in &self.foreign {
            hold(&mut snapshot.gpus, *at, false);
        }
        let (mut waiting, mut running) = (Vec::new(), Vec::new());
        for (at, job) in self.jobs.iter().enumerate() {
            match &job.state {
                State::Gone => {}
                State::Waiting => {
                    let shape = shape_of(&mut snapshot, &job.spec);
                    snapshot.waiting.push(self.waits(at, job, shape));
                    waiting.push(at);
                }
                State::Running(run) => {
                    let shape = shape_of(&mut snapshot, &job.spec);
                    for pod in Self::places(run) {
                        pod.devices.iter().flatten().for_each(|at| hold(&mut snapshot.gpus, *at, true));
                        let requested = &mut snapshot.nodes[pod.node.0 as usize].requested;
                        requested.cpu_milli += u64::from(job.spec.cpus) * 1000;
                        requested.memory_bytes += u64::from(job.spec.gib) << 30;
                        requested.pods += 1;
                    }
                    snapshot.running.push(self.runs(at, job, run, shape));
                    running.push(at);
                }
            }
        }
        (snapshot, waiting, running)
    }

    fn waits(&self, at: usize, job: &Job, shape: usize) -> Workload {
        let JobSpec { pods, priority, spare_s, near, .. } = job.spec;
        Workload {
            key: key(at),
            tenant: format!("t{}", self.tenant_of(at)),
            priority: priority.into(),
            queued_ms: job.queued_ms,
            not_before_ms: job.not_before_ms,
            avoid: job.avoid.clone(),
            pods: pods.into(),
            shape,
            runs_ms: spare_s.map(|spare_s| job.left_ms + i64::from(spare_s) * 1000),
            lasting: false,
            topology: near.map(on_one_rack),
            reserved: job.reserved.clone(),
            reserved_rank: job.reserved_rank,
            ..Workload::default()
        }
    }

    fn runs(&self, at: usize, job: &Job, run: &Run, shape: usize) -> Running {
        let JobSpec { priority, spare_s, grace_s, saves_s, evictable, movable, near, .. } = job.spec;
        let every_ms = i64::from(saves_s) * 1000;
        let swapped_ms = run.replacing.iter().map(|(_, _, ready_ms)| ready_ms + SLACK_MS).max();
        let saves = (self.now_ms - run.admitted_ms).checked_div(every_ms).unwrap_or(0);
        Running {
            key: key(at),
            tenant: format!("t{}", self.tenant_of(at)),
            priority: priority.into(),
            shape,
            pods: run.pods.clone(),
            units: self.units(&run.pods),
            waited_ms: job.waited_ms,
            admitted_ms: run.admitted_ms,
            ends_ms: spare_s.map(|spare_s| run.admitted_ms + job.left_ms + i64::from(spare_s) * 1000),
            saved_ms: (saves > 0).then_some(run.admitted_ms + saves * every_ms),
            serves: movable == Movable::Replace,
            grace_ms: i64::from(grace_s) * 1000,
            leaves_ms: run.leaves_ms.map(|(_, at_the_latest_ms)| at_the_latest_ms).or(swapped_ms),
            evictable,
            right: Right::Ordinary,
            movable,
            topology: near.map(on_one_rack),
        }
    }

    fn shown_tenants(&self) -> BTreeMap<String, Tenant> {
        let held = self.held_by_tenants();
        let one = |(at, tenant): (usize, &super::world::Holder)| {
            let spec = &self.scenario.tenants[at];
            let tenant = Tenant {
                parent: spec.under.map(|under| format!("t{under}")),
                guaranteed: u64::from(tenant.guaranteed) * SHARE,
                limit: self.limit(at),
                class: Class::Standard,
                weight: spec.weight.into(),
                used: held[at],
                lasting: 0,
                recent: tenant.recent,
                last_admitted_ms: tenant.last_admitted_ms,
            };
            (format!("t{at}"), tenant)
        };
        self.tenants.iter().enumerate().map(one).collect()
    }

    fn settings(&self) -> Settings {
        let spec = &self.scenario.settings;
        Settings {
            placement: spec.placement,
            half_life_ms: i64::from(spec.half_life_s) * 1000,
            aging_ms: i64::from(spec.aging_s) * 1000,
            reserve_after_ms: i64::from(spec.reserve_after_s) * 1000,
            reservations: spec.reservations.into(),
            reclaim: spec.reclaim,
            preemption: spec.preemption,
            defragmentation: spec.defragmentation,
            moves_per_thousand: 1000,
        }
    }

    fn shape(&self, spec: &JobSpec) -> PodShape {
        let request = |(count, ask): &(u8, u8)| DeviceRequest {
            count: (*count).into(),
            label: ASKED[usize::from(*ask)].into(),
            eligible: (*ask).into(),
            smallest: ASKED[usize::from(*ask)].starts_with('>'),
        };
        let only = spec.only_node.map(|nth| format!("n{}", usize::from(nth) % self.nodes.len()));
        let term = |name| NodeTerm {
            labels: Vec::new(),
            names: vec![Requirement {
                key: "metadata.name".into(),
                operator: Operator::In,
                values: vec![name],
            }],
        };
        let tolerates = Toleration { key: Some("kept".into()), value: None, effect: None };
        PodShape {
            resources: Resources {
                cpu_milli: u64::from(spec.cpus) * 1000,
                memory_bytes: u64::from(spec.gib) << 30,
                pods: 1,
                ..Resources::default()
            },
            node_terms: only.map(term).into_iter().collect(),
            tolerations: if spec.tolerates { vec![tolerates] } else { Vec::new() },
            pinned: None,
            requests: spec.asks.iter().map(request).collect(),
        }
    }
}

fn on_one_rack(required: bool) -> Topology {
    Topology { label: "rack".into(), required }
}

fn hold(gpus: &mut [Gpu], at: DeviceIndex, ours: bool) {
    let gpu = &mut gpus[at.gpu.0 as usize];
    let device = &gpu.devices[usize::from(at.device)];
    gpu.used.iter_mut().zip(&device.consumes).for_each(|(used, more)| *used += more);
    if ours {
        gpu.held |= 1 << at.device;
    }
}

/// All devices of a pod.
pub fn devices_of(pod: &PodPlacement) -> impl Iterator<Item = DeviceIndex> {
    pod.devices.iter().flatten().copied()
}
