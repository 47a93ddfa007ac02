//! The replay itself: events in order of time, a plan after each, and the plan
//! carried out. What is held is kept in [`super::world`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::Usage;
use crate::model::{
    Eviction, EvictionReason, Movable, Plan, Replacement, Running, Snapshot, Units, Workload,
};

use super::check::{check, requeued};
use super::outcome::summarise;
use super::world::{capacity, hold, point, release, saved_ms, story, units_of};
use super::{Job, JobOutcome, Observer, Outcome, Point, ReplayError, Scenario, TenantOutcome};

/// Plans without a job that arrived or ended, after which the planner is taken to go round in circles.
const CIRCLES: u32 = 20_000;

/// Progress is told this often at most.
const STEPS: usize = 200;

/// What happens; at one time in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A run has done what it was to do.
    End(usize),
    /// A run that was asked to leave has left.
    Leave(usize),
    /// A job is queued.
    Arrival(usize),
}

/// Something that holds devices, beside its entry in [`Snapshot::running`].
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Names it in events; never used again.
    id: usize,
    job: usize,
    /// When `left_ms` counts from.
    base_ms: i64,
    /// Work left then.
    left_ms: i64,
    /// The pod that was replaced; its job runs on elsewhere.
    remnant: bool,
}

pub(super) struct Engine<'a> {
    scenario: &'a Scenario,
    snapshot: Snapshot,
    /// The scenario's jobs, then one for each that ran at the start.
    jobs: Vec<Job>,
    stories: Vec<JobOutcome>,
    /// Beside [`Snapshot::waiting`]: the job, and since when it waits.
    queue: Vec<(usize, i64)>,
    /// Beside [`Snapshot::running`].
    runs: Vec<Run>,
    /// For each run that was ever started where it is in `runs`.
    place_of: Vec<usize>,
    events: BinaryHeap<Reverse<(i64, Event)>>,
    now_ms: i64,
    moves_left: f64,
    /// Beside [`Snapshot::tenants`], in its order.
    recent: Vec<Usage>,
    tenants: Vec<TenantOutcome>,
    used_ms: u128,
    points: Vec<Point>,
    plans: u64,
    moves: u64,
    evictions: u64,
    idle_plans: u32,
}

const GONE: usize = usize::MAX;

impl<'a> Engine<'a> {
    pub fn new(scenario: &'a Scenario) -> Result<Self, ReplayError> {
        check(scenario)?;
        let snapshot = scenario.snapshot.clone();
        let jobs: Vec<Job> = scenario.jobs.iter().cloned().chain(requeued(scenario)).collect();
        let stories = jobs.iter().map(|job| story(&snapshot, &job.workload)).collect();
        let recent =
            snapshot.tenants.values().map(|tenant| Usage::at(scenario.start_ms, tenant.recent)).collect();
        let mut engine = Self {
            scenario,
            moves_left: f64::from(snapshot.moves_left),
            tenants: vec![TenantOutcome::default(); snapshot.tenants.len()],
            recent,
            jobs,
            stories,
            queue: Vec::new(),
            runs: Vec::new(),
            place_of: Vec::new(),
            events: BinaryHeap::new(),
            now_ms: scenario.start_ms,
            used_ms: 0,
            points: Vec::new(),
            plans: 0,
            moves: 0,
            evictions: 0,
            idle_plans: 0,
            snapshot,
        };
        for (place, facts) in scenario.running.iter().enumerate() {
            engine.enter(scenario.jobs.len() + place, facts.duration_ms, false);
            if let Some(leaves_ms) = engine.snapshot.running[place].leaves_ms {
                let id = engine.runs[place].id;
                engine.events.push(Reverse((leaves_ms.max(scenario.start_ms), Event::Leave(id))));
            }
        }
        for (job, known) in scenario.jobs.iter().enumerate() {
            engine
                .events
                .push(Reverse((known.workload.queued_ms.max(scenario.start_ms), Event::Arrival(job))));
        }
        Ok(engine)
    }

    pub fn run(
        mut self,
        mut planner: impl FnMut(&Snapshot, i64) -> Plan,
        observer: &mut impl Observer,
    ) -> Result<Outcome, ReplayError> {
        let until_ms = self.scenario.until_ms.unwrap_or(i64::MAX);
        let mut next_plan_ms = i64::MIN;
        let (mut done, mut told) = (0, 0);
        while let Some(&Reverse((at_ms, _))) = self.events.peek() {
            if at_ms > until_ms {
                self.advance(until_ms);
                break;
            }
            self.advance(at_ms);
            while let Some(&Reverse((_, event))) = self.events.peek().filter(|next| next.0.0 == at_ms) {
                self.events.pop();
                done += usize::from(self.happens(event, observer));
            }
            let plan_ms = at_ms.max(next_plan_ms);
            if self.events.peek().is_some_and(|next| next.0.0 <= plan_ms) {
                continue;
            }
            self.advance(plan_ms.min(until_ms));
            if !self.snapshot.waiting.is_empty() {
                self.plan(&mut planner, observer)?;
                next_plan_ms = self.now_ms.saturating_add(self.scenario.cycle_ms);
            }
            self.sample();
            let all = self.jobs.len().saturating_mul(2).max(1);
            let step = done.saturating_mul(STEPS) / all;
            if step > told {
                told = step;
                #[allow(clippy::cast_precision_loss)] // numbers of jobs
                observer.progress((done as f64 / all as f64).min(1.0));
            }
            if observer.enough() {
                break;
            }
        }
        observer.progress(1.0);
        Ok(self.outcome())
    }

    /// Time goes on: what is held is held for longer.
    fn advance(&mut self, to_ms: i64) {
        let Ok(passed) = u64::try_from(to_ms.saturating_sub(self.now_ms)) else { return };
        if passed == 0 {
            return;
        }
        self.now_ms = to_ms;
        let half_life_ms = self.snapshot.settings.half_life_ms;
        let tenants = self.snapshot.tenants.values_mut().zip(&mut self.recent).zip(&mut self.tenants);
        for ((tenant, recent), outcome) in tenants {
            recent.advance(to_ms, tenant.used, half_life_ms);
            tenant.recent = recent.recent();
            outcome.held = outcome.held.saturating_add(tenant.used.saturating_mul(passed));
            self.used_ms += u128::from(tenant.used) * u128::from(passed);
        }
    }

    /// Tells whether a job arrived or ended.
    fn happens(&mut self, event: Event, observer: &mut impl Observer) -> bool {
        let counts = match event {
            Event::Arrival(job) => {
                self.queue(job);
                true
            }
            Event::End(run) => {
                let place = self.place_of[run];
                if place == GONE {
                    return false;
                }
                let (run, running) = self.leave(place);
                observer.left(&running, self.now_ms, true);
                self.stories[run.job].ended_ms = Some(self.now_ms);
                true
            }
            Event::Leave(run) => {
                let place = self.place_of[run];
                if place == GONE {
                    return false;
                }
                self.was_asked_to_leave(place, observer);
                false
            }
        };
        if counts {
            self.idle_plans = 0;
        }
        counts
    }

    fn queue(&mut self, job: usize) {
        self.snapshot.waiting.push(self.jobs[job].workload.clone());
        self.queue.push((job, self.now_ms));
    }

    /// Books a run for what was just added to [`Snapshot::running`].
    fn enter(&mut self, job: usize, left_ms: i64, remnant: bool) {
        let id = self.place_of.len();
        self.place_of.push(self.runs.len());
        self.runs.push(Run { id, job, base_ms: self.now_ms, left_ms, remnant });
        if !remnant {
            self.events.push(Reverse((self.now_ms.saturating_add(left_ms), Event::End(id))));
        }
    }

    /// Frees what a run holds.
    fn leave(&mut self, place: usize) -> (Run, Running) {
        let run = self.runs.swap_remove(place);
        let running = self.snapshot.running.swap_remove(place);
        self.place_of[run.id] = GONE;
        if let Some(moved) = self.runs.get(place) {
            self.place_of[moved.id] = place;
        }
        release(&mut self.snapshot, &running.pods, running.shape);
        if let Some(tenant) = self.snapshot.tenants.get_mut(&running.tenant) {
            tenant.used = tenant.used.saturating_sub(running.units);
            if self.jobs[run.job].workload.lasting {
                tenant.lasting = tenant.lasting.saturating_sub(running.units);
            }
        }
        (run, running)
    }

    fn was_asked_to_leave(&mut self, place: usize, observer: &mut impl Observer) {
        let (run, mut running) = self.leave(place);
        observer.left(&running, self.now_ms, run.remnant);
        if run.remnant {
            return;
        }
        let facts = &self.jobs[run.job].facts;
        let saved_ms = saved_ms(&running, facts.checkpoint_ms, self.now_ms).max(running.saved_ms);
        running.saved_ms = saved_ms;
        let kept_ms = saved_ms.unwrap_or(running.admitted_ms);
        let story = &mut self.stories[run.job];
        story.lost = story.lost.saturating_add(running.lost(self.now_ms));
        let left_ms = run.left_ms.saturating_sub(kept_ms.saturating_sub(run.base_ms));
        self.jobs[run.job].facts.duration_ms = left_ms.max(1);
        self.queue(run.job);
    }

    fn plan(
        &mut self,
        planner: &mut impl FnMut(&Snapshot, i64) -> Plan,
        observer: &mut impl Observer,
    ) -> Result<(), ReplayError> {
        for (running, run) in self.snapshot.running.iter_mut().zip(&self.runs) {
            let every = self.jobs[run.job].facts.checkpoint_ms;
            running.saved_ms = running.saved_ms.max(saved_ms(running, every, self.now_ms));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a small number, not negative
        {
            self.snapshot.moves_left = self.moves_left.max(0.0) as u32;
        }
        let plan = planner(&self.snapshot, self.now_ms);
        self.plans += 1;
        self.idle_plans += 1;
        observer.planned(&self.snapshot, self.now_ms, &plan);
        if self.idle_plans > CIRCLES {
            return Err(ReplayError::Circles { now_ms: self.now_ms, plans: self.idle_plans });
        }
        let now_ms = self.now_ms;
        self.carry_out(&plan).map_err(|problem| ReplayError::Plan { now_ms, problem })
    }

    fn carry_out(&mut self, plan: &Plan) -> Result<(), String> {
        for eviction in &plan.evictions {
            self.evict(eviction)?;
        }
        // A pod's devices are given to nobody in the plan that asks it to leave, so the order doesn't matter.
        for replacement in &plan.replacements {
            self.replace(replacement)?;
        }
        for workload in &mut self.snapshot.waiting {
            workload.reserved.clear();
        }
        for (rank, reservation) in (0..).zip(&plan.reservations) {
            let workload = self.snapshot.waiting.get_mut(reservation.workload);
            let workload = workload.ok_or("a reservation for what doesn't wait")?;
            workload.reserved.clone_from(&reservation.pods);
            workload.reserved_rank = rank;
            workload.reserved_right = reservation.right.clone();
        }
        let mut started = BTreeSet::new();
        for admission in &plan.admissions {
            let workload = self.snapshot.waiting.get(admission.workload);
            let workload = workload.ok_or("an admission of what doesn't wait")?.clone();
            let about = |problem| format!("admission of {}: {problem}", workload.key);
            if !started.insert(admission.workload) {
                return Err(about("admitted twice".to_owned()));
            }
            if admission.pods.len() != workload.pods as usize {
                return Err(about(format!("{} of {} pods", admission.pods.len(), workload.pods)));
            }
            let units = hold(&mut self.snapshot, &admission.pods, workload.shape).map_err(about)?;
            if units != admission.units {
                return Err(about(format!("charged {} instead of {units} units", admission.units)));
            }
            if !plan.out_of_turn.contains(&admission.workload)
                && let Some(tenant) = self.snapshot.tenants.get_mut(&workload.tenant)
            {
                tenant.last_admitted_ms = self.now_ms;
            }
            self.start(admission.workload, workload, admission.pods.clone(), units, admission.right.clone());
        }
        // From the last, so that positions stay true.
        for place in started.into_iter().rev() {
            self.snapshot.waiting.swap_remove(place);
            self.queue.swap_remove(place);
        }
        Ok(())
    }

    fn start(
        &mut self,
        place: usize,
        workload: Workload,
        pods: Vec<crate::model::PodPlacement>,
        units: Units,
        right: crate::model::Right,
    ) {
        let (job, since_ms) = self.queue[place];
        // Should it be evicted, nothing is kept for it any more.
        self.jobs[job].workload.reserved.clear();
        let facts = &self.jobs[job].facts;
        if let Some(tenant) = self.snapshot.tenants.get_mut(&workload.tenant) {
            tenant.used = tenant.used.saturating_add(units);
            if workload.lasting {
                tenant.lasting = tenant.lasting.saturating_add(units);
            }
        }
        let story = &mut self.stories[job];
        story.units = units;
        story.started_ms.get_or_insert(self.now_ms);
        story.waited_ms = story.waited_ms.saturating_add(self.now_ms.saturating_sub(since_ms));
        self.snapshot.running.push(Running {
            key: workload.key,
            tenant: workload.tenant,
            priority: workload.priority,
            shape: workload.shape,
            pods,
            units,
            waited_ms: story.waited_ms,
            admitted_ms: self.now_ms,
            ends_ms: workload.runs_ms.map(|runs_ms| self.now_ms.saturating_add(runs_ms)),
            saved_ms: None,
            // Nothing else is replaced.
            serves: facts.movable == Movable::Replace,
            grace_ms: facts.grace_ms,
            leaves_ms: None,
            evictable: facts.evictable,
            right,
            movable: facts.movable,
            topology: workload.topology,
        });
        let left_ms = facts.duration_ms;
        self.enter(job, left_ms, false);
        let gained = f64::from(self.snapshot.settings.moves_per_thousand) / 1000.0;
        self.moves_left = (self.moves_left + gained).min(crate::policy::price::SAVED.max(gained));
    }

    fn evict(&mut self, eviction: &Eviction) -> Result<(), String> {
        let running = self.snapshot.running.get_mut(eviction.running);
        let running = running.ok_or("an eviction of what doesn't run")?;
        let about = |problem| format!("eviction of {}: {problem}", running.key);
        if running.leaves_ms.is_some() {
            return Err(about("it was asked to leave already"));
        }
        let moved = eviction.reason == EvictionReason::Moved;
        if moved && running.movable != Movable::Restart {
            return Err(about("it may not be moved so"));
        }
        if !moved && !running.evictable {
            return Err(about("it may not be evicted"));
        }
        let run = self.runs[eviction.running];
        let facts = &self.jobs[run.job].facts;
        let after_ms = facts.leaves_after_ms.unwrap_or(facts.grace_ms).clamp(0, facts.grace_ms.max(0));
        running.leaves_ms = Some(self.now_ms.saturating_add(facts.grace_ms.max(1)));
        self.events.push(Reverse((self.now_ms.saturating_add(after_ms.max(1)), Event::Leave(run.id))));
        let story = &mut self.stories[run.job];
        if moved {
            story.moves += 1;
            self.moves += 1;
            self.moves_left -= 1.0;
        } else {
            // What others had a right to is asked for anew, behind all that wait by then.
            self.jobs[run.job].workload.queued_ms = self.now_ms;
            story.evictions += 1;
            self.evictions += 1;
        }
        Ok(())
    }

    fn replace(&mut self, replacement: &Replacement) -> Result<(), String> {
        let running = self.snapshot.running.get(replacement.running);
        let running = running.ok_or("a replacement of what doesn't run")?;
        let about = |problem: String| format!("replacement of a pod of {}: {problem}", running.key);
        if running.leaves_ms.is_some() || running.movable != Movable::Replace {
            return Err(about("it may not be moved so".to_owned()));
        }
        let old = running.pods.get(replacement.pod).ok_or_else(|| about("no such pod".to_owned()))?.clone();
        let old_units = units_of(&self.snapshot, &old);
        let leaves_ms =
            self.now_ms.saturating_add(self.scenario.ready_ms.max(0)).saturating_add(running.grace_ms.max(1));
        let remnant = Running {
            pods: vec![old],
            units: old_units,
            leaves_ms: Some(leaves_ms),
            evictable: false,
            movable: Movable::No,
            ..running.clone()
        };
        let shape = running.shape;
        let to = std::slice::from_ref(&replacement.to);
        let new_units =
            hold(&mut self.snapshot, to, shape).map_err(|problem| format!("replacement: {problem}"))?;
        let running = &mut self.snapshot.running[replacement.running];
        running.pods[replacement.pod] = replacement.to.clone();
        running.units = running.units.saturating_sub(old_units).saturating_add(new_units);
        if let Some(tenant) = self.snapshot.tenants.get_mut(&running.tenant) {
            tenant.used = tenant.used.saturating_add(new_units);
            if self.jobs[self.runs[replacement.running].job].workload.lasting {
                tenant.lasting = tenant.lasting.saturating_add(new_units);
            }
        }
        let job = self.runs[replacement.running].job;
        self.snapshot.running.push(remnant);
        self.enter(job, 0, true);
        self.events.push(Reverse((leaves_ms, Event::Leave(self.place_of.len() - 1))));
        self.stories[job].moves += 1;
        self.moves += 1;
        self.moves_left -= 1.0;
        Ok(())
    }

    fn sample(&mut self) {
        let due = self.points.last().is_none_or(|last| {
            self.now_ms > last.at_ms && self.now_ms - last.at_ms >= self.scenario.sample_ms
        });
        if due {
            self.points.push(point(&self.snapshot, self.now_ms));
        }
    }

    #[allow(clippy::cast_precision_loss)] // unit-milliseconds, of which the leading digits count
    fn outcome(mut self) -> Outcome {
        for (job, since_ms) in &self.queue {
            let story = &mut self.stories[*job];
            story.waited_ms = story.waited_ms.saturating_add(self.now_ms.saturating_sub(*since_ms));
        }
        self.stories.truncate(self.scenario.jobs.len());
        let names = self.snapshot.tenants.keys().cloned();
        let mut tenants: BTreeMap<String, TenantOutcome> = names.zip(self.tenants).collect();
        let mut summary = summarise(&self.stories, &mut tenants);
        summary.makespan_ms = self.now_ms.saturating_sub(self.scenario.start_ms);
        let all = capacity(&self.snapshot) as f64 * summary.makespan_ms as f64;
        summary.utilisation = if all > 0.0 { self.used_ms as f64 / all } else { 0.0 };
        let (free, fragments) = self
            .points
            .iter()
            .fold((0, 0), |(free, fragments), point| (free + point.free, fragments + point.fragments));
        summary.fragmentation = if free > 0 { fragments as f64 / free as f64 } else { 0.0 };
        (summary.plans, summary.moves, summary.evictions) = (self.plans, self.moves, self.evictions);
        Outcome { points: self.points, jobs: self.stories, tenants, summary }
    }
}
