//! What is kept for workloads that wait: places, and units under the limits of
//! their tenants. Others get neither, unless they have ended by the time at which
//! what is kept is free. Which place is worth keeping is not decided here.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::Tree;
use super::way::Load;
use crate::model::{NodeIndex, PodPlacement, Reservation, Right, Units};
use crate::placement::Cluster;

/// What is kept for one workload.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The workload: index into the snapshot's waiting.
    pub workload: usize,
    pub tenant: usize,
    pub shape: usize,
    /// Its place; empty if units are held back only.
    pub pods: Vec<PodPlacement>,
    pub units: Units,
    /// What it takes there.
    pub load: Load,
    /// Who has to be gone before.
    pub way: BTreeSet<usize>,
    /// When all of it is free at the latest, if that is known.
    pub free_ms: Option<i64>,
    /// How many that are in the way have been asked to leave.
    pub leaving: u32,
    /// How many that are in the way will end by themselves.
    pub ending: u32,
    /// Whether it is to be told as a reservation: not if its workload has started, or can't for other reasons.
    pub stands: bool,
    /// As what its workload runs if it starts there.
    pub right: Right,
}

impl Kept {
    fn count(&self, tree: &mut Tree<'_>) {
        if self.pods.is_empty() {
            tree.hold_back(self.tenant, self.units);
        } else {
            tree.keep(self.tenant, self.units);
        }
    }

    /// Whether nobody is in the way.
    pub fn is_free(&self) -> bool {
        self.leaving == 0 && self.ending == 0
    }

    /// Whether one that ends then is gone in time.
    fn outlasts(&self, end_ms: i64) -> bool {
        self.stands && self.free_ms.is_some_and(|free_ms| free_ms >= end_ms)
    }
}

/// All that is kept during a cycle.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    kept: Vec<Kept>,
    of: BTreeMap<usize, usize>,
}

impl Keeper {
    /// Keeps this from now on; `false`, and nothing is changed, if its place can't be closed.
    pub fn add(&mut self, kept: Kept, cluster: &mut Cluster<'_>, tree: &mut Tree<'_>) -> bool {
        if !cluster.close(kept.shape, &kept.pods) {
            return false;
        }
        kept.count(tree);
        self.of.insert(kept.workload, self.kept.len());
        self.kept.push(kept);
        true
    }

    /// What is kept for a workload.
    pub fn of(&self, workload: usize) -> Option<usize> {
        self.of.get(&workload).copied()
    }

    pub fn get(&self, at: usize) -> &Kept {
        &self.kept[at]
    }

    /// The places that are still wanted, in the order in which they were first kept.
    pub fn standing(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(|kept| kept.stands && !kept.pods.is_empty())
    }

    /// Those of them that were promised theirs before one.
    pub fn before(&self, at: usize) -> impl Iterator<Item = &Kept> {
        self.kept[..at].iter().filter(|kept| kept.stands && !kept.pods.is_empty())
    }

    /// Those that wait for something to end that nobody asked to leave.
    pub fn drains(&self) -> usize {
        self.standing().filter(|kept| kept.ending > 0).count()
    }

    /// Lets its workload have it.
    pub fn open(&self, at: usize, cluster: &mut Cluster<'_>, tree: &mut Tree<'_>) {
        let kept = &self.kept[at];
        cluster.open(kept.shape, &kept.pods);
        if kept.pods.is_empty() {
            tree.let_go(kept.tenant, kept.units);
        } else {
            tree.unkeep(kept.tenant, kept.units);
        }
    }

    /// After [`Keeper::open`], what its tenants may still hold besides what is kept for those who were promised theirs
    /// before it. The others were promised theirs on top of what it gets.
    pub fn left_for(&self, at: usize, tree: &mut Tree<'_>) -> Units {
        let later = || self.kept[at + 1..].iter().filter(|kept| !kept.pods.is_empty());
        for kept in later() {
            tree.unkeep(kept.tenant, kept.units);
        }
        let left =
            tree.tightest_besides_kept(self.kept[at].tenant).map_or(Units::MAX, |tightest| tightest.left);
        for kept in later() {
            tree.keep(kept.tenant, kept.units);
        }
        left
    }

    /// Undoes [`Keeper::open`].
    pub fn close(&self, at: usize, cluster: &mut Cluster<'_>, tree: &mut Tree<'_>) {
        let kept = &self.kept[at];
        let closed = cluster.close(kept.shape, &kept.pods);
        debug_assert!(closed, "what was open before it was kept can be closed again");
        kept.count(tree);
    }

    /// After [`Keeper::open`], its workload has started: just there, or elsewhere. A place that it does not use
    /// stays closed for the rest of the cycle, so that what was said to others of what they lack stays true.
    pub fn started(&mut self, at: usize, there: bool, cluster: &mut Cluster<'_>) {
        let kept = &mut self.kept[at];
        kept.stands = false;
        kept.units = 0;
        if there {
            kept.pods.clear();
        } else {
            cluster.close(kept.shape, &kept.pods);
        }
    }

    /// It is kept no longer than this cycle.
    pub fn give_up(&mut self, at: usize) {
        self.kept[at].stands = false;
    }

    /// Those that one that ends at `end_ms` does not delay.
    pub fn outlasting(&self, end_ms: i64) -> Vec<usize> {
        (0..self.kept.len()).filter(|at| self.kept[*at].outlasts(end_ms)).collect()
    }

    /// Whether any place is closed.
    pub fn has_places(&self) -> bool {
        self.kept.iter().any(|kept| !kept.pods.is_empty())
    }

    /// Opens the places on these nodes that others than `but` have; they are the ones to close again. Two that are
    /// kept never overlap, but what is in the way of the one may hide where the other is free.
    pub fn open_on(
        &self,
        pods: &[PodPlacement],
        but: Option<usize>,
        cluster: &mut Cluster<'_>,
    ) -> Vec<usize> {
        let nodes: BTreeSet<NodeIndex> = pods.iter().map(|pod| pod.node).collect();
        let shares = |kept: &Kept| kept.pods.iter().any(|pod| nodes.contains(&pod.node));
        let opened: Vec<usize> =
            (0..self.kept.len()).filter(|at| Some(*at) != but && shares(&self.kept[*at])).collect();
        for at in &opened {
            cluster.open(self.kept[*at].shape, &self.kept[*at].pods);
        }
        opened
    }

    /// Undoes [`Keeper::open_on`] and [`Keeper::open_places`].
    pub fn close_again(&self, opened: &[usize], cluster: &mut Cluster<'_>) {
        for at in opened {
            cluster.close(self.kept[*at].shape, &self.kept[*at].pods);
        }
    }

    /// Opens all places; they are the ones to close again.
    pub fn open_places(&self, cluster: &mut Cluster<'_>) -> Vec<usize> {
        for kept in &self.kept {
            cluster.open(kept.shape, &kept.pods);
        }
        (0..self.kept.len()).collect()
    }

    /// The places that are kept for workloads that go on waiting, those first kept first.
    pub fn reservations(&self) -> Vec<Reservation> {
        let reservation = |kept: &Kept| Reservation {
            workload: kept.workload,
            pods: kept.pods.clone(),
            free_ms: kept.free_ms,
            right: kept.right.clone(),
        };
        self.standing().map(reservation).collect()
    }
}
