//! Which place becomes free soonest for a workload that finds none, who is in the
//! way there, and until when. Whether it is kept is not decided here.

use std::cell::{Cell, OnceCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::fewest::{Fewest, by_trying, heads};
use super::keep::Keeper;
use super::tree::Tree;
use super::way::{Ground, Load};
use crate::model::{Admission, Movable, PodPlacement, Running, Snapshot, Topology, Units, Workload};
use crate::placement::{Cluster, Shapes};

/// Who runs, in the order in which they are expected to end.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    snapshot: &'a Snapshot,
    shapes: &'a Shapes<'a>,
    now_ms: i64,
    /// When each is expected to end.
    times: Vec<End>,
    /// Once they are asked for: see [`heads`].
    heads: OnceCell<Vec<u128>>,
    /// Whether that was asked for: from then on it stays.
    expected: Cell<bool>,
    /// Whether anybody may be asked to leave or to move at all.
    pub may_be_asked: bool,
    /// Once it is asked for: those that have been asked to leave, then those whose end is known, then the others, of
    /// which those that started last are expected to end first. Without those that are expected to run for ever.
    order: OnceCell<Vec<usize>>,
    /// Those who have been asked to leave, in that order.
    leaving: Vec<usize>,
    /// The cluster once all have ended, with nothing kept; once it is asked for by those that are to be together.
    drained: Option<Box<Cluster<'a>>>,
    /// By shape, what is known to fit into that; nodes and pods are added up for it.
    once_ended: Vec<Known>,
    /// The same for those that are to be together.
    together: BTreeMap<(usize, &'a Topology), Known>,
    /// When those leave who were asked in this cycle; [`i64::MAX`] if that is not known.
    asked: BTreeMap<usize, i64>,
    /// What is used where.
    pub ground: Ground<'a>,
    /// For each tenant, who runs of it and of those below it, in order; once it is asked for.
    by_tenant: Option<Vec<Vec<usize>>>,
    /// By shape, the least number of pods that does not fit even when those who leave have left. Within a cycle there
    /// is ever less room.
    hopeless: Vec<u32>,
}

/// So many pods are known to fit, and so many not to.
#[derive(Clone, Copy, Debug)]
struct Known {
    fit: u32,
    too_many: u32,
}

const NOTHING: Known = Known { fit: 0, too_many: u32::MAX };

/// How what runs is expected to end; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
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
        // One look at each: there are many.
        let (mut leaving, mut may_be_asked) = (Vec::new(), false);
        let look = |(at, running): (usize, &Running)| {
            if running.leaves_ms.is_some() {
                leaving.push(at);
            }
            may_be_asked |= running.evictable || running.movable != Movable::No;
            end(running, running.leaves_ms)
        };
        let times = snapshot.running.iter().enumerate().map(look).collect();
        leaving.sort_by_key(|at| (snapshot.running[*at].leaves_ms, &snapshot.running[*at].key, *at));
        Self {
            snapshot,
            shapes,
            now_ms,
            times,
            heads: OnceCell::new(),
            expected: Cell::new(false),
            may_be_asked,
            order: OnceCell::new(),
            leaving,
            drained: None,
            once_ended: vec![NOTHING; shapes.pods.len()],
            together: BTreeMap::new(),
            asked: BTreeMap::new(),
            ground: Ground::of(snapshot),
            by_tenant: None,
            hopeless: vec![u32::MAX; shapes.pods.len()],
        }
    }

    /// When each of the snapshot's running is expected to end, as far as was known when that was first asked.
    pub fn ends(&self) -> &[End] {
        self.expected.set(true);
        &self.times
    }

    /// Those that end, in that order.
    pub fn order(&self) -> &[usize] {
        self.order.get_or_init(|| {
            let ends = self.ends();
            let mut order: Vec<usize> = (0..ends.len()).filter(|at| ends[*at] != End::Never).collect();
            let heads = self.heads();
            order.sort_unstable_by_key(|at| (ends[*at], heads[*at], &self.snapshot.running[*at].key, *at));
            order
        })
    }

    /// As far as it is known who is there: [`Ground::look_who_is_there`].
    pub fn fewest(&self) -> Fewest<'a, '_> {
        let (heads, there) = (self.heads(), self.ground.there());
        Fewest { snapshot: self.snapshot, ends: self.ends(), heads, there }
    }

    fn heads(&self) -> &[u128] {
        self.heads.get_or_init(|| heads(self.snapshot))
    }

    /// Whether anybody had been asked to leave when the cycle began.
    pub fn anybody_leaves(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Whether a workload of that shape that may go anywhere is known to find a place once everything has ended.
    pub fn is_known_to_fit(&self, pods: u32, shape: usize) -> bool {
        self.once_ended[shape].fit >= pods
    }

    /// The same as [`Ends::would_fit`] for a workload that may go anywhere.
    pub fn would_fit_anywhere(&mut self, pods: u32, shape: usize, cluster: &mut Cluster<'a>) -> bool {
        let Known { fit, too_many } = self.once_ended[shape];
        if pods <= fit || pods >= too_many {
            return pods <= fit;
        }
        self.ground.look_who_is_there();
        let ends = self.ends();
        let mut fit = 0_u64;
        let mut gone = Vec::new();
        for (node, there) in (0..).zip(self.ground.there()) {
            gone.clear();
            gone.extend(there.iter().filter(|at| ends[**at] != End::Never));
            fit = fit.saturating_add(cluster.pods_at_first_without(shape, node, &gone));
            if fit >= u64::from(pods) {
                break;
            }
        }
        let fit = u32::try_from(fit).unwrap_or(u32::MAX);
        let known = &mut self.once_ended[shape];
        if fit >= pods {
            known.fit = fit;
        } else {
            *known = Known { fit, too_many: pods };
        }
        fit >= pods
    }

    /// Whether a workload would find a place if everything ended that ends, and nothing were kept for others.
    pub fn would_fit(&mut self, workload: &'a Workload, shape: usize, cluster: &mut Cluster<'a>) -> bool {
        let Some(topology) = &workload.topology else {
            return self.would_fit_anywhere(workload.pods, shape, cluster);
        };
        if workload.pods >= self.once_ended[shape].too_many {
            return false;
        }
        let Known { fit, too_many } = *self.together.entry((shape, topology)).or_insert(NOTHING);
        if (fit > 0 && workload.pods <= fit) || workload.pods >= too_many {
            return workload.pods <= fit;
        }
        let (snapshot, shapes) = (self.snapshot, self.shapes);
        let drained = self.drained.take().unwrap_or_else(|| {
            let ends = self.ends();
            let gone = (0..ends.len()).filter(|at| ends[*at] != End::Never);
            Box::new(Cluster::without(snapshot, shapes, gone))
        });
        let cluster = self.drained.insert(drained);
        let placed = cluster.place_workload(shape, workload).map(|placed| cluster.take_back(shape, placed));
        let known = self.together.entry((shape, topology)).or_insert(NOTHING);
        match placed {
            Some(()) => known.fit = known.fit.max(workload.pods),
            None => known.too_many = known.too_many.min(workload.pods),
        }
        placed.is_some()
    }

    /// Counts someone as asked to leave at this time, [`i64::MAX`] if that is not known, or as not asked any more.
    pub fn ask(&mut self, running: usize, leaves_ms: Option<i64>) {
        match leaves_ms {
            Some(leaves_ms) => self.asked.insert(running, leaves_ms),
            None => self.asked.remove(&running),
        };
        if !self.expected.get() {
            self.times[running] = self.end(running);
        }
    }

    fn end(&self, running: usize) -> End {
        end_if(self.snapshot, &self.asked, running)
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
        let hopeless = if leaving_only { self.hopeless[shape] } else { self.once_ended[shape].too_many };
        if workload.pods >= hopeless {
            return None;
        }
        let found = if leaving_only || workload.topology.is_some() {
            let order = if leaving_only { &self.leaving } else { self.order() };
            by_trying(workload, shape, order, cluster)
        } else {
            self.ground.look_who_is_there();
            let fewest = self.fewest();
            let found = fewest.place(workload, shape, cluster);
            found.unwrap_or_else(|_| by_trying(workload, shape, self.order(), cluster))
        };
        if found.is_none() && leaving_only && workload.topology.is_none() {
            self.hopeless[shape] = workload.pods;
        }
        found
    }

    /// Who has to be gone before pods of a workload can be there, which take this much, beside what this cycle has given:
    /// of those that can't all stay, who ends first. `None` if they never can, because others are there, or a node does not take them (any more).
    pub fn in_the_way(
        &mut self,
        workload: usize,
        pods: &[PodPlacement],
        load: &Load,
        keeper: &Keeper,
        given: &[Admission],
        cluster: &mut Cluster<'a>,
    ) -> Option<InTheWay> {
        let (asked, snapshot) = (&self.asked, self.snapshot);
        let way = self.ground.in_the_way(load, keeper, given, |at| end_if(snapshot, asked, at))?;
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
    /// as far as they are not free before. Those who end by themselves are not in the way, but it is not free before.
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
            let leaves_ms = |at: usize| self.asked.get(&at).copied().or(running[at].leaves_ms);
            let at_ms = |at: usize| self.end(at).at_ms().or(leaves_ms(at));
            let ends = (0..running.len()).filter(is_there).filter_map(|at| Some((at_ms(at)?, at)));
            let mut ends: Vec<(i64, usize)> = ends.collect();
            ends.sort_by_key(|(end_ms, at)| (*end_ms, &running[*at].key, *at));
            for (_, at) in ends {
                if short == 0 {
                    break;
                }
                short = short.saturating_sub(running[at].units);
                if leaves_ms(at).is_some() {
                    if counted.insert(at) {
                        way.add(self.end(at));
                    }
                } else {
                    way.free_ms = way.free_ms.max(at_ms(at)).filter(|_| way.free_ms.is_some());
                }
            }
            if short > 0 {
                // The limit was lowered, and nobody knows when enough of what is above it has ended.
                way.free_ms = None;
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

fn end_if(snapshot: &Snapshot, asked: &BTreeMap<usize, i64>, running: usize) -> End {
    let of = &snapshot.running[running];
    end(of, asked.get(&running).copied().or(of.leaves_ms))
}

fn end(of: &Running, leaves_ms: Option<i64>) -> End {
    match (leaves_ms, of.ends_ms) {
        (Some(ms), _) => End::Leaves(ms),
        (None, Some(ms)) => End::Known(ms),
        // Servers run for ever.
        (None, None) if of.movable == Movable::Replace => End::Never,
        (None, None) => End::Unknown(Reverse(of.admitted_ms)),
    }
}
