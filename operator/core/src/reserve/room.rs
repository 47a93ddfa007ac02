//! Whether shapes fit into a pool that is empty: how orders are answered. Where
//! a workload is placed in the cluster as it is, is not decided here.

use std::collections::{BTreeMap, BTreeSet};

use super::Fits;
use crate::model::{Gpu, ReservedShape, UNITS_PER_GPU, Units};

/// What one pod of a shape needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// So many whole GPUs of a node.
    Gpus(u32),
    /// A partition, by its profile.
    Profile(String),
}

/// An empty pool.
#[derive(Clone, Debug)]
pub struct Room<'a> {
    /// By node.
    gpus: BTreeMap<&'a str, Vec<&'a Gpu>>,
    /// Nodes that are out for announced maintenance: from when until when, in milliseconds since 1970.
    out: Vec<(&'a str, i64, i64)>,
    shapes: Vec<Shape>,
}

impl<'a> Room<'a> {
    /// The room of these nodes' GPUs, where these nodes are out at times.
    pub fn of(gpus: BTreeMap<&'a str, Vec<&'a Gpu>>, out: Vec<(&'a str, i64, i64)>) -> Self {
        Self { gpus, out, shapes: Vec::new() }
    }

    /// The number by which a shape is named here.
    pub fn number(&mut self, wanted: Shape) -> usize {
        self.shapes.iter().position(|known| *known == wanted).unwrap_or_else(|| {
            self.shapes.push(wanted);
            self.shapes.len() - 1
        })
    }

    /// What a partition of a profile is charged.
    fn charge(&self, profile: &str) -> Option<Units> {
        let mut devices = self.gpus.values().flatten().flat_map(|gpu| gpu.devices.iter());
        devices.find(|device| device.kind == profile).map(|device| device.units)
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
        let during = self.out.iter().filter(|(_, from_ms, until_ms)| (*from_ms..*until_ms).contains(&at_ms));
        let out: BTreeSet<&str> = during.map(|(node, ..)| *node).collect();
        let nodes = self.gpus.iter().filter(|(node, _)| !out.contains(*node));
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
