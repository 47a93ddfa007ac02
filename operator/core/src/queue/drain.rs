//! Which place becomes free soonest for a workload that finds none, who is in the
//! way there, and until when. Whether it is kept is not decided here.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::keep::Keeper;
use super::tree::Tree;
use super::way::{Ground, Load};
use crate::model::{Movable, PodPlacement, Snapshot, Units, Workload};
use crate::placement::{Cluster, Shapes};

/// Who runs, in the order in which they are expected to end.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    snapshot: &'a Snapshot,
    shapes: &'a Shapes<'a>,
    now_ms: i64,
    /// Once it is asked for: those that have been asked to leave, then those whose end is known, then the others, of
    /// which those that started last are expected to end first. Without those that are expected to run for ever.
    order: OnceCell<Vec<usize>>,
    /// Those who have been asked to leave, in that order.
    leaving: Vec<usize>,
    /// The cluster once all have ended, with nothing kept; once it is asked for.
    drained: Option<Cluster<'a>>,
    /// When those who have been asked leave; [`i64::MAX`] if that is not known.
    leaves_ms: Vec<Option<i64>>,
    /// What is used where.
    pub ground: Ground<'a>,
    /// For each tenant, who runs of it and of those below it, in order; once it is asked for.
    by_tenant: Option<Vec<Vec<usize>>>,
    /// What does not fit even when those who leave have left, or, with nothing kept, when all who end have ended: the
    /// least number of pods of a shape. Within a cycle there is ever less room.
    hopeless: BTreeMap<(bool, usize), u32>,
}

/// How what runs is expected to end; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Leaves(i64),
    Known(i64),
    Unknown(Reverse<i64>),
    Never,
}

/// A place for a workload, and what its tenant would be charged for it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub pods: Vec<PodPlacement>,
    pub units: Units,
}

/// Who is in the way of a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InTheWay {
    /// Who that is.
    pub way: BTreeSet<usize>,
    /// When the last of them has ended at the latest, if that is known.
    pub free_ms: Option<i64>,
    /// How many have been asked to leave.
    pub leaving: u32,
    /// How many will end by themselves.
    pub ending: u32,
}

impl<'a> Ends<'a> {
    pub fn of(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, now_ms: i64) -> Self {
        let leaves_ms: Vec<Option<i64>> = snapshot.running.iter().map(|running| running.leaves_ms).collect();
        let mut leaving: Vec<usize> = (0..leaves_ms.len()).filter(|at| leaves_ms[*at].is_some()).collect();
        leaving.sort_by_key(|at| (leaves_ms[*at], &snapshot.running[*at].key, *at));
        Self {
            snapshot,
            shapes,
            now_ms,
            order: OnceCell::new(),
            leaving,
            drained: None,
            leaves_ms,
            ground: Ground::of(snapshot),
            by_tenant: None,
            hopeless: BTreeMap::new(),
        }
    }

    fn order(&self) -> &[usize] {
        self.order.get_or_init(|| {
            let mut order: Vec<usize> = (0..self.snapshot.running.len()).collect();
            order.retain(|at| self.end(*at) != End::Never);
            order.sort_by_cached_key(|at| (self.end(*at), &self.snapshot.running[*at].key, *at));
            order
        })
    }

    /// Whether a workload would find a place if everything ended that ends, and nothing were kept for others.
    pub fn would_fit(&mut self, workload: &Workload, shape: usize) -> bool {
        if self.hopeless.get(&(false, shape)).is_some_and(|pods| workload.pods >= *pods) {
            return false;
        }
        let (snapshot, shapes) = (self.snapshot, self.shapes);
        if self.drained.is_none() {
            let mut cluster = Cluster::new(snapshot, shapes, false);
            self.order().iter().for_each(|at| cluster.release(*at));
            self.drained = Some(cluster);
        }
        let placed = self.drained.as_mut().and_then(|cluster| {
            let placed = cluster.place_workload(shape, workload)?;
            cluster.take_back(shape, placed);
            Some(())
        });
        if placed.is_none() && workload.topology.is_none() {
            self.hopeless.insert((false, shape), workload.pods);
        }
        placed.is_some()
    }

    /// Counts someone as asked to leave at this time, [`i64::MAX`] if that is not known, or as not asked any more.
    pub fn ask(&mut self, running: usize, leaves_ms: Option<i64>) {
        self.leaves_ms[running] = leaves_ms;
    }

    fn end(&self, running: usize) -> End {
        end(self.snapshot, &self.leaves_ms, running)
    }

    /// A place for a workload that is free once some of those who leave have left, or some of those who end have
    /// ended: as few of the first of them as will do.
    pub fn place(
        &mut self,
        workload: &Workload,
        shape: usize,
        leaving_only: bool,
        cluster: &mut Cluster<'a>,
    ) -> Option<Place> {
        let order = if leaving_only { &self.leaving } else { self.order() };
        let known = self.hopeless.get(&(leaving_only, shape));
        if order.is_empty() || known.is_some_and(|pods| workload.pods >= *pods) {
            return None;
        }
        let mut gone = 0;
        let found = Self::fewest(workload, shape, order, &mut gone, cluster);
        for at in order.get(..gone).unwrap_or_default() {
            cluster.restore(*at);
        }
        if found.is_none() && leaving_only && workload.topology.is_none() {
            self.hopeless.insert((leaving_only, shape), workload.pods);
        }
        found
    }

    /// A place once the fewest of these are gone, the first first. Leaves `gone` of them released, and the place taken
    /// back.
    fn fewest(
        workload: &Workload,
        shape: usize,
        order: &[usize],
        gone: &mut usize,
        cluster: &mut Cluster<'a>,
    ) -> Option<Place> {
        let all = order.len();
        let (mut too_few, mut enough) = (0, all);
        let mut found = None;
        let mut next = 1.min(all);
        while found.is_none() || enough - too_few > 1 {
            for at in order.get(*gone..next).unwrap_or_default() {
                cluster.release(*at);
            }
            for at in order.get(next..*gone).unwrap_or_default() {
                cluster.restore(*at);
            }
            *gone = next;
            match cluster.place_workload(shape, workload) {
                Some(placed) => {
                    found = Some(Place { pods: placed.pods.clone(), units: placed.units });
                    cluster.take_back(shape, placed);
                    enough = next;
                }
                None if next == all => return None,
                None => too_few = next,
            }
            let further =
                if found.is_none() { too_few.saturating_mul(2) } else { usize::midpoint(too_few, enough) };
            next = further.clamp(too_few + 1, all);
        }
        found
    }

    /// Who has to be gone before pods of a workload can be there, which take this much: of those that can't all stay,
    /// who ends first. `None` if they never can, because others are there, or a node does not take them (any more).
    pub fn in_the_way(
        &mut self,
        workload: usize,
        pods: &[PodPlacement],
        load: &Load,
        keeper: &Keeper,
        cluster: &mut Cluster<'a>,
    ) -> Option<InTheWay> {
        let (leaves_ms, snapshot) = (&self.leaves_ms, self.snapshot);
        let way = self.ground.in_the_way(load, keeper, |at| end(snapshot, leaves_ms, at))?;
        for at in &way {
            cluster.release(*at);
        }
        // What else holds the devices, or speaks against the nodes; others whose way is free may have the same way.
        let shape = self.shapes.shape_of[workload];
        let opened = keeper.open_on(pods, None, cluster);
        let claimed = cluster.claim(shape, pods).map(|placed| cluster.take_back(shape, placed));
        keeper.close_again(&opened, cluster);
        for at in &way {
            cluster.restore(*at);
        }
        claimed?;
        let mut free = InTheWay { free_ms: Some(self.now_ms), ..InTheWay::default() };
        for at in &way {
            free.add(self.end(*at));
        }
        free.way = way.into_iter().collect();
        Some(free)
    }

    /// Counts those in as well who have been asked to leave and hold units that are lacking under the limits of `tenant`,
    /// as far as they are not free before.
    pub fn wait_for_units(&self, tenant: usize, units: Units, tree: &Tree<'_>, way: &mut InTheWay) {
        let mut counted = way.way.clone();
        for above in tree.path(tenant) {
            let Some(limit) = tree.tenant(above).limit else { continue };
            let mut short = tree.held(above).saturating_add(units).saturating_sub(limit);
            if short == 0 {
                continue;
            }
            let running = &self.snapshot.running;
            let of = |at: &usize| tree.find(&running[*at].tenant);
            let is_there = |at: &usize| of(at).is_some_and(|of| tree.path(of).any(|at| at == above));
            let at_ms = |at: usize| self.end(at).at_ms().or(self.leaves_ms[at]);
            let ends = (0..running.len()).filter(is_there).filter_map(|at| Some((at_ms(at)?, at)));
            let mut ends: Vec<(i64, usize)> = ends.collect();
            ends.sort_by_key(|(end_ms, at)| (*end_ms, &running[*at].key, *at));
            for (_, at) in ends {
                if short == 0 {
                    break;
                }
                short = short.saturating_sub(running[at].units);
                if self.leaves_ms[at].is_some() && counted.insert(at) {
                    way.add(self.end(at));
                }
            }
        }
    }

    /// When a workload of `tenant` that needs so much comes below all limits at the latest, as far as that is known.
    pub fn below_limits_ms(&mut self, tenant: usize, needs: Units, tree: &Tree<'a>) -> Option<i64> {
        let by_tenant = self.by_tenant.take().unwrap_or_else(|| self.by_tenant(tree));
        let last_ms = self.last_below_limits_ms(tenant, needs, tree, &by_tenant);
        self.by_tenant = Some(by_tenant);
        last_ms
    }

    /// What the tenants of something kept may still hold besides what is kept for those who were promised theirs before
    /// it, of which so much counts as will not be held any more by those who have ended when they can start.
    pub fn left_until_then(&mut self, at: usize, keeper: &Keeper, tree: &Tree<'a>) -> Units {
        let by_tenant = self.by_tenant.take().unwrap_or_else(|| self.by_tenant(tree));
        let left = |above: usize| {
            let limit = tree.tenant(above).limit?;
            let mut gone = BTreeSet::new();
            let mut counts = tree.held(above);
            for kept in keeper.before(at).filter(|kept| tree.path(kept.tenant).any(|of| of == above)) {
                let ended = |running: &usize| {
                    self.end(*running).at_ms().zip(kept.free_ms).is_some_and(|(end, free)| end <= free)
                };
                let mut lets_go: Units = 0;
                for running in by_tenant[above].iter().filter(|running| ended(running)) {
                    if gone.insert(*running) {
                        lets_go = lets_go.saturating_add(self.snapshot.running[*running].units);
                    }
                }
                counts = counts.saturating_add(kept.units.saturating_sub(lets_go));
            }
            Some(limit.saturating_sub(counts))
        };
        let left = tree.path(keeper.get(at).tenant).filter_map(left).min().unwrap_or(Units::MAX);
        self.by_tenant = Some(by_tenant);
        left
    }

    fn last_below_limits_ms(
        &self,
        tenant: usize,
        needs: Units,
        tree: &Tree<'a>,
        by_tenant: &[Vec<usize>],
    ) -> Option<i64> {
        let mut last_ms = self.now_ms;
        for above in tree.path(tenant) {
            let Some(limit) = tree.tenant(above).limit else { continue };
            let mut short = tree.held(above).saturating_add(needs).saturating_sub(limit);
            let mut ends = by_tenant[above].iter();
            while short > 0 {
                let at = *ends.next()?;
                last_ms = last_ms.max(self.end(at).at_ms()?);
                short = short.saturating_sub(self.snapshot.running[at].units);
            }
        }
        Some(last_ms)
    }

    fn by_tenant(&self, tree: &Tree<'a>) -> Vec<Vec<usize>> {
        let mut by_tenant = vec![Vec::new(); tree.len()];
        for at in self.order() {
            if let Some(tenant) = tree.find(&self.snapshot.running[*at].tenant) {
                tree.path(tenant).for_each(|above| by_tenant[above].push(*at));
            }
        }
        by_tenant
    }
}

impl InTheWay {
    fn add(&mut self, end: End) {
        match end {
            End::Leaves(_) => self.leaving += 1,
            _ => self.ending += 1,
        }
        self.free_ms = self.free_ms.zip(end.at_ms()).map(|(one, other)| one.max(other));
    }
}

impl End {
    fn at_ms(self) -> Option<i64> {
        match self {
            Self::Leaves(i64::MAX) | Self::Unknown(_) | Self::Never => None,
            Self::Leaves(ms) | Self::Known(ms) => Some(ms),
        }
    }
}

fn end(snapshot: &Snapshot, leaves_ms: &[Option<i64>], running: usize) -> End {
    let of = &snapshot.running[running];
    match (leaves_ms[running], of.ends_ms) {
        (Some(ms), _) => End::Leaves(ms),
        (None, Some(ms)) => End::Known(ms),
        // Servers run for ever.
        (None, None) if of.movable == Movable::Replace => End::Never,
        (None, None) => End::Unknown(Reverse(of.admitted_ms)),
    }
}
