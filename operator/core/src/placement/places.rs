//! The cluster of a cycle without its order and its quotas: pods are placed
//! and leave one by one. For what measures or plays with single decisions.

use std::collections::BTreeSet;

use super::cluster::{Cluster, Placed};
use super::demand::Shapes;
use crate::model::{PodPlacement, Snapshot};
use crate::policy::Scorer;

/// A cluster in which pods are placed one by one.
#[derive(Debug)]
pub struct Places<'a, 'c>(&'c mut Cluster<'a>);

/// Pods in their places.
#[derive(Debug)]
pub struct Seat {
    shape: usize,
    placed: Placed,
}

/// Calls `then` with the cluster of `snapshot`, as it is at the start of a cycle in which places are weighed by
/// `scorer`.
pub fn with_places<R>(
    snapshot: &Snapshot,
    scorer: &Scorer,
    then: impl FnOnce(&mut Places<'_, '_>) -> R,
) -> R {
    let shapes = Shapes::with(snapshot, scorer.clone());
    then(&mut Places(&mut Cluster::new(snapshot, &shapes, false)))
}

impl Places<'_, '_> {
    /// Places `pods` pods of a shape of the snapshot, if all of them fit; `None`, too, if there is no such shape.
    pub fn place(&mut self, shape: usize, pods: u32) -> Option<Seat> {
        let shape = *self.0.shapes.index_of.get(shape)?;
        let placed = self.0.place(shape, pods, &BTreeSet::new())?;
        Some(Seat { shape, placed })
    }

    /// The same, with nothing known from earlier pods of the shape.
    pub fn place_anew(&mut self, shape: usize, pods: u32) -> Option<Seat> {
        let known = *self.0.shapes.index_of.get(shape)?;
        self.0.forget(known);
        self.place(shape, pods)
    }

    /// Makes free again what was placed.
    pub fn leave(&mut self, seat: Seat) {
        self.0.take_back(seat.shape, seat.placed);
    }
}

impl Seat {
    /// Where the pods are.
    pub fn pods(&self) -> &[PodPlacement] {
        &self.placed.pods
    }
}
