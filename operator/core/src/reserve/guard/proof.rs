//! One proof: at one time, places for everything that is promised then, among
//! what is certainly still there. What is promised, and what stays, is given.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{PodPlacement, ReservedShape, Snapshot, Units, Workload};
use crate::placement::{Cluster, Placed, Shapes};

/// Places for what is promised at a time.
#[derive(Debug)]
pub(super) struct Proof<'a> {
    shapes: &'a Shapes<'a>,
    /// What has left by this time, in milliseconds since 1970, is not in the way.
    pub by_ms: i64,
    /// What of that which runs is not in the way, by index.
    gone: Vec<bool>,
    /// The cluster with what stays, what is given in this cycle and stays, and what is promised.
    cluster: Cluster<'a>,
    /// What is promised, pod by pod, the largest first.
    promised: Vec<Promise>,
}

/// A pod that is promised.
#[derive(Debug)]
struct Promise {
    /// Its shape, among those of the snapshot.
    of: usize,
    /// Whether somebody has taken what was promised.
    kept: bool,
    placed: Option<Placed>,
}

/// What [`Proof::change`] did.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// What was put there.
    put: Option<Placed>,
    /// The promises that were taken.
    taken: BTreeSet<usize>,
    /// Those that got other places, and where they were.
    moved: BTreeSet<usize>,
    before: Vec<(usize, Vec<PodPlacement>)>,
}

impl<'a> Proof<'a> {
    pub fn of(
        snapshot: &'a Snapshot,
        shapes: &'a Shapes<'a>,
        by_ms: i64,
        stays: impl Fn(usize) -> bool,
        wanted: &[ReservedShape],
    ) -> Self {
        let gone: Vec<bool> = (0..snapshot.running.len()).map(|at| !stays(at)).collect();
        let mut cluster = Cluster::new(snapshot, shapes, false);
        (0..gone.len()).filter(|at| gone[*at]).for_each(|at| cluster.release(at));
        let known = wanted.iter().filter(|shape| shape.shape < shapes.index_of.len());
        let pods = known.flat_map(|shape| (0..shape.count).map(|_| shape.shape));
        let mut promised: Vec<Promise> = pods.map(|of| Promise { of, kept: true, placed: None }).collect();
        let units = |of: usize| super::least_units(shapes, shapes.index_of[of]);
        promised.sort_by_key(|promise| (std::cmp::Reverse(units(promise.of)), promise.of));
        let mut proof = Self { shapes, by_ms, gone, cluster, promised };
        proof.place(0..proof.promised.len());
        proof
    }

    /// Counts something that runs as about to leave, or as there again; what is put where it was has to be undone before.
    pub fn let_go(&mut self, running: usize, away: bool) {
        if self.gone[running] != away {
            self.gone[running] = away;
            if away { self.cluster.release(running) } else { self.cluster.restore(running) }
        }
    }

    /// What is promised and has no place: shapes of the snapshot, with how many.
    pub fn missing(&self) -> Vec<ReservedShape> {
        let mut missing: BTreeMap<usize, u32> = BTreeMap::new();
        for promise in self.promised.iter().filter(|promise| promise.kept && promise.placed.is_none()) {
            *missing.entry(promise.of).or_default() += 1;
        }
        missing.into_iter().map(|(shape, count)| ReservedShape { shape, count }).collect()
    }

    /// The shapes, as the cluster numbers them, and places of what is promised.
    pub fn places(&self) -> impl Iterator<Item = (usize, &[PodPlacement])> {
        self.promised.iter().filter_map(|promise| {
            Some((self.shapes.index_of[promise.of], promise.placed.as_ref()?.pods.as_slice()))
        })
    }

    /// Puts something there that stays, and ends the promises `ends` (shapes of the snapshot), which it takes; `None`,
    /// and nothing is changed, if fewer of the other promises would have places than now.
    pub fn change(&mut self, shape: usize, pods: &[PodPlacement], ends: &[usize]) -> Option<Change> {
        let taken = self.positions(ends, false);
        for at in &taken {
            self.promised[*at].kept = false;
        }
        let nodes: BTreeSet<_> = pods.iter().map(|pod| pod.node).collect();
        let near = |promise: &Promise| {
            let placed = promise.placed.as_ref();
            placed.is_some_and(|placed| placed.pods.iter().any(|pod| nodes.contains(&pod.node)))
        };
        let all = || 0..self.promised.len();
        let near: BTreeSet<usize> =
            all().filter(|at| taken.contains(at) || near(&self.promised[*at])).collect();
        let all: BTreeSet<usize> = all().collect();
        let enough = self.deliverable();
        // Those on the same nodes find other places nearly always; if not, all are placed anew.
        for moved in [near, all] {
            let before = self.lift(&moved);
            let put = if pods.is_empty() { Some(Placed::default()) } else { self.cluster.claim(shape, pods) };
            let fits = put.is_some();
            if fits {
                self.place(moved.iter().copied());
            }
            let change = Change { put, taken: BTreeSet::new(), moved, before };
            if fits && enough.iter().all(|(of, count)| self.deliverable().get(of) >= Some(count)) {
                return Some(Change { taken, ..change });
            }
            self.undo(shape, change);
        }
        for at in taken {
            self.promised[at].kept = true;
        }
        None
    }

    /// Undoes a change, the last first.
    pub fn undo(&mut self, shape: usize, change: Change) {
        let Change { put, taken, moved, before } = change;
        let _ = self.lift(&moved);
        if let Some(put) = put {
            self.cluster.take_back(shape, put);
        }
        for at in taken {
            self.promised[at].kept = true;
        }
        self.put_back(before);
    }

    /// A place for a workload instead of the promises `ends`, and what it is charged there.
    pub fn place_instead(
        &mut self,
        shape: usize,
        workload: &Workload,
        ends: &[usize],
    ) -> Option<(Vec<PodPlacement>, Units)> {
        let taken = self.positions(ends, true);
        let before = self.lift(&taken);
        let found = self.cluster.place_workload(shape, workload).map(|placed| {
            let place = (placed.pods.clone(), placed.units);
            self.cluster.take_back(shape, placed);
            place
        });
        self.put_back(before);
        found
    }

    /// Takes promises off their places; says where they were.
    fn lift(&mut self, which: &BTreeSet<usize>) -> Vec<(usize, Vec<PodPlacement>)> {
        let mut before = Vec::new();
        for at in which {
            let of = self.shapes.index_of[self.promised[*at].of];
            if let Some(placed) = self.promised[*at].placed.take() {
                before.push((*at, placed.pods.clone()));
                self.cluster.take_back(of, placed);
            }
        }
        before
    }

    fn put_back(&mut self, before: Vec<(usize, Vec<PodPlacement>)>) {
        for (at, pods) in before {
            let of = self.shapes.index_of[self.promised[at].of];
            self.promised[at].placed = self.cluster.claim(of, &pods);
            debug_assert!(self.promised[at].placed.is_some(), "what was there a moment ago fits there");
        }
    }

    /// Gives promises places that have none.
    fn place(&mut self, which: impl Iterator<Item = usize>) {
        let pod = Workload { pods: 1, ..Workload::default() };
        for at in which {
            let promise = &mut self.promised[at];
            if promise.kept && promise.placed.is_none() {
                promise.placed = self.cluster.place_workload(self.shapes.index_of[promise.of], &pod);
            }
        }
    }

    /// How many of each promised shape have places.
    fn deliverable(&self) -> BTreeMap<usize, usize> {
        let mut count = BTreeMap::new();
        for promise in self.promised.iter().filter(|promise| promise.kept && promise.placed.is_some()) {
            *count.entry(promise.of).or_default() += 1;
        }
        count
    }

    /// For each shape one promise of it, first those that have places or those that have none.
    fn positions(&self, ends: &[usize], placed_first: bool) -> BTreeSet<usize> {
        let mut taken = BTreeSet::new();
        for shape in ends {
            let of = |at: &usize| {
                let promise = &self.promised[*at];
                promise.kept && promise.of == *shape && !taken.contains(at)
            };
            let has_place = |at: &usize| self.promised[*at].placed.is_some() != placed_first;
            let found = (0..self.promised.len()).filter(of).min_by_key(has_place);
            taken.extend(found);
        }
        taken
    }
}
