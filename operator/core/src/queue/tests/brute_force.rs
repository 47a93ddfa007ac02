//! What fits, found by trying everything: shares no code with the planner and
//! is slow. For a few small nodes only.

use std::collections::BTreeMap;

use crate::model::{Gpu, Node, NodeIndex, PodShape, Resources, Snapshot};

/// A cluster in which devices are held one by one.
#[derive(Clone, Debug)]
pub struct Exhaustive<'a> {
    snapshot: &'a Snapshot,
    emptied: bool,
    pub used: Vec<Vec<u64>>,
    pub requested: Vec<Resources>,
}

impl<'a> Exhaustive<'a> {
    pub fn new(snapshot: &'a Snapshot, emptied: bool) -> Self {
        let zero = |gpu: &Gpu| if emptied { vec![0; gpu.capacity.len()] } else { gpu.used.clone() };
        let none = |node: &Node| if emptied { Resources::default() } else { node.requested.clone() };
        let used = snapshot.gpus.iter().map(zero).collect();
        Self { snapshot, emptied, used, requested: snapshot.nodes.iter().map(none).collect() }
    }

    /// How many pods of `shape` fit, over all nodes, at most `limit` on each.
    pub fn pods(&self, shape: &PodShape, by_devices: bool, limit: u32) -> u32 {
        let nodes = 0..u32::try_from(self.snapshot.nodes.len()).unwrap();
        nodes.map(|node| self.pods_on(NodeIndex(node), shape, by_devices, limit)).sum()
    }

    /// How many fit on one node, at most `limit`.
    pub fn pods_on(&self, node: NodeIndex, shape: &PodShape, by_devices: bool, limit: u32) -> u32 {
        let limit = if by_devices { limit } else { limit.min(self.pods_by_node(node, shape)) };
        let gpus: Vec<usize> =
            (0..self.snapshot.gpus.len()).filter(|gpu| self.snapshot.gpus[*gpu].node == node).collect();
        let wanted: Vec<usize> = shape
            .requests
            .iter()
            .flat_map(|request| std::iter::repeat_n(request.eligible, request.count as usize))
            .collect();
        if wanted.is_empty() {
            return limit;
        }
        let used: Vec<Vec<u64>> = gpus.iter().map(|gpu| self.used[*gpu].clone()).collect();
        let most = self.most(&gpus, used, &wanted, 0, limit as usize * wanted.len(), &mut BTreeMap::new());
        u32::try_from(most / wanted.len()).unwrap()
    }

    /// The most devices that can be taken in the order of `wanted`, over and over again.
    fn most(
        &self,
        gpus: &[usize],
        used: Vec<Vec<u64>>,
        wanted: &[usize],
        at: usize,
        limit: usize,
        known: &mut BTreeMap<(Vec<Vec<u64>>, usize), usize>,
    ) -> usize {
        if limit == 0 {
            return 0;
        }
        let key = (used, at);
        if let Some(most) = known.get(&key) {
            return *most;
        }
        let mut best = 0;
        for (slot, gpu) in gpus.iter().enumerate() {
            let set = self.snapshot.device_sets[wanted[at]].0[*gpu];
            let gpu = &self.snapshot.gpus[*gpu];
            for (bit, device) in gpu.devices.iter().enumerate() {
                let open = self.emptied || !(gpu.blocked || device.tainted);
                let sum: Vec<u64> = key.0[slot].iter().zip(&device.consumes).map(|(a, b)| a + b).collect();
                let fits = sum.iter().zip(&gpu.capacity).all(|(sum, all)| sum <= all);
                if set & 1 << bit == 0 || !open || !fits {
                    continue;
                }
                let mut after = key.0.clone();
                after[slot] = sum;
                let next = (at + 1) % wanted.len();
                best = best.max(1 + self.most(gpus, after, wanted, next, limit - 1, known));
            }
        }
        known.insert(key, best);
        best
    }

    fn pods_by_node(&self, node: NodeIndex, shape: &PodShape) -> u32 {
        let is = &self.snapshot.nodes[node.0 as usize];
        let tolerated = |key: &String| shape.tolerations.iter().any(|t| t.key.as_ref() == Some(key));
        let kept_away = is.taints.iter().any(|taint| !tolerated(&taint.key));
        let elsewhere = shape.pinned.as_ref().is_some_and(|pinned| *pinned != is.name);
        if kept_away || elsewhere || !(is.schedulable || self.emptied) {
            return 0;
        }
        let requested = &self.requested[node.0 as usize];
        let times = |all: u64, held: u64, need: u64| {
            all.saturating_sub(held).checked_div(need).map_or(u32::MAX, |times| u32::try_from(times).unwrap())
        };
        let (all, need) = (&is.allocatable, &shape.resources);
        times(all.cpu_milli, requested.cpu_milli, need.cpu_milli).min(times(
            all.pods,
            requested.pods,
            need.pods,
        ))
    }
}
