//! One cycle: each waiting workload in its order is placed whole or waits.

use std::collections::{BTreeMap, BTreeSet};

use super::drain::{Ends, Place};
use super::jobs::{Job, jobs};
use super::keep::{Keeper, Kept};
use super::order::{Order, Passed};
use super::reason::{Known, Obstacle, Reasons};
use super::tree::{Tightest, Tree};
use crate::evict::Evictor;
use crate::model::{
    Admission, Eviction, Plan, PodPlacement, Replacement, Right, Snapshot, Units, Wait, Workload,
};
use crate::placement::{Cluster, Shapes};
use crate::policy::Scorer;
use crate::reserve::guard::{Draw, Guard};

/// Decides what starts now, and where; and for everything else says why not.
///
/// Every workload of `snapshot.waiting` is in the plan exactly once, either as
/// started or as waiting. The numbers in the reasons are those after everything
/// in the plan has started.
pub fn plan(snapshot: &Snapshot, now_ms: i64) -> Plan {
    plan_shapes(snapshot, &Shapes::of(snapshot), now_ms)
}

/// The same, where places are weighed by `scorer`, whatever the settings say: by what was learnt from the cluster's
/// own jobs.
pub fn plan_with(snapshot: &Snapshot, scorer: &Scorer, now_ms: i64) -> Plan {
    plan_shapes(snapshot, &Shapes::with(snapshot, scorer.clone()), now_ms)
}

fn plan_shapes<'a>(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, now_ms: i64) -> Plan {
    let mut first = Vec::new();
    loop {
        let mut cycle = Cycle::new(snapshot, shapes, now_ms);
        cycle.keep_what_was_kept(&first);
        match cycle.plan() {
            Ok(plan) => return plan,
            Err(missed) => first = cycle.with_those_who_missed(first, missed),
        }
    }
}

pub(super) struct Cycle<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) shapes: &'a Shapes<'a>,
    pub(super) cluster: Cluster<'a>,
    jobs: Vec<Job>,
    pub(super) now_ms: i64,
    pub(super) admissions: Vec<Admission>,
    /// What tenants hold, with what this cycle gave them.
    pub(super) tree: Tree<'a>,
    /// How many workloads of each shape are still to be decided.
    left: Vec<usize>,
    pub(super) keeper: Keeper,
    pub(super) ends: Ends<'a>,
    /// Tenants under whose limit units are kept for somebody.
    pub(super) held_back: Vec<bool>,
    /// What each tenant may hold more that may not be stopped for others.
    left_to_last: Vec<Units>,
    /// Tenants of which one that has waited long goes on waiting.
    passed_over: Vec<bool>,
    /// Whether one that is ahead waits until less is kept.
    pub(super) overtaken: bool,
    /// By shape and by what was open: the least number of pods that did not fit into what is kept.
    no_backfill: BTreeMap<(usize, Vec<usize>), u32>,
    /// Once somebody may have to leave or to move for others.
    pub(super) evictor: Option<Evictor<'a>>,
    pub(super) evictions: Vec<Eviction>,
    pub(super) replacements: Vec<Replacement>,
    /// What is promised by the reserves.
    pub(super) guard: Guard<'a>,
    /// Who takes what was promised, of those for whom a place is kept.
    pub(super) draws: BTreeMap<usize, Draw>,
    /// One that draws on a reserve and found no room.
    pub(super) missed: Option<usize>,
    /// Those that were served before all others, lest they be missed.
    pub(super) first: Vec<usize>,
    /// What finds no place where every promise holds: the least number of pods of a shape.
    pub(super) unpromised: BTreeMap<usize, u32>,
}

impl<'a> Cycle<'a> {
    fn new(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, now_ms: i64) -> Self {
        let mut left = vec![0; shapes.pods.len()];
        let tree = Tree::of(snapshot);
        let jobs = jobs(snapshot, &shapes.shape_of, &tree);
        for job in jobs.iter().filter(|job| job.tenant().is_some()) {
            left[job.shape()] += 1;
        }
        Self {
            snapshot,
            shapes,
            cluster: Cluster::new(snapshot, shapes, false),
            jobs,
            now_ms,
            admissions: Vec::new(),
            left,
            keeper: Keeper::default(),
            ends: Ends::of(snapshot, shapes, now_ms),
            held_back: vec![false; tree.len()],
            left_to_last: (0..tree.len())
                .map(|at| tree.tenant(at).guaranteed.saturating_sub(tree.tenant(at).lasting))
                .collect(),
            passed_over: vec![false; tree.len()],
            overtaken: false,
            no_backfill: BTreeMap::new(),
            evictor: None,
            evictions: Vec::new(),
            replacements: Vec::new(),
            guard: Guard::of(snapshot, shapes, now_ms),
            draws: BTreeMap::new(),
            missed: None,
            first: Vec::new(),
            unpromised: BTreeMap::new(),
            tree,
        }
    }

    /// Decides for each workload in its turn; the error is one that found no room though it draws on a reserve, because
    /// others came first in this cycle.
    fn plan(&mut self) -> Result<Plan, usize> {
        let snapshot = self.snapshot;
        let mut plan = Plan::default();
        let mut obstacles = Vec::with_capacity(snapshot.waiting.len());
        let mut order = Order::of(snapshot, &self.jobs, &self.tree);
        while let Some((workload, tenant)) = order.next() {
            let passed = match self.decide(workload, tenant) {
                Ok(admission) => {
                    if self.passed_over[tenant] {
                        plan.out_of_turn.push(workload);
                    }
                    let given = Passed::Given(admission.units);
                    self.admissions.push(admission);
                    given
                }
                Err(obstacle) => {
                    obstacles.push((workload, obstacle));
                    self.pass_over(workload, tenant, obstacle)
                }
            };
            if let Some(missed) = self.missed {
                return Err(missed);
            }
            order.pass(&self.tree, tenant, passed, self.now_ms);
        }
        let mut homeless: Vec<usize> =
            (0..snapshot.waiting.len()).filter(|index| self.jobs[*index].tenant().is_none()).collect();
        homeless.sort_by_key(|index| (&snapshot.waiting[*index].key, *index));
        obstacles.extend(homeless.into_iter().map(|index| (index, Obstacle::NoTenant)));

        (plan.evictions, plan.replacements) =
            (std::mem::take(&mut self.evictions), std::mem::take(&mut self.replacements));
        plan.admissions = std::mem::take(&mut self.admissions);
        plan.reservations = self.keeper.reservations();
        plan.missing = self.guard.missing();
        let known = Known { jobs: &self.jobs, tree: &self.tree, keeper: &self.keeper, ends: &self.ends };
        let mut reasons = Reasons::new(snapshot, self.shapes, &mut self.cluster, known);
        reasons.look_at(&obstacles);
        let wait = |(workload, obstacle)| Wait { workload, reason: reasons.of(workload, obstacle) };
        plan.waits = obstacles.into_iter().map(wait).collect();
        Ok(plan)
    }

    /// Closes the places that were kept by the last plan, as far as that is still possible, before anybody is placed: those
    /// of who draws on a reserve, with those of `first`, before the others.
    fn keep_what_was_kept(&mut self, first: &[usize]) {
        let snapshot = self.snapshot;
        let mut reserved: Vec<usize> =
            (0..snapshot.waiting.len()).filter(|index| self.jobs[*index].kept).collect();
        reserved.sort_by_key(|index| {
            let workload = &snapshot.waiting[*index];
            let ordinary = workload.reserved_right == Right::Ordinary;
            (ordinary, workload.reserved_rank, workload.queued_ms, &workload.key)
        });
        let mut first = Some(first);
        for index in reserved {
            let workload = &snapshot.waiting[index];
            if workload.reserved_right == Right::Ordinary
                && let Some(first) = first.take()
            {
                self.claim_first(first);
            }
            let Some(tenant) = self.jobs[index].tenant().filter(|_| self.keeper.of(index).is_none()) else {
                continue;
            };
            let whole = usize::try_from(workload.pods).is_ok_and(|pods| pods == workload.reserved.len());
            let units = self.units_of(&workload.reserved);
            let allowed = self.tree.least_limit(tenant).is_none_or(|(limit, _)| units <= limit);
            if workload.reserved_right != Right::Ordinary
                && let Some(draw) = self.guard.draw(index)
            {
                self.draws.insert(index, draw);
            }
            let draws = self.draws.contains_key(&index);
            let lasts = draws || !workload.lasting || units <= self.left_to_last[tenant];
            if whole && allowed && lasts && workload.not_before_ms <= self.now_ms {
                let place = Place { pods: workload.reserved.clone(), units };
                if !draws || self.claim_again(index, tenant, &place).is_none() {
                    self.keep(index, tenant, place);
                }
            }
        }
        if let Some(first) = first {
            self.claim_first(first);
        }
    }

    fn units_of(&self, pods: &[PodPlacement]) -> Units {
        let units = |device: &crate::model::DeviceIndex| {
            let gpu = self.snapshot.gpus.get(device.gpu.0 as usize)?;
            Some(gpu.devices.get(usize::from(device.device))?.units)
        };
        let devices = pods.iter().flat_map(|pod| pod.devices.iter().flatten());
        devices.filter_map(units).fold(0, Units::saturating_add)
    }

    /// Keeps a place for a workload, if it can be there in time.
    pub(super) fn keep(&mut self, workload: usize, tenant: usize, place: Place) -> Option<usize> {
        let shape = self.shapes.shape_of[workload];
        let load = self.ends.ground.load(self.snapshot.waiting[workload].shape, &place.pods);
        let (keeper, given) = (&self.keeper, &self.admissions);
        let mut way = self.ends.in_the_way(workload, &place.pods, &load, keeper, given, &mut self.cluster)?;
        self.ends.wait_for_units(tenant, place.units, &self.tree, &mut way);
        let Place { pods, units } = place;
        let draw = self.draws.get(&workload);
        let binds = draw.is_some() || self.guard.binds(&self.snapshot.waiting[workload]);
        if binds && !self.guard.admit(workload, &pods, draw) {
            return None;
        }
        let kept = Kept {
            workload,
            tenant,
            shape,
            pods,
            units,
            load,
            way: way.way,
            free_ms: way.free_ms,
            leaving: way.leaving,
            ending: way.ending,
            stands: true,
            right: self.right_of(workload),
        };
        self.keeper.add(kept, &mut self.cluster, &mut self.tree).then(|| self.keeper.of(workload))?
    }

    fn decide(&mut self, index: usize, tenant: usize) -> Result<Admission, Obstacle> {
        let shape = self.jobs[index].shape();
        let decided = self.admit(index, tenant, shape);
        self.left[shape] -= 1;
        if self.left[shape] == 0 {
            self.cluster.forget(shape);
        }
        decided
    }

    /// Tells whether those behind one that waits go before it: if it could start in time, and has waited long.
    fn pass_over(&mut self, index: usize, tenant: usize, obstacle: Obstacle) -> Passed {
        let starts_in_time = match obstacle {
            Obstacle::Reserved(_) => true,
            Obstacle::Quota { .. } | Obstacle::Room => self.has_waited(index) && self.would_fit(index),
            _ => false,
        };
        if !starts_in_time {
            return Passed::By;
        }
        self.passed_over[tenant] = true;
        Passed::Over
    }

    fn has_waited(&self, index: usize) -> bool {
        let waited_ms = self.now_ms.saturating_sub(self.jobs[index].queued_ms);
        waited_ms >= self.snapshot.settings.reserve_after_ms
    }

    /// Whether it would find a place if everything ended that ends, and nothing were kept for others.
    pub(super) fn would_fit(&mut self, index: usize) -> bool {
        let job = self.jobs[index];
        if job.plain {
            return self.ends.would_fit_anywhere(job.pods, job.shape(), &mut self.cluster);
        }
        self.ends.would_fit(&self.snapshot.waiting[index], job.shape(), &mut self.cluster)
    }

    fn admit(&mut self, index: usize, tenant: usize, shape: usize) -> Result<Admission, Obstacle> {
        let job = self.jobs[index];
        let demand = &self.shapes.demands[self.shapes.demand_of[shape]];
        let Some(least) = demand.least else { return Err(Obstacle::NoSuchDevice) };
        let needs = least.saturating_mul(job.pods.into());
        if let Some((limit, of)) = self.tree.least_limit(tenant).filter(|(limit, _)| needs > *limit) {
            return Err(Obstacle::AboveLimit { needs, limit, tenant: of });
        }
        if job.not_before_ms > self.now_ms {
            return Err(Obstacle::Backoff { left_ms: job.not_before_ms.saturating_sub(self.now_ms) });
        }
        if job.lasting && !self.draws.contains_key(&index) {
            let left = self.left_to_last[tenant];
            // What waits for room counts too: else smaller ones behind it could take the guarantee for ever.
            match left.checked_sub(needs) {
                Some(rest) => self.left_to_last[tenant] = rest,
                None => {
                    return self.admit_by_right(
                        index,
                        tenant,
                        needs,
                        Obstacle::Guarantee { needs, left, tenant },
                    );
                }
            }
        }
        if let Some(own) = self.keeper.of(index) {
            return self.admit_reserved(index, tenant, needs, own);
        }
        let blocked = match self.start(index, tenant, needs) {
            Ok(admission) => return Ok(admission),
            Err(blocked) => blocked,
        };
        if let Some(admission) = self.backfill(index, tenant, needs) {
            return Ok(admission);
        }
        if !self.guard.is_idle() && matches!(blocked, Obstacle::Room | Obstacle::Promised) {
            match self.admit_by_right(index, tenant, needs, blocked) {
                Err(Obstacle::Room | Obstacle::Promised) => {}
                decided => return decided,
            }
        }
        let waited = self.has_waited(index);
        match blocked {
            Obstacle::Quota { needs } => {
                if let Some(kept) = self.ask_for_room(index, tenant, needs, true) {
                    return Err(Obstacle::Reserved(kept));
                }
                if waited {
                    self.hold_back(index, tenant, needs);
                }
            }
            Obstacle::Room => {
                if let Some(kept) = self.make_room(index, tenant, needs, waited) {
                    // What is kept for others may hide a place where nobody is in the way.
                    let free = self.keeper.get(kept).is_free();
                    let waits = || Err(Obstacle::Reserved(kept));
                    return if free { self.admit_reserved(index, tenant, needs, kept) } else { waits() };
                }
            }
            _ => {}
        }
        Err(blocked)
    }

    /// Starts a workload now, if its tenants may hold more and there is room, besides what is kept.
    fn start(&mut self, index: usize, tenant: usize, needs: Units) -> Result<Admission, Obstacle> {
        let left = self.left_for_others(tenant);
        self.start_within(left, index, tenant, needs)
    }

    /// Starts a workload now, if that is no more than `left` and there is room, besides what is kept.
    fn start_within(
        &mut self,
        left: Units,
        index: usize,
        tenant: usize,
        needs: Units,
    ) -> Result<Admission, Obstacle> {
        if needs > left {
            return Err(Obstacle::Quota { needs });
        }
        let Job { shape, pods, plain, .. } = self.jobs[index];
        let shape = shape as usize;
        let workload = &self.snapshot.waiting[index];
        let placed = if plain {
            self.cluster.place_anywhere(shape, pods)
        } else {
            self.cluster.place_workload(shape, workload)
        };
        let Some(mut placed) = placed else { return Err(Obstacle::Room) };
        if placed.units > left && !workload.avoid.is_empty() {
            // Perhaps something cheaper is free where it would rather not go.
            self.cluster.take_back(shape, placed);
            let anywhere = Workload { avoid: BTreeSet::new(), ..workload.clone() };
            placed = self.cluster.place_workload(shape, &anywhere).ok_or(Obstacle::Room)?;
        }
        if placed.units > left {
            // Only larger devices than the least that will do were free.
            let needs = placed.units;
            self.cluster.take_back(shape, placed);
            return Err(Obstacle::Quota { needs });
        }
        let Some(placed) = self.where_promises_hold(index, shape, placed) else {
            return Err(Obstacle::Promised);
        };
        self.tree.give(tenant, placed.units);
        let right = Right::Ordinary;
        Ok(Admission { workload: index, pods: placed.pods, units: placed.units, right })
    }

    pub(super) fn left_for_others(&self, tenant: usize) -> Units {
        self.tree.tightest_for_others(tenant).map_or(Units::MAX, |Tightest { left, .. }| left)
    }

    /// Starts a workload for which a place is kept: there if it is free, else wherever it fits.
    pub(super) fn admit_reserved(
        &mut self,
        index: usize,
        tenant: usize,
        needs: Units,
        own: usize,
    ) -> Result<Admission, Obstacle> {
        self.keeper.open(own, &mut self.cluster, &mut self.tree);
        let Kept { shape, units, .. } = *self.keeper.get(own);
        let mut left = self.keeper.left_for(own, &mut self.tree);
        if units > left {
            // Who went before others may hold units that are kept for them, until they can start.
            left = self.ends.left_until_then(own, &self.keeper, &self.tree);
        }
        // As long as somebody is in the way there, it would be in the way of others.
        let placed = if self.keeper.get(own).is_free() && units <= left {
            let place = &self.keeper.get(own).pods;
            let opened = self.keeper.open_on(place, Some(own), &mut self.cluster);
            let placed = self.cluster.claim(shape, place);
            self.keeper.close_again(&opened, &mut self.cluster);
            placed
        } else {
            None
        };
        if let Some(placed) = placed {
            self.tree.give(tenant, placed.units);
            self.keeper.started(own, true, &mut self.cluster);
            let right = self.right_of(index);
            return Ok(Admission { workload: index, pods: placed.pods, units: placed.units, right });
        }
        let blocked = match self.start_within(left, index, tenant, needs) {
            Ok(admission) => {
                self.keeper.started(own, false, &mut self.cluster);
                return Ok(admission);
            }
            Err(blocked) => blocked,
        };
        let may_ask = matches!(blocked, Obstacle::Room) && self.keeper.get(own).free_ms.is_none();
        let asked = if may_ask { self.ask_for_room(index, tenant, needs, false) } else { None };
        if let Some(kept) = asked {
            self.keeper.started(own, true, &mut self.cluster);
            return Err(Obstacle::Reserved(kept));
        }
        self.keeper.close(own, &mut self.cluster, &mut self.tree);
        if let Some(admission) = self.backfill(index, tenant, needs) {
            self.keeper.give_up(own);
            return Ok(admission);
        }
        // Those who went before it may hold units for as long as they may be in the way.
        let free = self.keeper.get(own).is_free();
        if free && matches!(blocked, Obstacle::Quota { .. }) {
            self.keeper.give_up(own);
            return Err(blocked);
        }
        Err(Obstacle::Reserved(own))
    }

    /// Starts a workload on what is kept for others, if it has ended by the time at which they can be there.
    fn backfill(&mut self, index: usize, tenant: usize, needs: Units) -> Option<Admission> {
        if self.jobs[index].plain {
            return None;
        }
        let workload = &self.snapshot.waiting[index];
        let end_ms = self.now_ms.saturating_add(workload.runs_ms?);
        let outlasting = self.keeper.outlasting(end_ms);
        if outlasting.is_empty() {
            return None;
        }
        let known = (self.shapes.shape_of[index], outlasting);
        if self.no_backfill.get(&known).is_some_and(|pods| workload.pods >= *pods) {
            return None;
        }
        for at in &known.1 {
            self.keeper.open(*at, &mut self.cluster, &mut self.tree);
        }
        let started = self.start(index, tenant, needs);
        for at in &known.1 {
            self.keeper.close(*at, &mut self.cluster, &mut self.tree);
        }
        if matches!(started, Err(Obstacle::Room)) && workload.topology.is_none() {
            self.no_backfill.insert(known, workload.pods);
        }
        started.ok()
    }
}
