//! A small cluster in which plans are carried out, one cycle after the other.

use std::collections::BTreeMap;

use crate::model::{
    DeviceIndex, EvictionReason, Movable, Plan, PodPlacement, Right, Running, Snapshot, Tenant, Units,
    Workload,
};
use crate::queue::plan;
use crate::testing::job;

/// What does not change about a job.
#[derive(Clone, Debug)]
pub struct Job {
    pub workload: Workload,
    pub grace_ms: i64,
    pub evictable: bool,
    pub movable: Movable,
    /// Its progress is saved whenever it has run for so long.
    pub saves_ms: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub struct World {
    pub snapshot: Snapshot,
    pub jobs: BTreeMap<String, Job>,
    pub now_ms: i64,
}

impl World {
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, ..Self::default() }
    }

    pub fn tenant(&mut self, name: &str, guaranteed: Units) {
        self.snapshot.tenants.insert(name.into(), Tenant { guaranteed, ..Tenant::default() });
    }

    /// A job of one pod on one device, that may be evicted and takes 10 ms to leave.
    pub fn job(&mut self, key: &str, tenant: &str, priority: i32, kind: &str) -> &mut Job {
        let workload = Workload {
            tenant: tenant.into(),
            priority,
            queued_ms: self.now_ms,
            ..job(&mut self.snapshot, key, 1, kind)
        };
        let job = Job { workload, grace_ms: 10, evictable: true, movable: Movable::No, saves_ms: None };
        self.jobs.entry(key.into()).insert_entry(job).into_mut()
    }

    pub fn wait(&mut self, key: &str) {
        self.snapshot.waiting.push(self.jobs[key].workload.clone());
    }

    /// Lets a job run on these devices since `admitted_ms`, a pod on each.
    pub fn run(&mut self, key: &str, devices: &[(u32, &str)], admitted_ms: i64) {
        let pod = |&(gpu, name): &(u32, &str)| {
            let of = &self.snapshot.gpus[gpu as usize];
            let at = of.devices.iter().position(|device| device.name.ends_with(name)).unwrap();
            let device = DeviceIndex { gpu: crate::model::GpuIndex(gpu), device: u8::try_from(at).unwrap() };
            PodPlacement { node: of.node, devices: vec![vec![device]] }
        };
        let pods: Vec<_> = devices.iter().map(pod).collect();
        self.start(key, pods, Right::Ordinary, admitted_ms);
    }

    /// As what a job runs.
    pub fn right(&self, key: &str) -> Right {
        self.snapshot.running.iter().find(|running| running.key == key).unwrap().right.clone()
    }

    fn start(&mut self, key: &str, pods: Vec<PodPlacement>, right: Right, admitted_ms: i64) {
        let Job { workload, grace_ms, evictable, movable, .. } = self.jobs[key].clone();
        let units = self.hold(&workload, &pods, true);
        let ends_ms = workload.runs_ms.map(|runs_ms| admitted_ms + runs_ms);
        self.snapshot.running.push(Running {
            key: key.into(),
            tenant: workload.tenant,
            priority: workload.priority,
            shape: workload.shape,
            pods,
            units,
            admitted_ms,
            ends_ms,
            grace_ms,
            evictable,
            right,
            movable,
            topology: workload.topology,
            ..Running::default()
        });
    }

    /// Takes devices, or gives them back; their units.
    fn hold(&mut self, workload: &Workload, pods: &[PodPlacement], take: bool) -> Units {
        let mut units = 0;
        let resources = &self.snapshot.shapes[workload.shape].resources;
        for pod in pods {
            for at in pod.devices.iter().flatten() {
                let gpu = &mut self.snapshot.gpus[at.gpu.0 as usize];
                let device = &gpu.devices[usize::from(at.device)];
                assert_eq!(gpu.held >> at.device & 1 == 1, !take, "{}", device.name);
                gpu.held ^= 1 << at.device;
                for ((used, more), all) in gpu.used.iter_mut().zip(&device.consumes).zip(&gpu.capacity) {
                    *used = if take { *used + more } else { *used - more };
                    assert!(*used <= *all, "{} overlaps", device.name);
                }
                units += device.units;
            }
            let requested = &mut self.snapshot.nodes[pod.node.0 as usize].requested;
            let change = |have: &mut u64, more: u64| *have = if take { *have + more } else { *have - more };
            change(&mut requested.cpu_milli, resources.cpu_milli);
            change(&mut requested.memory_bytes, resources.memory_bytes);
            change(&mut requested.pods, 1);
        }
        let tenant = self.snapshot.tenants.get_mut(&workload.tenant).unwrap();
        tenant.used = if take { tenant.used + units } else { tenant.used - units };
        units
    }

    /// Ends what runs, and lets it wait again if it was asked to leave.
    pub fn end(&mut self, running: usize) {
        let Running { key, pods, leaves_ms, .. } = self.snapshot.running.remove(running);
        let workload = self.jobs[&key].workload.clone();
        self.hold(&workload, &pods, false);
        if leaves_ms.is_some() {
            self.snapshot.waiting.push(workload);
        }
    }

    /// Plans, and carries it out.
    pub fn cycle(&mut self) -> Plan {
        for running in &mut self.snapshot.running {
            let saves_ms = self.jobs[&running.key].saves_ms;
            let times = saves_ms.map_or(0, |saves_ms| (self.now_ms - running.admitted_ms) / saves_ms);
            running.saved_ms = (times > 0).then(|| running.admitted_ms + times * saves_ms.unwrap_or(0));
        }
        let plan = plan(&self.snapshot, self.now_ms);
        for waiting in &mut self.snapshot.waiting {
            waiting.reserved.clear();
            waiting.reserved_right = Right::Ordinary;
        }
        for reservation in &plan.reservations {
            let workload = &mut self.snapshot.waiting[reservation.workload];
            workload.reserved.clone_from(&reservation.pods);
            workload.reserved_right = reservation.right.clone();
        }
        for eviction in &plan.evictions {
            let running = &mut self.snapshot.running[eviction.running];
            running.leaves_ms = Some(self.now_ms + running.grace_ms);
            if eviction.reason == EvictionReason::Moved {
                self.snapshot.moves_left -= 1;
            }
        }
        for replacement in &plan.replacements {
            let running = self.snapshot.running[replacement.running].clone();
            let job = self.jobs[&running.key].clone();
            self.start(&running.key, vec![replacement.to.clone()], Right::Ordinary, self.now_ms);
            // What it replaces does not come back.
            let key = format!("{}'", running.key);
            self.snapshot.running[replacement.running].key.clone_from(&key);
            self.snapshot.running[replacement.running].leaves_ms = Some(self.now_ms + 1 + running.grace_ms);
            self.jobs.insert(key, job);
            self.snapshot.moves_left -= 1;
        }
        let mut started: Vec<usize> = plan.admissions.iter().map(|admission| admission.workload).collect();
        for admission in &plan.admissions {
            let key = self.snapshot.waiting[admission.workload].key.clone();
            self.start(&key, admission.pods.clone(), admission.right.clone(), self.now_ms);
        }
        started.sort_unstable();
        for workload in started.into_iter().rev() {
            self.snapshot.waiting.remove(workload);
        }
        plan
    }

    /// Lets time pass; who is to have left or ended then, has.
    pub fn pass_to(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        let ended = |r: &Running| r.ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms);
        while let Some(at) = self.snapshot.running.iter().position(ended) {
            self.snapshot.running[at].leaves_ms = None;
            self.end(at);
        }
        while let Some(at) = self
            .snapshot
            .running
            .iter()
            .position(|r| r.leaves_ms.is_some_and(|leaves_ms| leaves_ms <= now_ms))
        {
            if self.snapshot.running[at].key.ends_with('\'') {
                self.snapshot.running[at].leaves_ms = None;
            }
            self.end(at);
        }
    }

    pub fn running(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.snapshot.running.iter().map(|running| running.key.as_str()).collect();
        keys.sort_unstable();
        keys
    }
}

/// Who is asked to leave by a plan, and for whom.
pub fn asked<'a>(snapshot: &'a Snapshot, plan: &Plan) -> Vec<(&'a str, &'a str, EvictionReason)> {
    let key = |eviction: &crate::model::Eviction| {
        let (running, by) = (&snapshot.running[eviction.running], &snapshot.waiting[eviction.by]);
        (running.key.as_str(), by.key.as_str(), eviction.reason)
    };
    plan.evictions.iter().map(key).collect()
}
