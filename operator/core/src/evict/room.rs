//! Room for a workload that fits nowhere: who is asked to leave for it, and the
//! place that it gets. When it is its turn to ask is not decided here.
//!
//! What is about to leave counts as free, so that nobody is asked twice for the
//! same need.

use std::collections::{BTreeMap, BTreeSet};

use super::lift::Lift;
use super::reclaim::{Claimant, Rights};
use super::victims::QUESTIONS;
use crate::model::{Eviction, PodPlacement, Replacement, Running, Snapshot, UnitMs, Units};
use crate::placement::{Cluster, Shapes};
use crate::queue::tree::Tree;

/// Workloads for which victims are looked for in one cycle. Those behind them get their turn in
/// the next cycles, when those ahead have their places.
const SEARCHES: u32 = 64;

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
    leaving: Vec<usize>,
    /// Who is asked to leave or to move in this cycle.
    asked: BTreeSet<usize>,
    /// For each tenant, the lowest priority of what may be asked to leave.
    lowest: Vec<Option<i32>>,
    searches: u32,
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
    /// When it is free at the latest, in milliseconds since 1970, if that is known.
    pub free_ms: Option<i64>,
    /// How many leave it.
    pub leaving: u32,
    /// Who is asked to leave.
    pub evictions: Vec<Eviction>,
    /// Who is replaced.
    pub replacements: Vec<Replacement>,
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
        let mut lowest: Vec<Option<i32>> = vec![None; tree.len()];
        for running in snapshot.running.iter().filter(|running| running.evictable) {
            if let Some(tenant) = tree.find(&running.tenant) {
                let least = lowest[tenant].map_or(running.priority, |least| least.min(running.priority));
                lowest[tenant] = Some(least);
            }
        }
        let leaving = (0..snapshot.running.len()).filter(|at| snapshot.running[*at].leaves_ms.is_some());
        Self {
            snapshot,
            shapes,
            now_ms,
            rights: Rights::of(snapshot, tree),
            leaving: leaving.collect(),
            asked: BTreeSet::new(),
            lowest,
            searches: SEARCHES,
            questions: QUESTIONS_IN_CYCLE,
            hopeless: BTreeMap::new(),
        }
    }

    /// Room for a workload that fits nowhere, also not once everything has left that is about to: whose leaving
    /// loses the least work of all whom it may ask. Nobody is asked before [`Evictor::ask`].
    pub fn evict(&mut self, wanted: Wanted, cluster: &mut Cluster<'a>, tree: &Tree<'a>) -> Option<Room> {
        let workload = &self.snapshot.waiting[wanted.workload];
        let shape = self.shapes.shape_of[wanted.workload];
        let by = Claimant { tenant: wanted.tenant, priority: workload.priority, units: wanted.units };
        let preempts = self.lowest[by.tenant].is_some_and(|lowest| lowest < by.priority);
        if !preempts && !self.rights.may_reclaim(by, tree) {
            return None;
        }
        let known = (by.tenant, by.priority, shape);
        if self.searches == 0 || self.hopeless.get(&known).is_some_and(|pods| workload.pods >= *pods) {
            return None;
        }
        self.searches -= 1;
        let candidates = self.candidates(by, shape, cluster, tree);
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
            workload,
            shape,
            now_ms: self.now_ms,
        };
        let victims = lift.choose(&candidates, &mut questions);
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

    /// Asks those to leave whom this room needs.
    pub fn ask(&mut self, room: &Room, tree: &Tree<'a>) {
        for eviction in &room.evictions {
            self.leaving.push(eviction.running);
            self.asked.insert(eviction.running);
            self.rights.leaves(&self.snapshot.running[eviction.running], tree);
        }
        self.asked.extend(room.replacements.iter().map(|replacement| replacement.running));
        // Those who found nothing may now find that some leave.
        self.hopeless.clear();
    }

    /// Whether it is asked to leave already, or to move.
    pub(super) fn is_asked(&self, running: usize) -> bool {
        self.snapshot.running[running].leaves_ms.is_some() || self.asked.contains(&running)
    }

    /// Whoever may be asked to leave, and is on a node where the workload may go.
    fn candidates(
        &self,
        by: Claimant,
        shape: usize,
        cluster: &mut Cluster<'a>,
        tree: &Tree<'a>,
    ) -> Vec<usize> {
        let useful = useful_nodes(self.snapshot, self.shapes, shape, cluster);
        let mut reclaimable: Vec<Option<bool>> = vec![None; tree.len()];
        let mut may = |at: usize| {
            let running = &self.snapshot.running[at];
            if !running.evictable || self.is_asked(at) {
                return false;
            }
            match tree.find(&running.tenant) {
                None => false,
                Some(of) if of == by.tenant => self.rights.right(by, running, tree).is_some(),
                Some(of) => {
                    *reclaimable[of].get_or_insert_with(|| self.rights.right(by, running, tree).is_some())
                }
            }
        };
        let on_useful = |at: &usize| {
            self.snapshot.running[*at].pods.iter().any(|pod| useful.get(pod.node.0 as usize) == Some(&true))
        };
        (0..self.snapshot.running.len()).filter(|at| may(*at)).filter(on_useful).collect()
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
        let workload = &self.snapshot.waiting[wanted.workload];
        let shape = self.shapes.shape_of[wanted.workload];
        for at in victims {
            cluster.release(*at);
        }
        let placed = cluster.place_workload(shape, workload).map(|placed| {
            let place = (placed.pods.clone(), placed.units);
            cluster.take_back(shape, placed);
            place
        });
        for at in victims {
            cluster.restore(*at);
        }
        let (pods, units) = placed?;
        let by = Claimant { units, ..by };
        let eviction = |at: &usize| {
            let running = &self.snapshot.running[*at];
            let reason = self.rights.right(by, running, tree)?;
            Some(Eviction { running: *at, by: wanted.workload, reason, lost: lost(running, self.now_ms) })
        };
        let evictions = victims.iter().map(eviction).collect::<Option<Vec<_>>>()?;
        let (free_ms, others) = self.free(&pods, victims);
        let leaving = u32::try_from(victims.len() + others).unwrap_or(u32::MAX);
        Some(Room { pods, units, free_ms: Some(free_ms), leaving, evictions, replacements: Vec::new() })
    }

    /// When these places are free at the latest once `victims` are asked to leave, and how many others leave them.
    pub(super) fn free(&self, pods: &[PodPlacement], victims: &[usize]) -> (i64, usize) {
        let nodes: BTreeSet<_> = pods.iter().map(|pod| pod.node).collect();
        let there =
            |at: &&usize| self.snapshot.running[**at].pods.iter().any(|pod| nodes.contains(&pod.node));
        let leaves_ms = |at: &usize| {
            let Running { leaves_ms, grace_ms, .. } = self.snapshot.running[*at];
            leaves_ms.unwrap_or_else(|| self.now_ms.saturating_add(grace_ms))
        };
        let others: Vec<usize> = self.leaving.iter().filter(there).copied().collect();
        let last = victims.iter().chain(&others).map(leaves_ms).max();
        (last.unwrap_or(self.now_ms).max(self.now_ms), others.len())
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

/// Work that is lost if something leaves now.
pub(super) fn lost(running: &Running, now_ms: i64) -> UnitMs {
    let saved_ms = running.saved_ms.map_or(running.admitted_ms, |saved_ms| saved_ms.max(running.admitted_ms));
    running.units.saturating_mul(u64::try_from(now_ms.saturating_sub(saved_ms)).unwrap_or(0))
}
