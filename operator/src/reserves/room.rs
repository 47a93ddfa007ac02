//! Whether shapes fit into a pool that is empty: how orders are answered. Where
//! a workload is placed is not decided here.

use std::collections::BTreeMap;

use vingt_core::model::{Gpu, ReservedShape, UNITS_PER_GPU, Units};
use vingt_core::reserve::Fits;
use vingt_crds::{ReserveShape, SovereignReserve};

use super::pools::{Pool, in_maintenance};
use crate::snapshot::layout::Layout;

/// What one pod of a shape needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    /// So many whole GPUs of a node.
    Gpus(u32),
    /// A partition.
    Profile(String),
}

/// An empty pool.
#[derive(Debug)]
pub struct Room<'a> {
    reserve: &'a SovereignReserve,
    /// By node.
    gpus: BTreeMap<&'a str, Vec<&'a Gpu>>,
    shapes: Vec<Shape>,
}

impl<'a> Room<'a> {
    /// The room of a pool, by what is published of it.
    pub fn of(pool: &'a Pool, layout: &'a Layout) -> Self {
        let mut gpus: BTreeMap<&str, Vec<&Gpu>> = BTreeMap::new();
        for gpu in &layout.gpus {
            let node = layout.nodes.get(gpu.node.0 as usize).filter(|node| pool.nodes.contains(*node));
            if let Some(node) = node {
                gpus.entry(node).or_default().push(gpu);
            }
        }
        Self { reserve: &pool.reserve, gpus, shapes: Vec::new() }
    }

    /// The same pool, to number more shapes.
    pub fn clone_shapes(&self) -> Self {
        Self { reserve: self.reserve, gpus: self.gpus.clone(), shapes: self.shapes.clone() }
    }

    /// The shapes in the core's words.
    pub fn shapes(&mut self, shapes: &[ReserveShape]) -> Vec<ReservedShape> {
        let number = |shape: &ReserveShape| {
            let wanted = match (&shape.profile, shape.gpus) {
                (Some(profile), _) => Shape::Profile(profile.clone()),
                (None, gpus) => Shape::Gpus(gpus.unwrap_or(1)),
            };
            let at = self.shapes.iter().position(|known| *known == wanted).unwrap_or_else(|| {
                self.shapes.push(wanted);
                self.shapes.len() - 1
            });
            ReservedShape { shape: at, count: shape.count }
        };
        shapes.iter().map(number).collect()
    }

    /// What can be had of a GPU's profile.
    fn charge(&self, kind: &str) -> Option<Units> {
        let mut devices = self.gpus.values().flatten().flat_map(|gpu| gpu.devices.iter());
        devices.find(|device| device.kind == kind).map(|device| device.units)
    }
}

impl Fits for Room<'_> {
    fn name(&self, shape: usize) -> String {
        match self.shapes.get(shape) {
            Some(Shape::Profile(profile)) => profile.clone(),
            Some(Shape::Gpus(1)) => "GPU".to_owned(),
            Some(Shape::Gpus(gpus)) => format!("{gpus} GPUs of a node"),
            None => "nothing".to_owned(),
        }
    }

    fn units(&self, shape: usize) -> Option<Units> {
        match self.shapes.get(shape)? {
            Shape::Profile(profile) => self.charge(profile),
            Shape::Gpus(gpus) => {
                let there = self.gpus.values().any(|node| node.len() >= *gpus as usize);
                there.then(|| Units::from(*gpus) * UNITS_PER_GPU)
            }
        }
    }

    fn fits(&self, shapes: &[ReservedShape], at_ms: i64) -> bool {
        let out: Vec<&String> = in_maintenance(self.reserve, at_ms).collect();
        let nodes = self.gpus.iter().filter(|(node, _)| !out.iter().any(|out| out == *node));
        let mut free = Free::of(nodes.map(|(_, gpus)| gpus.as_slice()));
        let mut wanted: Vec<(Units, &Shape, u32)> = Vec::new();
        for shape in shapes.iter().filter(|shape| shape.count > 0) {
            let (Some(units), Some(of)) = (self.units(shape.shape), self.shapes.get(shape.shape)) else {
                return false;
            };
            wanted.push((units, of, shape.count));
        }
        let all: u64 = wanted.iter().map(|(units, _, count)| units.saturating_mul(u64::from(*count))).sum();
        if all / 2 > free.units() {
            return false;
        }
        // The largest first: what is left is cut for the smaller ones.
        wanted.sort_by(|a, b| b.cmp(a));
        wanted.into_iter().all(|(_, shape, count)| (0..count).all(|_| free.take(shape)))
    }
}

/// What is free of a pool that is being filled.
struct Free<'a> {
    /// The empty GPUs of each node.
    empty: Vec<Vec<&'a Gpu>>,
    /// GPUs that are cut, with what is left of their counters.
    cut: Vec<(&'a Gpu, Vec<u64>)>,
}

impl<'a> Free<'a> {
    fn of<'b>(nodes: impl Iterator<Item = &'b [&'a Gpu]>) -> Self
    where
        'a: 'b,
    {
        Self { empty: nodes.map(<[&Gpu]>::to_vec).collect(), cut: Vec::new() }
    }

    fn units(&self) -> Units {
        self.empty.iter().map(Vec::len).sum::<usize>() as u64 * UNITS_PER_GPU
    }

    fn take(&mut self, shape: &Shape) -> bool {
        match shape {
            Shape::Gpus(gpus) => {
                let gpus = *gpus as usize;
                // From the node that has the least left over.
                let nodes = self.empty.iter_mut().filter(|node| node.len() >= gpus);
                let Some(node) = nodes.min_by_key(|node| node.len()) else { return false };
                node.truncate(node.len() - gpus);
                true
            }
            Shape::Profile(profile) => {
                if self.cut.iter_mut().any(|(gpu, left)| cut(gpu, left, profile)) {
                    return true;
                }
                let of_it = |gpu: &Gpu| gpu.devices.iter().any(|device| device.kind == *profile);
                let nodes = self.empty.iter_mut().filter(|node| node.iter().any(|gpu| of_it(gpu)));
                let Some(node) = nodes.min_by_key(|node| node.len()) else { return false };
                let Some(at) = node.iter().position(|gpu| of_it(gpu)) else { return false };
                let gpu = node.remove(at);
                let mut left = gpu.capacity.clone();
                let fits = cut(gpu, &mut left, profile);
                self.cut.push((gpu, left));
                fits
            }
        }
    }
}

/// Takes a partition out of what is left of a GPU, if there is one.
fn cut(gpu: &Gpu, left: &mut [u64], profile: &str) -> bool {
    let fitting = gpu.devices.iter().find(|device| {
        device.kind == profile && device.consumes.iter().zip(left.iter()).all(|(takes, left)| takes <= left)
    });
    let Some(device) = fitting else { return false };
    for (left, takes) in left.iter_mut().zip(&device.consumes) {
        *left -= takes;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reserves::pools::tests::pool_of;

    fn shape(profile: Option<&str>, gpus: Option<u32>, count: u32) -> ReserveShape {
        ReserveShape { profile: profile.map(str::to_owned), gpus, count }
    }

    #[test]
    fn what_fits_into_an_empty_pool_fits() {
        let (pool, layout) = pool_of(&[("a", 2), ("b", 1)]);
        let mut room = Room::of(&pool, &layout);
        let mut fits = |shapes: &[ReserveShape]| {
            let shapes = room.shapes(shapes);
            room.fits(&shapes, 0)
        };
        assert!(fits(&[shape(None, Some(2), 1), shape(Some("3g.40gb"), None, 2)]));
        assert!(!fits(&[shape(None, Some(2), 1), shape(Some("3g.40gb"), None, 3)]));
        assert!(!fits(&[shape(None, Some(2), 2)]), "not on one node");
        assert!(fits(&[shape(None, Some(1), 3)]));
        assert!(!fits(&[shape(Some("9g.99gb"), None, 1)]));
        let numbers = room.shapes(&[shape(None, Some(3), 1), shape(Some("9g.99gb"), None, 1)]);
        assert_eq!(numbers.iter().map(|shape| room.units(shape.shape)).collect::<Vec<_>>(), [None, None]);
    }
}
