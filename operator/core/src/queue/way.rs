//! Who is in the way of a place that is kept, told by what each takes of GPUs and
//! nodes. Whether the place suits the pods at all is not looked at here.
//!
//! Several places may be kept on one GPU or node, and those who are in their ways
//! leave at different times. Each place therefore counts as what is larger, what is
//! kept or what is in its way and has not left, so that whatever leaves or starts
//! first, the others still find what they were promised.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::keep::{Keeper, Kept};
use crate::model::{Admission, PodPlacement, PodShape, Resources, Snapshot};

/// A GPU or a node, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    Gpu(u32),
    Node(u32),
}

/// Amounts of what GPUs and nodes have: of a GPU its counters; of a node CPU, memory, pods and the rest.
pub(super) type Load = BTreeMap<Spot, Vec<u64>>;

/// What is used where, and by whom.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    snapshot: &'a Snapshot,
    /// What pods ask of nodes besides CPU, memory and their number.
    others: Vec<&'a str>,
    /// For each node, who runs there; once it is asked for.
    there: Option<Vec<Vec<usize>>>,
}

impl<'a> Ground<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let names = snapshot.shapes.iter().flat_map(|shape| shape.resources.other.keys().map(String::as_str));
        let others: BTreeSet<&str> = names.collect();
        Self { snapshot, others: others.into_iter().collect(), there: None }
    }

    /// What pods of a shape of the snapshot take in these places.
    pub fn load(&self, shape: usize, pods: &[PodPlacement]) -> Load {
        let mut load = Load::new();
        let Some(PodShape { resources, .. }) = self.snapshot.shapes.get(shape) else { return load };
        let mut of_node = self.row(resources);
        of_node[PODS] = of_node[PODS].max(1);
        for pod in pods {
            add(load.entry(Spot::Node(pod.node.0)).or_default(), &of_node);
            for device in pod.devices.iter().flatten() {
                let gpu = self.snapshot.gpus.get(device.gpu.0 as usize);
                if let Some(device_of) = gpu.and_then(|gpu| gpu.devices.get(usize::from(device.device))) {
                    add(load.entry(Spot::Gpu(device.gpu.0)).or_default(), &device_of.consumes);
                }
            }
        }
        load
    }

    /// Who has to be gone before there is room for a load, the last first by `end`, of those who can't all stay those
    /// who end first; `None` if there is none even without them, besides what is kept for others.
    pub fn in_the_way<E: Ord>(
        &mut self,
        load: &Load,
        keeper: &Keeper,
        given: &[Admission],
        end: impl Fn(usize) -> E,
    ) -> Option<Vec<usize>> {
        self.look_who_is_there();
        let there = self.there();
        let on_node = |spot: &Spot| match spot {
            Spot::Node(node) => there.get(*node as usize),
            Spot::Gpu(_) => None,
        };
        let there: BTreeSet<usize> = load.keys().filter_map(on_node).flatten().copied().collect();
        let loads: BTreeMap<usize, Load> = there.iter().map(|at| (*at, self.load_of(*at))).collect();
        let shares = |kept: &&Kept| load.keys().any(|spot| kept.load.contains_key(spot));
        let mut others: Vec<(&Kept, Load)> =
            keeper.standing().filter(shares).map(|kept| (kept, Load::new())).collect();

        let mut level = self.level(load, &loads, given);
        for (kept, _) in &others {
            add_all(&mut level, &kept.load);
        }
        add_all(&mut level, load);
        if !self.holds(&level, load) {
            return None;
        }
        let mut last_first: Vec<usize> = there.into_iter().collect();
        last_first.sort_by_key(|at| Reverse((end(*at), &self.snapshot.running[*at].key, *at)));
        let mut way = Vec::new();
        for at in last_first {
            let own = &loads[&at];
            let of = others.iter_mut().find(|(kept, _)| kept.way.contains(&at));
            let more = match &of {
                Some((kept, there)) => raised(&kept.load, there, own),
                None => own.clone(),
            };
            let mut after = level.clone();
            add_all(&mut after, &more);
            if !self.holds(&after, &more) {
                way.push(at);
                continue;
            }
            level = after;
            if let Some((_, there)) = of {
                for (spot, amounts) in own {
                    add(there.entry(*spot).or_default(), amounts);
                }
            }
        }
        Some(way)
    }

    /// What is used of the spots of a load by others than those who run there.
    fn level(&self, load: &Load, running: &BTreeMap<usize, Load>, given: &[Admission]) -> Load {
        let mut level: Load = load.keys().map(|spot| (*spot, self.used(*spot))).collect();
        for Admission { workload, pods, .. } in given {
            let touches = |pod: &PodPlacement| load.contains_key(&Spot::Node(pod.node.0));
            if pods.iter().any(touches) {
                add_all(&mut level, &self.load(self.snapshot.waiting[*workload].shape, pods));
            }
        }
        for load in running.values() {
            for (spot, amounts) in load {
                let used = level.get_mut(spot).into_iter().flatten();
                used.zip(amounts).for_each(|(used, less)| *used = used.saturating_sub(*less));
            }
        }
        level
    }

    /// Whether there is as much as `level` of everything of which `load` takes some.
    fn holds(&self, level: &Load, load: &Load) -> bool {
        let holds = |(spot, amounts): (&Spot, &Vec<u64>)| {
            let Some(level) = level.get(spot) else { return true };
            let all = self.capacity(*spot);
            let each = amounts.iter().zip(level).zip(all.iter().chain(std::iter::repeat(&0)));
            each.into_iter().all(|((takes, level), all)| *takes == 0 || level <= all)
        };
        load.iter().all(holds)
    }

    fn load_of(&self, running: usize) -> Load {
        let running = &self.snapshot.running[running];
        self.load(running.shape, &running.pods)
    }

    /// Sees to it that [`Ground::there`] is known.
    pub fn look_who_is_there(&mut self) {
        if self.there.is_some() {
            return;
        }
        let mut there: Vec<Vec<usize>> = vec![Vec::new(); self.snapshot.nodes.len()];
        for (at, running) in self.snapshot.running.iter().enumerate() {
            for pod in &running.pods {
                if let Some(there) = there.get_mut(pod.node.0 as usize).filter(|t| t.last() != Some(&at)) {
                    there.push(at);
                }
            }
        }
        self.there = Some(there);
    }

    /// For each node, who runs there.
    pub fn there(&self) -> &[Vec<usize>] {
        self.there.as_deref().unwrap_or_default()
    }

    fn used(&self, spot: Spot) -> Vec<u64> {
        let gpu = |gpu: u32| self.snapshot.gpus.get(gpu as usize).map(|gpu| gpu.used.clone());
        let node = |node: u32| self.snapshot.nodes.get(node as usize).map(|node| self.row(&node.requested));
        match spot {
            Spot::Gpu(at) => gpu(at),
            Spot::Node(at) => node(at),
        }
        .unwrap_or_default()
    }

    fn capacity(&self, spot: Spot) -> Vec<u64> {
        let gpu = |gpu: u32| self.snapshot.gpus.get(gpu as usize).map(|gpu| gpu.capacity.clone());
        let node = |node: u32| self.snapshot.nodes.get(node as usize).map(|node| self.row(&node.allocatable));
        match spot {
            Spot::Gpu(at) => gpu(at),
            Spot::Node(at) => node(at),
        }
        .unwrap_or_default()
    }

    fn row(&self, resources: &Resources) -> Vec<u64> {
        let others = self.others.iter().map(|name| resources.other.get(*name).copied().unwrap_or(0));
        [resources.cpu_milli, resources.memory_bytes, resources.pods].into_iter().chain(others).collect()
    }
}

const PODS: usize = 2;

fn add(to: &mut Vec<u64>, more: &[u64]) {
    if to.len() < more.len() {
        to.resize(more.len(), 0);
    }
    to.iter_mut().zip(more).for_each(|(to, more)| *to = to.saturating_add(*more));
}

/// Adds what concerns spots that are there already.
fn add_all(to: &mut Load, more: &Load) {
    for (spot, amounts) in more {
        if let Some(to) = to.get_mut(spot) {
            add(to, amounts);
        }
    }
}

/// By how much the larger of what is kept and what is there grows when more is there.
fn raised(kept: &Load, there: &Load, more: &Load) -> Load {
    let nothing = Vec::new();
    let raised = |(spot, more): (&Spot, &Vec<u64>)| {
        let (kept, there) = (kept.get(spot).unwrap_or(&nothing), there.get(spot).unwrap_or(&nothing));
        let amount = |of: &Vec<u64>, at: usize| of.get(at).copied().unwrap_or(0);
        let each = more.iter().enumerate().map(|(at, more)| {
            let before = amount(there, at);
            before.saturating_add(*more).max(amount(kept, at)) - before.max(amount(kept, at))
        });
        (*spot, each.collect())
    };
    more.iter().map(raised).collect()
}
