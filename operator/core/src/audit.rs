//! An independent check of what is held: recomputes the occupancy of every GPU
//! from a list of holdings. Finds what is wrong, repairs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::{Device, Gpu, Snapshot};

/// A device that somebody holds, as found in a claim, on a node, or in a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// Who holds it; any words that tell holders apart.
    pub owner: String,
    /// The node, which is also the name of the device's pool.
    pub node: String,
    /// The name of the device in the node's slices.
    pub device: String,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// No GPU of the node has such a device.
    NoSuchDevice(Holding),
    /// One device is held more than once.
    HeldTwice {
        /// The node.
        node: String,
        /// The device.
        device: String,
        /// Who holds it, once for each time.
        owners: Vec<String>,
    },
    /// Together, the devices held on a GPU take more of a counter than there is.
    Overlap {
        /// The node.
        node: String,
        /// The GPU's counter set.
        gpu: String,
        /// Position of the counter in [`Gpu::capacity`].
        counter: usize,
        /// What the holdings take of it.
        held: u64,
        /// What there is.
        capacity: u64,
        /// Who takes some of it.
        owners: Vec<String>,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDevice(Holding { owner, node, device }) => {
                write!(f, "{owner} holds {device} on node {node}, which has no such device")
            }
            Self::HeldTwice { node, device, owners } => {
                write!(f, "{device} on node {node} is held {} times: by {}", owners.len(), owners.join(", "))
            }
            Self::Overlap { node, gpu, counter, held, capacity, owners } => write!(
                f,
                "{held} of {capacity} are held of counter {counter} of {gpu} on node {node}: by {}",
                owners.join(", ")
            ),
        }
    }
}

/// What is wrong with `holdings` on the GPUs of `snapshot`, in order; empty if
/// nothing is. What the snapshot itself counts as used plays no part.
pub fn audit(snapshot: &Snapshot, holdings: &[Holding]) -> Vec<Violation> {
    let mut known: BTreeMap<(&str, &str), (&Gpu, &Device, usize)> = BTreeMap::new();
    for (index, gpu) in snapshot.gpus.iter().enumerate() {
        let Some(node) = snapshot.nodes.get(gpu.node.0 as usize) else { continue };
        for device in &gpu.devices {
            known.insert((&node.name, &device.name), (gpu, device, index));
        }
    }
    let mut violations = Vec::new();
    let mut by_device: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let mut by_gpu: BTreeMap<usize, Vec<(&Holding, &Device)>> = BTreeMap::new();
    for holding in holdings {
        let name = (holding.node.as_str(), holding.device.as_str());
        let Some((_, device, gpu)) = known.get(&name) else {
            violations.push(Violation::NoSuchDevice(holding.clone()));
            continue;
        };
        by_device.entry(name).or_default().push(&holding.owner);
        by_gpu.entry(*gpu).or_default().push((holding, device));
    }
    for ((node, device), owners) in by_device.into_iter().filter(|(_, owners)| owners.len() > 1) {
        let owners = owners.into_iter().map(str::to_owned).collect();
        violations.push(Violation::HeldTwice { node: node.into(), device: device.into(), owners });
    }
    for (index, held) in by_gpu {
        overlaps(&snapshot.gpus[index], &held, &mut violations);
    }
    violations.sort();
    violations
}

fn overlaps(gpu: &Gpu, held: &[(&Holding, &Device)], violations: &mut Vec<Violation>) {
    for (counter, capacity) in gpu.capacity.iter().enumerate() {
        let takes = |device: &Device| device.consumes.get(counter).copied().unwrap_or(0);
        let sum = held.iter().fold(0_u64, |sum, (_, device)| sum.saturating_add(takes(device)));
        if sum > *capacity {
            let some = held.iter().filter(|(_, device)| takes(device) > 0);
            let owners: BTreeSet<String> = some.map(|(holding, _)| holding.owner.clone()).collect();
            violations.push(Violation::Overlap {
                node: held[0].0.node.clone(),
                gpu: gpu.name.clone(),
                counter,
                held: sum,
                capacity: *capacity,
                owners: owners.into_iter().collect(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
