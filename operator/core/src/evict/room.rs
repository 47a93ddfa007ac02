//! Room for a workload that fits nowhere: who is asked to leave for it, and the
//! place that it gets. When it is its turn to ask is not decided here.
//!
//! What is about to leave counts as free, so that nobody is asked twice for the
//! same need.

use std::collections::{BTreeMap, BTreeSet};

use super::lift::Lift;
use super::limits::Short;
use super::reclaim::{Claimant, Rights, Spared};
use super::victims::QUESTIONS;
use super::{claim, defragment};
use crate::model::{Eviction, EvictionReason, PodPlacement, Replacement, Right, Running, Snapshot, Units};
use crate::placement::{Cluster, Shapes};
use crate::queue::tree::Tree;

/// Workloads for which victims are looked for in one cycle. Those behind them get their turn in
/// the next cycles, when those ahead have their places.
const SEARCHES: u32 = 16;

/// Questions asked in one cycle.
const QUESTIONS_IN_CYCLE: u32 = 4 * QUESTIONS;

/// Who is asked to leave or to move during a cycle.
#[derive(Debug)]
pub(crate) struct Evictor<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) shapes: &'a Shapes<'a>,
    pub(super) now_ms: i64,
    pub(super) rights: Rights<'a>,
    /// Who is about to leave, with those asked in this cycle.
    pub(super) leaving: Vec<usize>,
    /// Moves that this cycle makes.
    pub(super) moves: u32,
    /// Workloads for which moves may still be looked for.
    pub(super) move_searches: u32,
    /// Who is asked to leave or to move in this cycle.
    asked: BTreeSet<usize>,
    /// For each tenant, what of its own may be asked to leave, the lowest priority first.
    evictable: Vec<Vec<usize>>,
    searches: u32,
    /// Claims for which victims may still be looked for.
    pub(super) claims: u32,
    questions: u32,
    /// For whom nothing was found: the least number of pods, by tenant, priority and shape.
    hopeless: BTreeMap<(usize, i32, usize), u32>,
}

/// A place for a workload, and what makes it free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The place.
    pub pods: Vec<PodPlacement>,
    /// What its tenant will be charged.
    pub units: Units,
    /// Who is asked to leave.
    pub evictions: Vec<Eviction>,
    /// Who is replaced.
    pub replacements: Vec<Replacement>,
    /// Where those go who move: their shapes and places.
    pub elsewhere: Vec<(usize, Vec<PodPlacement>)>,
}

/// Who waits for room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Index into [`Snapshot::waiting`].
    pub workload: usize,
    /// Its tenant.
    pub tenant: usize,
    /// What it needs at least.
    pub units: Units,
}

impl<'a> Evictor<'a> {
    pub fn of(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, tree: &Tree<'a>, now_ms: i64) -> Self {
        let mut evictable: Vec<Vec<usize>> = vec![Vec::new(); tree.len()];
        for (at, running) in snapshot.running.iter().enumerate().filter(|(_, running)| ordinary(running)) {
            if let Some(tenant) = tree.find(&running.tenant) {
                evictable[tenant].push(at);
            }
        }
        for of_tenant in &mut evictable {
            of_tenant.sort_by_key(|at| snapshot.running[*at].priority);
        }
        let leaving = (0..snapshot.running.len()).filter(|at| snapshot.running[*at].leaves_ms.is_some());
        Self {
            snapshot,
            shapes,
            now_ms,
            rights: Rights::of(snapshot, tree),
            leaving: leaving.collect(),
            asked: BTreeSet::new(),
            evictable,
            moves: 0,
            move_searches: defragment::SEARCHES,
            searches: SEARCHES,
            claims: claim::SEARCHES,
            questions: QUESTIONS_IN_CYCLE,
            hopeless: BTreeMap::new(),
        }
    }

    /// Room for a workload that fits nowhere, or not under the limits of its tenants: whose leaving loses the least work
    /// of all whom it may ask. It needs nobody else to leave who is about to. Nobody is asked before [`Evictor::ask`].
    pub fn evict(&mut self, wanted: Wanted, cluster: &mut Cluster<'a>, tree: &Tree<'a>) -> Option<Room> {
        let workload = &self.snapshot.waiting[wanted.workload];
        let shape = self.shapes.shape_of[wanted.workload];
        let by = Claimant {
            tenant: wanted.tenant,
            priority: workload.priority,
            units: wanted.units,
            demands: None,
        };
        let lowest = self.evictable[by.tenant].first().map(|at| self.snapshot.running[*at].priority);
        let preempts = lowest.is_some_and(|lowest| lowest < by.priority);
        if !preempts && !self.rights.may_reclaim(by, tree) {
            return None;
        }
        let known = (by.tenant, by.priority, shape);
        if self.searches == 0 || self.hopeless.get(&known).is_some_and(|pods| workload.pods >= *pods) {
            return None;
        }
        self.searches -= 1;
        let short = Short::of(by.tenant, by.units, &self.rights, tree)?;
        let candidates = self.candidates(by, shape, &short, cluster, tree);
        if candidates.is_empty() {
            return None;
        }
        for at in &self.leaving {
            cluster.release(*at);
        }
        let mut questions = self.questions.min(QUESTIONS);
        let before = questions;
        let mut lift = Lift {
            snapshot: self.snapshot,
            cluster,
            tree,
            rights: &self.rights,
            by,
            spared: Spared::All,
            short: &short,
            workload,
            shape,
            now_ms: self.now_ms,
        };
        let mut victims = lift.choose(&candidates, &mut questions);
        let of_others = |at: &usize| tree.find(&self.snapshot.running[*at].tenant) != Some(by.tenant);
        if victims.is_none() && candidates.iter().any(of_others) {
            lift.spared = Spared::UntilTheLast;
            victims = lift.choose(&candidates, &mut questions);
        }
        let room = victims.and_then(|victims| self.settle(wanted, by, &victims, cluster, tree));
        for at in &self.leaving {
            cluster.restore(*at);
        }
        self.questions -= before - questions;
        if room.is_none() && workload.topology.is_none() {
            self.hopeless.insert(known, workload.pods);
        }
        room
    }

    /// Asks those to leave, or to move, whom this room needs, and keeps the places where they go for this cycle.
    pub fn ask(&mut self, room: &Room, cluster: &mut Cluster<'a>, tree: &Tree<'a>) {
        for eviction in &room.evictions {
            self.leaving.push(eviction.running);
            self.asked.insert(eviction.running);
            if eviction.reason == EvictionReason::Moved {
                self.moves = self.moves.saturating_add(1);
            } else {
                self.rights.leaves(&self.snapshot.running[eviction.running], tree);
            }
        }
        self.asked.extend(room.replacements.iter().map(|replacement| replacement.running));
        self.moves = self.moves.saturating_add(u32::try_from(room.replacements.len()).unwrap_or(u32::MAX));
        for (shape, pods) in &room.elsewhere {
            cluster.close(*shape, pods);
        }
        // Those who found nothing may now find that some leave.
        self.hopeless.clear();
    }

    /// Whether it is asked to leave already, or to move.
    pub(super) fn is_asked(&self, running: usize) -> bool {
        self.snapshot.running[running].leaves_ms.is_some() || self.asked.contains(&running)
    }

    /// Whoever may be asked to leave, and is on a node where the workload may go, or holds what it lacks under a limit.
    fn candidates(
        &self,
        by: Claimant,
        shape: usize,
        short: &Short,
        cluster: &mut Cluster<'a>,
        tree: &Tree<'a>,
    ) -> Vec<usize> {
        let useful = useful_nodes(self.snapshot, self.shapes, shape, cluster);
        let on_useful = |at: &usize| {
            let running = &self.snapshot.running[*at];
            let there = |pod: &PodPlacement| useful.get(pod.node.0 as usize) == Some(&true);
            !self.is_asked(*at) && (running.pods.iter().any(there) || short.is_held_by(running, tree))
        };
        let right = |at: &usize| self.rights.right(by, &self.snapshot.running[*at], tree).is_some();
        let mut candidates = Vec::new();
        for (of, evictable) in self.evictable.iter().enumerate() {
            let mut evictable = evictable.iter().copied().filter(on_useful);
            if of == by.tenant {
                candidates.extend(evictable.filter(right));
            } else if let Some(first) = evictable.next().filter(right) {
                // What is true of one of another tenant is true of all.
                candidates.push(first);
                candidates.extend(evictable);
            }
        }
        candidates.sort_unstable();
        candidates
    }

    /// The place that these victims free, if the workload may still ask them once it is known what it is charged.
    fn settle(
        &self,
        wanted: Wanted,
        by: Claimant,
        victims: &[usize],
        cluster: &mut Cluster<'a>,
        tree: &Tree<'a>,
    ) -> Option<Room> {
        let (pods, units) = self.place_without(wanted.workload, victims, cluster)?;
        let by = Claimant { units, ..by };
        let eviction = |at: &usize| {
            let running = &self.snapshot.running[*at];
            let reason = self.rights.right(by, running, tree)?;
            Some(Eviction { running: *at, by: wanted.workload, reason, lost: running.lost(self.now_ms) })
        };
        let evictions = victims.iter().map(eviction).collect::<Option<Vec<_>>>()?;
        let gone = victims.iter().map(|at| &self.snapshot.running[*at]);
        if !Short::of(by.tenant, units, &self.rights, tree)?.is_met_without(&gone, tree) {
            return None;
        }
        let (replacements, elsewhere) = (Vec::new(), Vec::new());
        Some(Room { pods, units, evictions, replacements, elsewhere })
    }

    /// The place that a workload gets once these are gone, and what its tenant is charged for it.
    pub(super) fn place_without(
        &self,
        workload: usize,
        gone: &[usize],
        cluster: &mut Cluster<'a>,
    ) -> Option<(Vec<PodPlacement>, Units)> {
        let shape = self.shapes.shape_of[workload];
        for at in gone {
            cluster.release(*at);
        }
        let placed = cluster.place_workload(shape, &self.snapshot.waiting[workload]).map(|placed| {
            let place = (placed.pods.clone(), placed.units);
            cluster.take_back(shape, placed);
            place
        });
        for at in gone {
            cluster.restore(*at);
        }
        placed
    }
}

impl Room {
    /// Who leaves it, and when at the latest, in milliseconds since 1970; [`i64::MAX`] if that is not known.
    pub fn who_leaves(&self, snapshot: &Snapshot, now_ms: i64) -> impl Iterator<Item = (usize, i64)> {
        let leaves_ms = move |at: usize| now_ms.saturating_add(snapshot.running[at].grace_ms.max(0));
        let evicted =
            self.evictions.iter().map(move |eviction| (eviction.running, leaves_ms(eviction.running)));
        // When a replacement is ready is not known.
        evicted.chain(self.replacements.iter().map(|replacement| (replacement.running, i64::MAX)))
    }
}

/// For each node, whether pods of a shape may go there, and it has devices that will do.
pub(super) fn useful_nodes(
    snapshot: &Snapshot,
    shapes: &Shapes<'_>,
    shape: usize,
    cluster: &mut Cluster<'_>,
) -> Vec<bool> {
    let mut useful = vec![false; snapshot.nodes.len()];
    for request in &shapes.pods[shape].requests {
        let Some(set) = snapshot.device_sets.get(request.eligible) else { continue };
        for (gpu, mask) in snapshot.gpus.iter().zip(&set.0) {
            if let Some(useful) = useful.get_mut(gpu.node.0 as usize) {
                *useful |= *mask != 0 && !gpu.blocked;
            }
        }
    }
    for (node, useful) in (0..).zip(&mut useful) {
        *useful = *useful && cluster.suits(shape, node);
    }
    useful
}

/// Whether something may be asked to leave by others than those who draw on a reserve.
fn ordinary(running: &Running) -> bool {
    running.evictable && running.right == Right::Ordinary
}
