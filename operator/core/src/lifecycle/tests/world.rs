//! A small cluster around one gang: Job controller, claim controller, kubelet,
//! user and an operator that crashes, in any order. Whatever happens, no pod
//! starts alone, no worker holds two sets of devices, and in the end it ends.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gated,
    Starting,
    Ready,
    Succeeded,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Missing,
    Undecided,
    Recorded,
    Allocated,
}

#[derive(Clone, Copy, Debug)]
struct Pod {
    worker: u32,
    phase: Phase,
    leaving: bool,
    claim: Claim,
}

impl Pod {
    fn ended(self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    fn live(self) -> bool {
        !self.leaving && self.phase != Phase::Failed
    }
}

#[derive(Clone, Debug, Default)]
struct World {
    facts: GangFacts,
    pods: Vec<Pod>,
    /// Workers whose claim was left behind by a pod that was deleted by force.
    orphans: Vec<u32>,
    /// Workers whose pod was left behind by its Job, and holds its claim.
    abandoned: Vec<u32>,
    now_ms: i64,
    released: bool,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    Operator { writes: usize },
    JobController,
    ClaimController,
    PodStarts(usize),
    PodReady(usize),
    PodSucceeds(usize),
    PodFails(usize),
    PodEvicted(usize),
    PodGone(usize),
    PodGoneByForce(usize),
    OrphanGone,
    JobGoneAlone,
    Time(i64),
    Suspend(bool),
    Delete,
    PlanLost(bool),
    OthersNeedIt(Leaving),
}

impl World {
    fn new(workers: u32, restart: Restart) -> Self {
        let facts =
            GangFacts { workers, restart, max_restarts: 2, ready_timeout_ms: 1000, ..GangFacts::default() };
        Self { facts, ..Self::default() }
    }

    /// The facts as the operator sees them.
    fn seen(&self) -> GangFacts {
        let count = |holds: &dyn Fn(&Pod) -> bool| {
            u32::try_from(self.pods.iter().filter(|pod| holds(pod)).count()).unwrap()
        };
        let held = |pod: &Pod| matches!(pod.claim, Claim::Recorded | Claim::Allocated) && !pod.ended();
        let gated = |pod: &Pod| pod.live() && pod.phase == Phase::Gated;
        let pods = PodCounts {
            live: count(&|pod| pod.live()),
            gated: count(&gated),
            claim_missing: count(&|pod| gated(pod) && pod.claim == Claim::Missing),
            claim_unwritten: count(&|pod| gated(pod) && pod.claim != Claim::Allocated),
            claim_conflicting: 0,
            present: count(&|pod| !pod.ended()),
        };
        let abandoned = u32::try_from(self.abandoned.len()).unwrap();
        let orphans = u32::try_from(self.orphans.len()).unwrap() + abandoned;
        let claims_held = count(&held) + orphans;
        let claims_stray = count(&|pod| held(pod) && !pod.live()) + orphans;
        GangFacts { pods, claims_held, claims_stray, abandoned, ..self.facts.clone() }
    }

    fn operator(&mut self, writes: usize) {
        let facts = self.seen();
        let step = next_step(&facts, self.now_ms);
        let workers = self.facts.workers as usize;
        let status = &mut self.facts;
        match step {
            GangStep::Queue => {
                assert!(
                    self.orphans.is_empty()
                        && self.abandoned.is_empty()
                        && self.pods.iter().all(|pod| pod.ended())
                        && !status.suspend,
                    "{facts:?}"
                );
                status.planned = true;
                status.plan_lost = false;
                assert_eq!(status.job, JobState::None, "a Job of an earlier try is resumed");
                status.first_admitted_ms.get_or_insert(self.now_ms);
                status.unready_since_ms = Some(self.now_ms);
            }
            GangStep::CreateJob => {
                assert_eq!(status.job, JobState::None);
                status.job = JobState::Suspended;
            }
            GangStep::Resume => status.job = JobState::Running,
            GangStep::Bind => self.bind(writes),
            GangStep::Ungate => {
                let live = self.pods.iter().filter(|pod| pod.live());
                assert!(live.clone().count() >= workers, "{facts:?}");
                assert!(
                    live.into_iter().all(|pod| pod.claim == Claim::Allocated || pod.ended()),
                    "{facts:?}"
                );
                let gated = self.pods.iter_mut().filter(|pod| pod.live() && pod.phase == Phase::Gated);
                gated.take(writes).for_each(|pod| pod.phase = Phase::Starting);
            }
            GangStep::Wait { .. } => {}
            GangStep::Withdraw { reason, .. } => {
                status.leaving = Some(reason);
                status.asked = None;
            }
            GangStep::Restart => {
                status.restarts += 1;
                status.leaving = Some(Leaving::Restart);
                assert!(status.restarts <= status.max_restarts);
            }
            GangStep::Suspend => status.job = JobState::Suspended,
            GangStep::DeleteJob => status.job = JobState::Deleting,
            GangStep::DeleteAbandoned => {
                let leaving = self.abandoned.len().min(writes);
                self.orphans.extend(self.abandoned.drain(..leaving));
            }
            GangStep::ClearPlan => {
                assert!(
                    self.orphans.is_empty()
                        && self.abandoned.is_empty()
                        && self.pods.iter().all(|pod| pod.ended())
                        && status.job != JobState::Failed,
                    "{facts:?}"
                );
                status.planned = false;
                status.leaving = None;
                status.unready_since_ms = None;
            }
            GangStep::Finish(outcome) => {
                assert_eq!(status.finished, None);
                status.finished = Some(outcome);
            }
            GangStep::Release => {
                assert!(
                    self.orphans.is_empty()
                        && self.abandoned.is_empty()
                        && self.pods.is_empty()
                        && status.job == JobState::None,
                    "{facts:?}"
                );
                self.released = true;
            }
        }
    }

    /// Two writes a claim, of which some are done before the operator crashes.
    fn bind(&mut self, mut writes: usize) {
        for to in [Claim::Recorded, Claim::Allocated] {
            for index in 0..self.pods.len() {
                let pod = self.pods[index];
                let due = pod.live()
                    && match to {
                        Claim::Recorded => pod.claim == Claim::Undecided,
                        _ => pod.claim == Claim::Recorded,
                    };
                if !due || writes == 0 {
                    continue;
                }
                writes -= 1;
                self.pods[index].claim = to;
                let same_devices = |other: &&Pod| {
                    other.worker == pod.worker
                        && !other.ended()
                        && matches!(other.claim, Claim::Recorded | Claim::Allocated)
                };
                let held = self.pods.iter().filter(same_devices).count();
                let left = self.orphans.iter().chain(&self.abandoned).any(|worker| *worker == pod.worker);
                assert!(held == 1 && !left, "devices are held twice");
            }
        }
    }

    fn job_controller(&mut self) {
        let job = &mut self.facts.job;
        if *job == JobState::Running && self.pods.iter().any(|pod| pod.phase == Phase::Failed && !pod.leaving)
        {
            *job = JobState::Failed;
        }
        match *job {
            JobState::Running => {
                let done = |pod: &&Pod| pod.phase == Phase::Succeeded;
                if self.pods.iter().filter(done).count() == self.facts.workers as usize {
                    *job = JobState::Succeeded;
                }
                for worker in 0..self.facts.workers {
                    // podReplacementPolicy: Failed
                    if !self.pods.iter().any(|pod| pod.worker == worker) {
                        let new = Pod { worker, phase: Phase::Gated, leaving: false, claim: Claim::Missing };
                        self.pods.push(new);
                    }
                }
            }
            JobState::Suspended | JobState::Failed => {
                self.pods.iter_mut().filter(|pod| !pod.ended()).for_each(|pod| pod.leaving = true);
            }
            JobState::Deleting => {
                self.pods.iter_mut().for_each(|pod| pod.leaving = true);
                if self.pods.is_empty() {
                    *job = JobState::None;
                }
            }
            JobState::None | JobState::Succeeded => {}
        }
    }

    fn happen(&mut self, event: Event) {
        let pods = self.pods.len();
        let pod = |index: usize| (pods > 0).then(|| index % pods);
        match event {
            Event::Operator { writes } => self.operator(writes),
            Event::JobController => self.job_controller(),
            Event::ClaimController => {
                let missing = self.pods.iter_mut().filter(|pod| pod.claim == Claim::Missing && !pod.leaving);
                missing.for_each(|pod| pod.claim = Claim::Undecided);
            }
            Event::PodStarts(index) | Event::PodReady(index) => {
                let Some(index) = pod(index) else { return };
                if self.pods[index].phase == Phase::Starting {
                    self.pods[index].phase = Phase::Ready;
                }
            }
            Event::PodSucceeds(index) | Event::PodFails(index) => {
                let Some(index) = pod(index) else { return };
                if self.pods[index].phase == Phase::Ready {
                    let fails = matches!(event, Event::PodFails(_));
                    self.pods[index].phase = if fails { Phase::Failed } else { Phase::Succeeded };
                }
            }
            Event::PodEvicted(index) => {
                if let Some(index) = pod(index) {
                    self.pods[index].leaving = true;
                }
            }
            Event::PodGone(index) => {
                if let Some(index) = pod(index).filter(|index| self.pods[*index].leaving) {
                    self.pods.remove(index);
                }
            }
            Event::PodGoneByForce(index) => {
                if let Some(index) = pod(index) {
                    let gone = self.pods.remove(index);
                    let held = matches!(gone.claim, Claim::Recorded | Claim::Allocated) && !gone.ended();
                    self.orphans.extend(held.then_some(gone.worker));
                }
            }
            Event::OrphanGone => {
                self.orphans.pop();
            }
            Event::JobGoneAlone => {
                self.facts.job = JobState::None;
                let held =
                    |pod: &&Pod| matches!(pod.claim, Claim::Recorded | Claim::Allocated) && !pod.ended();
                self.abandoned.extend(self.pods.iter().filter(held).map(|pod| pod.worker));
                self.pods.clear();
            }
            Event::Time(ms) => self.now_ms += ms,
            Event::Suspend(suspend) => self.facts.suspend = suspend,
            Event::Delete => self.facts.deleted = true,
            Event::PlanLost(lost) => self.facts.plan_lost = lost && self.facts.planned,
            Event::OthersNeedIt(reason) => self.facts.asked = Some(reason).filter(|_| self.facts.planned),
        }
        let ready = |pod: &&Pod| pod.live() && matches!(pod.phase, Phase::Ready | Phase::Succeeded);
        if self.pods.iter().filter(ready).count() == self.facts.workers as usize {
            self.facts.unready_since_ms = None;
        } else if self.facts.planned {
            self.facts.unready_since_ms.get_or_insert(self.now_ms);
        }
    }

    /// Lets everybody do their work, and nothing bad happen, until nothing is left to do.
    fn settle(&mut self) {
        self.happen(Event::Suspend(false));
        self.happen(Event::PlanLost(false));
        for _ in 0..200 {
            for event in [Event::Operator { writes: 99 }, Event::JobController, Event::ClaimController] {
                self.happen(event);
                if self.released {
                    return;
                }
            }
            for index in (0..self.pods.len()).rev() {
                self.happen(Event::PodGone(index));
            }
            self.happen(Event::OrphanGone);
            for index in 0..self.pods.len() {
                self.happen(Event::PodReady(index));
            }
            let gang_ready = self.facts.unready_since_ms.is_none();
            for index in (0..self.pods.len()).filter(|_| gang_ready) {
                self.happen(Event::PodSucceeds(index));
            }
            // A gang that lost a pod before the rest settled is withdrawn after its time.
            self.happen(Event::Time(20));
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0_usize..6).prop_map(|writes| Event::Operator { writes }),
        4 => Just(Event::JobController),
        4 => Just(Event::ClaimController),
        6 => any::<usize>().prop_map(Event::PodStarts),
        4 => any::<usize>().prop_map(Event::PodReady),
        2 => any::<usize>().prop_map(Event::PodSucceeds),
        1 => any::<usize>().prop_map(Event::PodFails),
        1 => any::<usize>().prop_map(Event::PodEvicted),
        3 => any::<usize>().prop_map(Event::PodGone),
        1 => any::<usize>().prop_map(Event::PodGoneByForce),
        1 => Just(Event::OrphanGone),
        1 => Just(Event::JobGoneAlone),
        2 => (0_i64..600).prop_map(Event::Time),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => prop::bool::weighted(0.05).prop_map(|delete| if delete { Event::Delete } else { Event::Time(1) }),
        1 => any::<bool>().prop_map(Event::PlanLost),
        1 => prop::sample::select(vec![Leaving::Reclaimed, Leaving::Moved]).prop_map(Event::OthersNeedIt),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_gang_is_whole_or_gone(
        workers in 1_u32..4,
        never: bool,
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut world = World::new(workers, if never { Restart::Never } else { Restart::OnFailure });
        for event in events {
            world.happen(event);
            if world.released {
                return Ok(());
            }
        }
        world.settle();
        let end = world.seen();
        prop_assert_eq!(world.released, end.deleted, "{:?}", end);
        prop_assert!(world.released || end.finished.is_some(), "it does not end: {:?}", world);
    }
}
