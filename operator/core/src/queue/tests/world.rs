//! A cluster through time: jobs come, are planned by cycle after cycle, run and end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::model::{
    Admission, Device, DeviceIndex, Plan, PodPlacement, Reservation, Running, Snapshot, WaitReason, Workload,
};
use crate::queue::plan;

/// A job that is to come.
#[derive(Clone, Debug)]
pub struct Job {
    /// As it waits; it is queued when it comes.
    pub workload: Workload,
    /// When it comes.
    pub comes_ms: i64,
    /// How long it really runs.
    pub runs_ms: i64,
}

/// A cluster, and what happened in it.
#[derive(Clone, Debug)]
pub struct World {
    pub snapshot: Snapshot,
    pub now_ms: i64,
    /// By key, how long those that have come really run.
    runs_ms: BTreeMap<String, i64>,
    /// What runs and when it really ends.
    ends_ms: BTreeMap<String, i64>,
    /// By key, when it started.
    pub started_ms: BTreeMap<String, i64>,
    /// By key, the first time for which it was promised a place.
    pub promised_ms: BTreeMap<String, i64>,
    /// Those that had a place kept.
    pub reserved: BTreeSet<String>,
    /// The last reason of what waits.
    pub reasons: BTreeMap<String, WaitReason>,
    /// What happened, to be read when a test fails.
    pub log: String,
}

impl World {
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            now_ms: 0,
            runs_ms: BTreeMap::new(),
            ends_ms: BTreeMap::new(),
            started_ms: BTreeMap::new(),
            promised_ms: BTreeMap::new(),
            reserved: BTreeSet::new(),
            reasons: BTreeMap::new(),
            log: String::new(),
        }
    }

    /// Queues a job now.
    pub fn queue(&mut self, job: &Job) {
        self.runs_ms.insert(job.workload.key.clone(), job.runs_ms);
        self.snapshot.waiting.push(Workload { queued_ms: self.now_ms, ..job.workload.clone() });
    }

    /// Plays jobs until all that came have ended, or until nothing more can happen.
    pub fn play(&mut self, jobs: &[Job]) {
        self.play_until(i64::MAX, jobs);
    }

    /// The same, but for what happens later.
    pub fn play_until(&mut self, last_ms: i64, jobs: &[Job]) {
        let mut coming: Vec<&Job> = jobs.iter().collect();
        coming.sort_by_key(|job| job.comes_ms);
        let mut coming = coming.into_iter().peekable();
        loop {
            let comes = coming.peek().map(|job| job.comes_ms);
            let Some(next) = comes.into_iter().chain(self.ends_ms.values().copied()).min() else { break };
            if next > last_ms {
                break;
            }
            self.pass_to(next);
            while let Some(job) = coming.next_if(|job| job.comes_ms <= self.now_ms) {
                self.queue(job);
            }
            self.plan();
        }
    }

    /// Lets time go by; what is over ends.
    pub fn pass_to(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        let over = |(_, running): &(usize, &Running)| self.ends_ms[&running.key] <= now_ms;
        let over: Vec<usize> =
            self.snapshot.running.iter().enumerate().filter(over).map(|(at, _)| at).collect();
        for at in over.into_iter().rev() {
            let running = self.snapshot.running.remove(at);
            self.ends_ms.remove(&running.key);
            self.hold(&running, false);
        }
    }

    /// Plans, and starts what is planned, until nothing more starts.
    pub fn plan(&mut self) {
        loop {
            let plan = plan(&self.snapshot, self.now_ms);
            self.note(&plan);
            if plan.admissions.is_empty() {
                break;
            }
            let mut started: Vec<&Admission> = plan.admissions.iter().collect();
            started.sort_by_key(|admission| std::cmp::Reverse(admission.workload));
            for admission in started {
                let tenant = self.start(admission);
                if !plan.out_of_turn.contains(&admission.workload) {
                    self.snapshot.tenants.get_mut(&tenant).unwrap().last_admitted_ms = self.now_ms;
                }
            }
        }
    }

    fn note(&mut self, plan: &Plan) {
        self.log.push_str(&self.told(plan));
        for workload in &mut self.snapshot.waiting {
            workload.reserved.clear();
        }
        for (reservation, rank) in plan.reservations.iter().zip(0..) {
            let workload = &mut self.snapshot.waiting[reservation.workload];
            workload.reserved_rank = rank;
            workload.reserved.clone_from(&reservation.pods);
            self.reserved.insert(workload.key.clone());
            if let Some(free_ms) = reservation.free_ms {
                let promised = self.promised_ms.entry(workload.key.clone()).or_insert(free_ms);
                let key = &workload.key;
                assert!(free_ms <= *promised, "{key} was promised {promised}, then {free_ms}\n{}", self.log);
            }
        }
        for wait in &plan.waits {
            self.reasons.insert(self.snapshot.waiting[wait.workload].key.clone(), wait.reason.clone());
        }
    }

    /// A plan in a few lines.
    fn told(&self, plan: &Plan) -> String {
        let place = |pods: &[PodPlacement]| {
            let gpu = |device: DeviceIndex| {
                let gpu = &self.snapshot.gpus[device.gpu.0 as usize];
                format!(" n{} {}", gpu.node.0, gpu.devices[usize::from(device.device)].name)
            };
            pods.iter()
                .flat_map(|pod| pod.devices.iter().flatten())
                .map(|device| gpu(*device))
                .collect::<String>()
        };
        let mut told = format!("{}:\n", self.now_ms);
        for running in &self.snapshot.running {
            let (key, ends_ms) = (&running.key, self.ends_ms[&running.key]);
            let known = if running.ends_ms.is_some() { "" } else { "?" };
            let _ = writeln!(told, "  {key} runs until {ends_ms}{known} on{}", place(&running.pods));
        }
        for admission in &plan.admissions {
            let Workload { key, runs_ms, .. } = &self.snapshot.waiting[admission.workload];
            let _ = writeln!(told, "  {key} starts, {runs_ms:?}, on{}", place(&admission.pods));
        }
        for Reservation { workload, pods, free_ms, .. } in &plan.reservations {
            let key = &self.snapshot.waiting[*workload].key;
            let _ = writeln!(told, "  {key} has kept, {free_ms:?},{}", place(pods));
        }
        for wait in &plan.waits {
            let _ = writeln!(told, "  {}: {}", self.snapshot.waiting[wait.workload].key, wait.reason);
        }
        told
    }

    fn start(&mut self, admission: &Admission) -> String {
        let workload = self.snapshot.waiting.remove(admission.workload);
        let ends_ms = self.now_ms + self.runs_ms[&workload.key];
        let running = Running {
            key: workload.key.clone(),
            tenant: workload.tenant,
            priority: workload.priority,
            shape: workload.shape,
            pods: admission.pods.clone(),
            units: admission.units,
            admitted_ms: self.now_ms,
            ends_ms: workload.runs_ms.map(|runs_ms| self.now_ms + runs_ms),
            ..Running::default()
        };
        self.hold(&running, true);
        self.ends_ms.insert(workload.key.clone(), ends_ms);
        self.started_ms.insert(workload.key.clone(), self.now_ms);
        self.reasons.remove(&workload.key);
        let tenant = running.tenant.clone();
        self.snapshot.running.push(running);
        tenant
    }

    fn hold(&mut self, running: &Running, held: bool) {
        let change = |value: &mut u64, by: u64| *value = if held { *value + by } else { *value - by };
        change(&mut self.snapshot.tenants.get_mut(&running.tenant).unwrap().used, running.units);
        let cpu_milli = self.snapshot.shapes[running.shape].resources.cpu_milli;
        for PodPlacement { node, devices } in &running.pods {
            let node = &mut self.snapshot.nodes[node.0 as usize];
            change(&mut node.requested.cpu_milli, cpu_milli);
            change(&mut node.requested.pods, 1);
            assert!(node.requested.cpu_milli <= node.allocatable.cpu_milli);
            for DeviceIndex { gpu, device } in devices.iter().flatten().copied() {
                let gpu = &mut self.snapshot.gpus[gpu.0 as usize];
                gpu.held ^= 1 << device;
                let Device { consumes, .. } = &gpu.devices[usize::from(device)];
                for ((used, by), all) in gpu.used.iter_mut().zip(consumes).zip(&gpu.capacity) {
                    change(used, *by);
                    assert!(*used <= *all, "two are in one place");
                }
            }
        }
    }
}
