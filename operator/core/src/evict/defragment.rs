//! Moves for a workload that fits by count, but not by shape: jobs that alone, or
//! as a pair, block a place for it are put elsewhere, the cheapest first. Each has
//! a place elsewhere while the workload has its own.
//!
//! - Moves are for what waits since after the moved job started. So nothing is moved
//!   for a job that was moved, or asked to leave, for it: the one has run since.
//! - Work that is lost by a move is not more than what the waiting workload could have
//!   done while it waited, or in [`WORTH_MS`]: waiting longer would cost more.
//! - Nothing restarts elsewhere that might then evict the workload that it made room for.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::reclaim::Claimant;
use super::room::{Evictor, Room, Wanted, useful_nodes};
use crate::model::{
    Eviction, EvictionReason, Movable, PodPlacement, Replacement, Right, Running, UnitMs, Units,
};
use crate::placement::Cluster;
use crate::queue::tree::Tree;

/// Workloads for which moves are looked for in one cycle.
pub(super) const SEARCHES: u32 = 8;

/// Moves, or pairs of them, that are tried for one workload.
const TRIES: usize = 512;

/// So much of a waiting workload's time is worth a move at once, in milliseconds.
const WORTH_MS: i64 = 60_000;

/// Where a job goes that is moved.
#[derive(Clone, Debug)]
struct Moved {
    running: usize,
    shape: usize,
    to: Vec<PodPlacement>,
}

/// What a move costs; the least is made. Of equals, the smaller job moves, then the one that was admitted last.
type Price<'a> = (UnitMs, Units, Reverse<i64>, &'a str);

impl<'a> Evictor<'a> {
    /// Room for a workload that fits nowhere, by moving one or two jobs. Nothing is moved before [`Evictor::ask`].
    pub fn rearrange(&mut self, wanted: Wanted, cluster: &mut Cluster<'a>, tree: &Tree<'a>) -> Option<Room> {
        let moves = self.snapshot.moves_left.saturating_sub(self.moves);
        if !self.snapshot.settings.defragmentation || moves == 0 || self.move_searches == 0 {
            return None;
        }
        let movable = self.movable(wanted, cluster, tree);
        if movable.is_empty() {
            return None;
        }
        self.move_searches -= 1;
        let single = movable.iter().take(TRIES).map(|(_, at)| vec![*at]);
        let found = single.into_iter().find_map(|set| self.attempt(wanted, &set, cluster));
        if found.is_some() || moves < 2 {
            return found;
        }
        self.pairs(&movable).into_iter().take(TRIES).find_map(|set| self.attempt(wanted, &set, cluster))
    }

    /// What may be moved for a workload, cheapest first.
    fn movable(&self, wanted: Wanted, cluster: &mut Cluster<'a>, tree: &Tree<'a>) -> Vec<(Price<'a>, usize)> {
        let workload = &self.snapshot.waiting[wanted.workload];
        let by = Claimant {
            tenant: wanted.tenant,
            priority: workload.priority,
            units: wanted.units,
            demands: None,
        };
        let waited_ms = self.now_ms.saturating_sub(workload.queued_ms).max(WORTH_MS);
        let worth = wanted.units.saturating_mul(u64::try_from(waited_ms).unwrap_or(0));
        let useful = useful_nodes(self.snapshot, self.shapes, self.shapes.shape_of[wanted.workload], cluster);
        let may = |at: &usize| {
            let running = &self.snapshot.running[*at];
            let there = |pod: &PodPlacement| useful.get(pod.node.0 as usize) == Some(&true);
            let in_kind = match running.movable {
                Movable::No => false,
                Movable::Restart => {
                    running.lost(self.now_ms) <= worth && !self.rights.could_take_back(by, running, tree)
                }
                Movable::Replace => {
                    let left = tree.find(&running.tenant).map(|of| tree.tightest_for_others(of));
                    let enough = left.is_some_and(|left| left.is_none_or(|left| left.left >= running.units));
                    running.pods.len() == 1 && enough
                }
            };
            in_kind
                && running.right == Right::Ordinary
                && running.admitted_ms < workload.queued_ms
                && !self.is_asked(*at)
                && self.shape(*at).is_some()
                && running.pods.iter().any(there)
        };
        let price = |at: usize| {
            let Running { units, admitted_ms, ref key, movable, .. } = self.snapshot.running[at];
            let lost =
                if movable == Movable::Restart { self.snapshot.running[at].lost(self.now_ms) } else { 0 };
            ((lost, units, Reverse(admitted_ms), key.as_str()), at)
        };
        let mut movable: Vec<_> = (0..self.snapshot.running.len()).filter(may).map(price).collect();
        movable.sort_unstable();
        movable
    }

    /// Pairs on one node, cheapest first.
    fn pairs(&self, movable: &[(Price<'a>, usize)]) -> Vec<Vec<usize>> {
        let nodes = |at: usize| self.snapshot.running[at].pods.iter().map(|pod| pod.node);
        let mut pairs = Vec::new();
        for (index, (one, first)) in movable.iter().enumerate() {
            let on: BTreeSet<_> = nodes(*first).collect();
            let others = movable[index + 1..]
                .iter()
                .filter(|(_, second)| nodes(*second).any(|node| on.contains(&node)));
            for (other, second) in others.take(TRIES) {
                let sum = (one.0.saturating_add(other.0), one.1.saturating_add(other.1));
                pairs.push((sum, *first, *second));
            }
            if pairs.len() > TRIES {
                break;
            }
        }
        pairs.sort_by_key(|(sum, ..)| *sum);
        pairs.into_iter().map(|(_, first, second)| vec![first, second]).collect()
    }

    /// Room made by moving just these, if that makes any.
    fn attempt(&self, wanted: Wanted, set: &[usize], cluster: &mut Cluster<'a>) -> Option<Room> {
        let shape = self.shapes.shape_of[wanted.workload];
        let gone: Vec<usize> = self.leaving.iter().chain(set).copied().collect();
        let (pods, units) = self.place_without(wanted.workload, &gone, cluster)?;
        if !cluster.close(shape, &pods) {
            return None;
        }
        let moved = self.elsewhere(set, cluster);
        cluster.open(shape, &pods);
        let moved = moved?;
        let by = wanted.workload;
        let (mut evictions, mut replacements) = (Vec::new(), Vec::new());
        for Moved { running, to, .. } in &moved {
            let of = &self.snapshot.running[*running];
            if of.movable == Movable::Restart {
                let lost = of.lost(self.now_ms);
                evictions.push(Eviction { running: *running, by, reason: EvictionReason::Moved, lost });
            } else {
                let to = to.first()?.clone();
                replacements.push(Replacement { running: *running, pod: 0, to, by });
            }
        }
        Some(Room {
            pods,
            units,
            evictions,
            replacements,
            elsewhere: moved.into_iter().map(|Moved { shape, to, .. }| (shape, to)).collect(),
        })
    }

    /// Places for all of these besides the one that is closed for the workload: for those that are replaced while
    /// they all still are where they are, for the others once these have left.
    fn elsewhere(&self, set: &[usize], cluster: &mut Cluster<'a>) -> Option<Vec<Moved>> {
        let restarts = |at: &usize| self.snapshot.running[*at].movable == Movable::Restart;
        let (restarted, replaced): (Vec<usize>, Vec<usize>) = set.iter().partition(|at| restarts(at));
        let mut moved = Vec::new();
        let mut placed = Vec::new();
        let mut put = |running: usize, cluster: &mut Cluster<'a>| {
            let Some(shape) = self.shape(running) else { return false };
            let again = self.snapshot.running[running].as_workload();
            let Some(there) = cluster.place_workload(shape, &again) else { return false };
            moved.push(Moved { running, shape, to: there.pods.clone() });
            placed.push((shape, there));
            true
        };
        let all_replaced = replaced.iter().all(|at| put(*at, cluster));
        for at in &restarted {
            cluster.release(*at);
        }
        let complete = all_replaced && restarted.iter().all(|at| put(*at, cluster));
        for (shape, there) in placed.into_iter().rev() {
            cluster.take_back(shape, there);
        }
        for at in &restarted {
            cluster.restore(*at);
        }
        complete.then_some(moved)
    }

    fn shape(&self, running: usize) -> Option<usize> {
        self.shapes.index_of.get(self.snapshot.running[running].shape).copied()
    }
}
