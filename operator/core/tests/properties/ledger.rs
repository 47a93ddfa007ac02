//! Who holds what, added up device by device: shares no code with the planner.

use std::collections::BTreeMap;

use vingt_core::model::{Node, NodeIndex, Operator, PodPlacement, PodShape, Snapshot};

use super::show::{devices_of, will_do};

/// A cluster in which places are taken and given back one by one.
#[derive(Clone, Debug)]
pub struct Ledger<'a> {
    snapshot: &'a Snapshot,
    /// Of each counter of each GPU.
    used: Vec<Vec<u64>>,
    /// Thousandths of CPUs, bytes of memory, pods, on each node.
    requested: Vec<[u64; 3]>,
}

fn amounts(resources: &vingt_core::model::Resources) -> [u64; 3] {
    [resources.cpu_milli, resources.memory_bytes, resources.pods]
}

impl<'a> Ledger<'a> {
    /// What is held now.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let used = snapshot.gpus.iter().map(|gpu| gpu.used.clone()).collect();
        let requested = snapshot.nodes.iter().map(|node| amounts(&node.requested)).collect();
        Self { snapshot, used, requested }
    }

    /// As if nobody held anything.
    pub fn emptied(snapshot: &'a Snapshot) -> Self {
        let mut ledger = Self::of(snapshot);
        ledger.used.iter_mut().flatten().for_each(|used| *used = 0);
        ledger.requested.iter_mut().flatten().for_each(|amount| *amount = 0);
        ledger
    }

    /// Takes the place of a pod; says why it cannot be had.
    pub fn take(&mut self, shape: &PodShape, pod: &PodPlacement) -> Result<(), String> {
        let snapshot = self.snapshot;
        let node = snapshot.nodes.get(pod.node.0 as usize).ok_or("there is no such node")?;
        suits(node, shape)?;
        if pod.devices.len() != shape.requests.len() {
            return Err(format!("{} requests, not {}", pod.devices.len(), shape.requests.len()));
        }
        for (request, chosen) in shape.requests.iter().zip(&pod.devices) {
            if chosen.len() != request.count as usize {
                return Err(format!("{} × {}, not {}", chosen.len(), request.label, request.count));
            }
            for at in chosen {
                let gpu = snapshot.gpus.get(at.gpu.0 as usize).ok_or("there is no such GPU")?;
                let device = gpu.devices.get(usize::from(at.device)).ok_or("there is no such device")?;
                let name = format!("{} of GPU {} on {}", device.name, at.gpu.0, node.name);
                if gpu.node != pod.node {
                    return Err(format!("{name} is on another node"));
                }
                if !will_do(device, &request.label) {
                    return Err(format!("{name} is no {}", request.label));
                }
                if gpu.blocked || device.tainted {
                    return Err(format!("{name} may not be given out"));
                }
            }
        }
        self.add(shape, pod);
        for at in devices_of(pod) {
            let gpu = &snapshot.gpus[at.gpu.0 as usize];
            if self.used[at.gpu.0 as usize].iter().zip(&gpu.capacity).any(|(used, all)| used > all) {
                let name = &gpu.devices[usize::from(at.device)].name;
                return Err(format!("{name} of GPU {} on {} overlaps", at.gpu.0, node.name));
            }
        }
        let requested = self.requested[pod.node.0 as usize];
        let asked = amounts(&shape.resources);
        for ((requested, all), asked) in requested.iter().zip(amounts(&node.allocatable)).zip(asked) {
            if *requested > all && asked > 0 {
                return Err(format!("{} is full: {requested} of {all}", node.name));
            }
        }
        Ok(())
    }

    /// Counts the place of a pod, whether or not it can be had.
    pub fn add(&mut self, shape: &PodShape, pod: &PodPlacement) {
        for at in devices_of(pod) {
            let device = &self.snapshot.gpus[at.gpu.0 as usize].devices[usize::from(at.device)];
            let used = &mut self.used[at.gpu.0 as usize];
            used.iter_mut().zip(&device.consumes).for_each(|(used, more)| *used += more);
        }
        let requested = &mut self.requested[pod.node.0 as usize];
        requested.iter_mut().zip(amounts(&shape.resources)).for_each(|(sum, more)| *sum += more);
    }

    /// Gives back the place of a pod.
    pub fn give_back(&mut self, shape: &PodShape, pod: &PodPlacement) {
        for at in devices_of(pod) {
            let device = &self.snapshot.gpus[at.gpu.0 as usize].devices[usize::from(at.device)];
            let used = &mut self.used[at.gpu.0 as usize];
            used.iter_mut().zip(&device.consumes).for_each(|(used, less)| *used -= less);
        }
        let requested = &mut self.requested[pod.node.0 as usize];
        requested.iter_mut().zip(amounts(&shape.resources)).for_each(|(sum, less)| *sum -= less);
    }

    /// How many pods of a shape fit, at most `wanted`; on one rack if they have to be.
    pub fn fit(&self, shape: &PodShape, wanted: u32, one_rack: bool) -> u32 {
        let mut racks: BTreeMap<Option<&String>, u32> = BTreeMap::new();
        for (at, node) in (0..).map(NodeIndex).zip(&self.snapshot.nodes) {
            let rack = node.labels.get("rack").filter(|_| one_rack);
            *racks.entry(rack).or_default() += self.fit_on(at, shape, wanted);
        }
        racks.into_values().max().unwrap_or(0).min(wanted)
    }

    fn fit_on(&self, node: NodeIndex, shape: &PodShape, wanted: u32) -> u32 {
        let is = &self.snapshot.nodes[node.0 as usize];
        if suits(is, shape).is_err() {
            return 0;
        }
        let free = amounts(&is.allocatable).into_iter().zip(self.requested[node.0 as usize]);
        let times = free.zip(amounts(&shape.resources)).filter_map(|((all, used), asked)| {
            all.saturating_sub(used).checked_div(asked).map(|times| u32::try_from(times).unwrap_or(wanted))
        });
        let limit = times.min().unwrap_or(wanted).min(wanted);
        let gpus: Vec<usize> =
            (0..self.snapshot.gpus.len()).filter(|gpu| self.snapshot.gpus[*gpu].node == node).collect();
        let asked = shape.requests.iter();
        let asked: Vec<&str> =
            asked.flat_map(|ask| std::iter::repeat_n(ask.label.as_str(), ask.count as usize)).collect();
        if asked.is_empty() {
            return limit;
        }
        let used: Vec<Vec<u64>> = gpus.iter().map(|gpu| self.used[*gpu].clone()).collect();
        let most = limit as usize * asked.len();
        let devices = self.most(&gpus, &used, &asked, 0, most, &mut BTreeMap::new());
        u32::try_from(devices / asked.len()).unwrap()
    }

    /// The most devices that can be taken in the order of `asked`, over and over again.
    fn most(
        &self,
        gpus: &[usize],
        used: &[Vec<u64>],
        asked: &[&str],
        at: usize,
        limit: usize,
        known: &mut BTreeMap<(Vec<Vec<u64>>, usize, usize), usize>,
    ) -> usize {
        if limit == 0 {
            return 0;
        }
        let key = (used.to_vec(), at, limit);
        if let Some(most) = known.get(&key) {
            return *most;
        }
        let mut best = 0;
        'all: for (slot, gpu) in gpus.iter().map(|gpu| &self.snapshot.gpus[*gpu]).enumerate() {
            for device in gpu.devices.iter().filter(|device| will_do(device, asked[at])) {
                let sum: Vec<u64> = used[slot].iter().zip(&device.consumes).map(|(a, b)| a + b).collect();
                let fits = sum.iter().zip(&gpu.capacity).all(|(sum, all)| sum <= all);
                if gpu.blocked || device.tainted || !fits {
                    continue;
                }
                let mut after = used.to_vec();
                after[slot] = sum;
                best = best.max(1 + self.most(gpus, &after, asked, (at + 1) % asked.len(), limit - 1, known));
                if best == limit {
                    break 'all;
                }
            }
        }
        known.insert(key, best);
        best
    }
}

/// Whether a node takes pods of this shape at all, and why not.
fn suits(node: &Node, shape: &PodShape) -> Result<(), String> {
    let tolerated = |key: &String| shape.tolerations.iter().any(|t| t.key.as_ref() == Some(key));
    let named = |names: &[vingt_core::model::Requirement]| {
        names.iter().all(|name| name.operator == Operator::In && name.values.contains(&node.name))
    };
    if !node.schedulable {
        return Err(format!("{} takes no pods", node.name));
    }
    if node.taints.iter().any(|taint| !tolerated(&taint.key)) {
        return Err(format!("{} has a taint that is not tolerated", node.name));
    }
    if !shape.node_terms.is_empty() && !shape.node_terms.iter().any(|term| named(&term.names)) {
        return Err(format!("{} was not asked for", node.name));
    }
    Ok(())
}
