//! A cluster that lives by the planner's decisions: jobs come, run, save, leave
//! when asked and end; nodes fail and return. It carries plans out and shows
//! itself as a snapshot. Whether a plan is right is judged in [`super::judge`].

use std::collections::{BTreeMap, BTreeSet};

use vingt_core::model::{DeviceIndex, EvictionReason, Gpu, Node, NodeIndex, Plan, PodPlacement, Resources};

use super::scenario::{JobSpec, SHARE, Scenario, Step};

/// What is left to the world to decide: seconds until a withdrawn job is tried again, and until the other
/// of a replaced pod is ready.
const BACKOFF_S: i64 = 4;
const READY_S: i64 = 2;
/// Times are since 1970: not small.
const BEGIN_MS: i64 = 1_000_000;

#[derive(Clone, Debug)]
pub struct World {
    pub scenario: Scenario,
    pub now_ms: i64,
    pub nodes: Vec<Node>,
    /// As published; what is held of them is told by `jobs` and `foreign`.
    pub gpus: Vec<Gpu>,
    pub foreign: BTreeSet<DeviceIndex>,
    pub tenants: Vec<Holder>,
    pub jobs: Vec<Job>,
    /// How often something happened that nobody decided: what a plan may change its mind for.
    pub facts: u32,
    /// How often something happened that may break a promise to a waiting job.
    pub upsets: u32,
}

/// A tenant as it is now.
#[derive(Clone, Debug)]
pub struct Holder {
    pub guaranteed: u8,
    pub limit: Option<u8>,
    pub recent: u64,
    pub last_admitted_ms: i64,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub spec: JobSpec,
    /// Since when it is queued: anew when it is asked to leave for somebody with a right to its room.
    pub queued_ms: i64,
    /// When it began to wait, and how long it had waited in all when it was last admitted.
    pub since_ms: i64,
    pub waited_ms: i64,
    pub not_before_ms: i64,
    pub avoid: BTreeSet<String>,
    pub reserved: Vec<PodPlacement>,
    pub reserved_rank: u32,
    /// Work left, in milliseconds.
    pub left_ms: i64,
    /// How often it was admitted.
    pub starts: u32,
    pub state: State,
}

#[derive(Clone, Debug)]
pub enum State {
    Waiting,
    Running(Run),
    Gone,
}

#[derive(Clone, Debug)]
pub struct Run {
    pub pods: Vec<PodPlacement>,
    pub admitted_ms: i64,
    /// When it is asked to leave: when it has indeed left, and when it said it would have at the latest.
    pub leaves_ms: Option<(i64, i64)>,
    /// Pods whose others start elsewhere: which, where, and when they are ready.
    pub replacing: Vec<(usize, PodPlacement, i64)>,
}

impl Job {
    fn wait(&mut self, now_ms: i64) {
        self.state = State::Waiting;
        self.since_ms = now_ms;
    }
}

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        let mut world = Self {
            scenario: scenario.clone(),
            now_ms: BEGIN_MS,
            nodes: Vec::new(),
            gpus: Vec::new(),
            foreign: BTreeSet::new(),
            tenants: Vec::new(),
            jobs: Vec::new(),
            facts: 0,
            upsets: 0,
        };
        for (at, spec) in (0..).zip(&scenario.nodes) {
            let labels = BTreeMap::from([("rack".to_owned(), format!("r{}", spec.rack))]);
            let (cpu_milli, memory_bytes) = (u64::from(spec.cpus) * 1000, u64::from(spec.gib) << 30);
            let taint = vingt_core::model::Taint {
                key: "kept".into(),
                value: String::new(),
                effect: "NoSchedule".into(),
            };
            world.nodes.push(Node {
                name: format!("n{at}"),
                labels,
                taints: if spec.tainted { vec![taint] } else { Vec::new() },
                schedulable: true,
                allocatable: Resources { cpu_milli, memory_bytes, pods: 20, ..Resources::default() },
                requested: Resources::default(),
            });
            for (minor, card) in spec.cards.iter().enumerate() {
                world.gpus.push(Gpu { node: NodeIndex(at), name: format!("gpu-{minor}"), ..card.gpu() });
            }
        }
        let holder = |spec: &super::scenario::TenantSpec| Holder {
            guaranteed: spec.guaranteed,
            limit: spec.limit,
            recent: 0,
            last_admitted_ms: 0,
        };
        world.tenants = scenario.tenants.iter().map(holder).collect();
        world
    }

    /// Does a step, all but the passing of time.
    pub fn happen(&mut self, step: &Step) {
        let upset = !matches!(step, Step::Pass(_) | Step::Submit(_) | Step::End(_) | Step::Cancel(_));
        let before = self.upsets;
        self.upsets += u32::from(upset);
        self.facts += u32::from(!matches!(step, Step::Pass(_)));
        match *step {
            Step::Pass(_) => {}
            Step::Submit(ref spec) => self.submit(spec),
            Step::End(nth) => {
                if let Some(job) = nth_of(&self.running(), nth) {
                    self.jobs[job].state = State::Gone;
                }
            }
            Step::Cancel(nth) => {
                if let Some(job) = nth_of(&self.waiting(), nth) {
                    self.jobs[job].state = State::Gone;
                }
            }
            Step::Withdraw(nth) => match nth_of(&self.running(), nth) {
                Some(job) => self.withdraw(job),
                None => self.upsets = before,
            },
            Step::Fail(nth) => self.fail(nth),
            Step::Cordon(nth) => self.node(nth).schedulable = false,
            Step::Return(nth) => {
                let node = usize::from(nth) % self.nodes.len();
                self.nodes[node].schedulable = true;
                self.gpus_of(node).for_each(|gpu| gpu.blocked = false);
            }
            Step::Block(nth) => {
                let gpu = usize::from(nth) % self.gpus.len();
                self.gpus[gpu].blocked ^= true;
            }
            Step::Taint(gpu, device) => {
                let gpu = usize::from(gpu) % self.gpus.len();
                let devices = &mut self.gpus[gpu].devices;
                let device = usize::from(device) % devices.len();
                devices[device].tainted ^= true;
            }
            Step::Foreign(gpu, device) => self.take_or_give_back(gpu, device),
            Step::Limit(tenant, limit) => self.holder(tenant).limit = limit,
            Step::Guarantee(tenant, guaranteed) => self.holder(tenant).guaranteed = guaranteed,
            Step::Restart => {
                self.jobs.iter_mut().for_each(|job| job.reserved.clear());
                self.tenants.iter_mut().for_each(|tenant| tenant.recent = 0);
            }
        }
    }

    fn submit(&mut self, spec: &JobSpec) {
        self.jobs.push(Job {
            spec: spec.clone(),
            queued_ms: self.now_ms,
            since_ms: self.now_ms,
            waited_ms: 0,
            not_before_ms: 0,
            avoid: BTreeSet::new(),
            reserved: Vec::new(),
            reserved_rank: 0,
            left_ms: i64::from(spec.runs_s) * 1000,
            starts: 0,
            state: State::Waiting,
        });
    }

    fn withdraw(&mut self, job: usize) {
        if let State::Running(run) = &self.jobs[job].state {
            let names = run.pods.iter().map(|pod| self.nodes[pod.node.0 as usize].name.clone());
            self.jobs[job].avoid = names.collect();
        }
        self.jobs[job].wait(self.now_ms);
        self.jobs[job].not_before_ms = self.now_ms + BACKOFF_S * 1000;
    }

    fn fail(&mut self, nth: u8) {
        let node = usize::from(nth) % self.nodes.len();
        self.nodes[node].schedulable = false;
        self.gpus_of(node).for_each(|gpu| gpu.blocked = true);
        for job in self.running() {
            let State::Running(run) = &self.jobs[job].state else { continue };
            let others = run.replacing.iter().map(|(_, to, _)| to);
            if run.pods.iter().chain(others).any(|pod| pod.node.0 as usize == node) {
                self.jobs[job].wait(self.now_ms);
            }
        }
    }

    fn take_or_give_back(&mut self, gpu: u8, device: u8) {
        let gpu = usize::from(gpu) % self.gpus.len();
        let device = usize::from(device) % self.gpus[gpu].devices.len();
        let index = DeviceIndex {
            gpu: vingt_core::model::GpuIndex(u32::try_from(gpu).unwrap()),
            device: u8::try_from(device).unwrap(),
        };
        let used = &self.snapshot().0.gpus[gpu].used;
        let of = &self.gpus[gpu];
        let mut sums = used.iter().zip(&of.devices[device].consumes).zip(&of.capacity);
        if !self.foreign.remove(&index) && sums.all(|((used, more), all)| used + more <= *all) {
            self.foreign.insert(index);
        }
    }

    /// Everything is well again, nobody else holds anything and no node is avoided.
    pub fn heal(&mut self) {
        self.facts += 1;
        self.upsets += 1;
        self.foreign.clear();
        self.jobs.iter_mut().for_each(|job| job.avoid.clear());
        self.nodes.iter_mut().for_each(|node| node.schedulable = true);
        for gpu in &mut self.gpus {
            gpu.blocked = false;
            gpu.devices.iter_mut().for_each(|device| device.tainted = false);
        }
    }

    /// When the next thing happens by itself, and not after `until_ms`.
    pub fn next_event_ms(&self, until_ms: i64) -> Option<i64> {
        let of = |job: &Job| match &job.state {
            State::Running(run) => {
                let ready = run.replacing.iter().map(|(_, _, ready_ms)| *ready_ms);
                let leaves = run.leaves_ms.map(|(leaves_ms, _)| leaves_ms);
                ready.chain(leaves).chain([run.admitted_ms + job.left_ms]).min()
            }
            State::Waiting => Some(job.not_before_ms).filter(|time| *time > self.now_ms),
            State::Gone => None,
        };
        self.jobs.iter().filter_map(of).min().filter(|time| *time <= until_ms)
    }

    /// Lets time pass until then, when something happens or at the end of a step.
    pub fn pass_to(&mut self, to_ms: i64) {
        let passed = to_ms - self.now_ms;
        let held = self.held_by_tenants();
        let half_ms = i64::from(self.scenario.settings.half_life_s) * 1000;
        for (tenant, held) in self.tenants.iter_mut().zip(held) {
            let kept =
                i128::from(tenant.recent) * i128::from(half_ms) / i128::from((half_ms + passed).max(1));
            tenant.recent = u64::try_from(kept).unwrap() + held * u64::try_from(passed).unwrap();
        }
        if self.jobs.iter().any(|job| (self.now_ms + 1..=to_ms).contains(&job.not_before_ms)) {
            self.facts += 1;
        }
        self.now_ms = to_ms;
        for job in self.running() {
            self.look_at(job);
        }
    }

    /// Whether something is due at this very moment.
    pub fn is_due(&self) -> bool {
        self.next_event_ms(self.now_ms).is_some()
    }

    fn look_at(&mut self, job: usize) {
        let now_ms = self.now_ms;
        let Job { state: State::Running(run), left_ms, spec, .. } = &mut self.jobs[job] else { return };
        let saves_ms = i64::from(spec.saves_s) * 1000;
        if run.admitted_ms + *left_ms <= now_ms {
            self.jobs[job].state = State::Gone;
            self.facts += 1;
        } else if run.leaves_ms.is_some_and(|(leaves_ms, _)| leaves_ms <= now_ms) {
            if saves_ms > 0 {
                *left_ms -= (now_ms - run.admitted_ms) / saves_ms * saves_ms;
            }
            self.jobs[job].wait(now_ms);
        } else {
            for (pod, to, ready_ms) in std::mem::take(&mut run.replacing) {
                if ready_ms <= now_ms {
                    run.pods[pod] = to;
                } else {
                    run.replacing.push((pod, to, ready_ms));
                }
            }
        }
    }

    /// Does what a plan says; `waiting` and `running` are the jobs that its indices stand for.
    pub fn carry_out(&mut self, plan: &Plan, waiting: &[usize], running: &[usize]) {
        for job in waiting {
            self.jobs[*job].reserved.clear();
        }
        for (rank, reservation) in (0..).zip(&plan.reservations) {
            let job = &mut self.jobs[waiting[reservation.workload]];
            job.reserved.clone_from(&reservation.pods);
            job.reserved_rank = rank;
        }
        for admission in &plan.admissions {
            let job = waiting[admission.workload];
            let pods = admission.pods.clone();
            let run = Run { pods, admitted_ms: self.now_ms, leaves_ms: None, replacing: Vec::new() };
            let tenant = self.tenant_of(job);
            // Who goes before one that has waited long renews nobody's wait, or that one would never be old.
            if !plan.out_of_turn.contains(&admission.workload) {
                self.tenants[tenant].last_admitted_ms = self.now_ms;
            }
            let job = &mut self.jobs[job];
            job.state = State::Running(run);
            job.starts += 1;
            job.waited_ms += self.now_ms - job.since_ms;
            job.reserved.clear();
            job.avoid.clear();
        }
        for eviction in &plan.evictions {
            let job = &mut self.jobs[running[eviction.running]];
            let State::Running(run) = &mut job.state else { continue };
            let grace_s = i64::from(job.spec.grace_s);
            let takes_s = (grace_s - i64::from(job.spec.early_s)).max(0);
            run.leaves_ms = Some((self.now_ms + takes_s * 1000, self.now_ms + grace_s * 1000));
            if eviction.reason != EvictionReason::Moved {
                job.queued_ms = self.now_ms;
            }
        }
        for replacement in &plan.replacements {
            let State::Running(run) = &mut self.jobs[running[replacement.running]].state else { continue };
            run.replacing.push((replacement.pod, replacement.to.clone(), self.now_ms + READY_S * 1000));
        }
    }

    fn holder(&mut self, nth: u8) -> &mut Holder {
        let tenant = usize::from(nth) % self.tenants.len();
        &mut self.tenants[tenant]
    }

    fn node(&mut self, nth: u8) -> &mut Node {
        let node = usize::from(nth) % self.nodes.len();
        &mut self.nodes[node]
    }

    fn gpus_of(&mut self, node: usize) -> impl Iterator<Item = &mut Gpu> {
        self.gpus.iter_mut().filter(move |gpu| gpu.node.0 as usize == node)
    }

    pub fn waiting(&self) -> Vec<usize> {
        self.of(|job| matches!(job.state, State::Waiting))
    }

    fn of(&self, is: impl Fn(&Job) -> bool) -> Vec<usize> {
        (0..self.jobs.len()).filter(|job| is(&self.jobs[*job])).collect()
    }

    pub fn running(&self) -> Vec<usize> {
        self.of(|job| matches!(job.state, State::Running(_)))
    }

    pub fn tenant_of(&self, job: usize) -> usize {
        usize::from(self.jobs[job].spec.tenant) % self.tenants.len()
    }

    /// Everything that a job holds, with the others of its replaced pods.
    pub fn places(run: &Run) -> impl Iterator<Item = &PodPlacement> {
        run.pods.iter().chain(run.replacing.iter().map(|(_, to, _)| to))
    }

    pub fn units<'p>(&self, pods: impl IntoIterator<Item = &'p PodPlacement>) -> u64 {
        let devices = pods.into_iter().flat_map(|pod| pod.devices.iter().flatten());
        devices.map(|at| self.gpus[at.gpu.0 as usize].devices[usize::from(at.device)].units).sum()
    }

    pub fn held_by_tenants(&self) -> Vec<u64> {
        let mut held = vec![0; self.tenants.len()];
        for job in self.running() {
            if let State::Running(run) = &self.jobs[job].state {
                held[self.tenant_of(job)] += self.units(Self::places(run));
            }
        }
        held
    }

    pub fn limit(&self, tenant: usize) -> Option<u64> {
        self.tenants[tenant].limit.map(|limit| u64::from(limit) * SHARE)
    }
}

fn nth_of(jobs: &[usize], nth: u8) -> Option<usize> {
    (!jobs.is_empty()).then(|| jobs[usize::from(nth) % jobs.len()])
}
