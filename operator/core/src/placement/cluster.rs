//! The cluster during a cycle: states of GPUs, what is free on nodes, and the
//! candidates of each shape.

use std::collections::{BTreeMap, BTreeSet};

use super::arrange::{Fitness, Slot, arrange, offer};
use super::demand::Shapes;
use super::filter::{Objection, less, objection, pods_in, taken_by};
use crate::geometry::{Fleet, MAX_DEVICES, StateId, looked_at};
use crate::model::{DeviceIndex, Gpu, GpuIndex, NodeIndex, PodPlacement, Resources, Snapshot, Units};

/// The cluster during one cycle.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    snapshot: &'a Snapshot,
    shapes: &'a Shapes<'a>,
    /// Whether nothing is held, nodes are well, and devices without taint.
    emptied: bool,
    fleet: Fleet,
    gpus: Vec<GpuNow>,
    nodes: Vec<NodeNow>,
    by_name: BTreeMap<&'a str, u32>,
    /// Nodes in the order in which they changed.
    changes: Vec<u32>,
    offers: Vec<Offers>,
    candidates: Vec<Option<Candidates>>,
    /// For the first shape of each rule, what speaks against each node.
    objections: Vec<Option<Vec<Option<Objection<'a>>>>>,
}

#[derive(Debug)]
struct GpuNow {
    state: StateId,
    /// Devices that may be given out at all.
    open: u64,
}

#[derive(Debug)]
struct NodeNow {
    gpus: Vec<u32>,
    free: Resources,
    /// Room of all its GPUs.
    room: u64,
}

/// What each node offers a demand, whatever else the pods need.
#[derive(Debug, Default)]
struct Offers {
    nodes: Vec<Offer>,
    /// How many of the cluster's changes are in it.
    seen: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    pods: u64,
    place: Place,
}

/// How good a node is for a pod; less is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    fitness: Fitness,
    node_room: u64,
}

/// The nodes that take a pod of one shape, best first.
#[derive(Debug, Default)]
struct Candidates {
    order: BTreeSet<(Place, u32)>,
    nodes: Vec<Candidate>,
    /// Pods that fit on all of them.
    pods: u64,
    seen: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Candidate {
    pods: u64,
    place: Place,
}

/// What could take pods of a shape, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Pods that fit.
    pub pods: u64,
    /// Pods that would fit if only devices counted.
    pub pods_by_devices: u64,
    /// Nodes with devices for at least one pod.
    pub nodes: u32,
    /// Of these, those that take fewer pods than they have devices for, by reason.
    pub turned_away: BTreeMap<String, u32>,
}

/// A gang in its place, and what its tenant is charged.
#[derive(Debug)]
pub(crate) struct Placed {
    pub pods: Vec<PodPlacement>,
    pub units: Units,
    before: Vec<(u32, StateId)>,
}

impl<'a> Cluster<'a> {
    pub fn new(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, emptied: bool) -> Self {
        let mut fleet = Fleet::default();
        let gpus = snapshot.gpus.iter();
        let gpus = gpus.map(|gpu| GpuNow { state: fleet.state_of(gpu, emptied), open: open(gpu, emptied) });
        let gpus: Vec<GpuNow> = gpus.collect();
        let free = |node: &crate::model::Node| {
            if emptied { node.allocatable.clone() } else { less(&node.allocatable, &node.requested) }
        };
        let nodes = snapshot.nodes.iter();
        let nodes = nodes.map(|node| NodeNow { gpus: Vec::new(), free: free(node), room: 0 });
        let mut nodes: Vec<NodeNow> = nodes.collect();
        for ((index, gpu), now) in (0..).zip(&snapshot.gpus).zip(&gpus) {
            if let Some(node) = nodes.get_mut(gpu.node.0 as usize) {
                node.gpus.push(index);
                node.room = node.room.saturating_add(fleet.room(now.state));
            }
        }
        let by_name = snapshot.nodes.iter().zip(0..).map(|(node, i)| (node.name.as_str(), i)).collect();
        let offers = shapes.demands.iter().map(|_| Offers::default()).collect();
        let candidates = shapes.pods.iter().map(|_| None).collect();
        let objections = vec![None; shapes.pods.len()];
        let changes = Vec::new();
        Self {
            snapshot,
            shapes,
            emptied,
            fleet,
            gpus,
            nodes,
            by_name,
            changes,
            offers,
            candidates,
            objections,
        }
    }

    /// Places all `pods` of a shape, on nodes in `avoid` only where no others take them; `None`,
    /// and nothing is changed, if they don't all fit.
    pub fn place(&mut self, shape: usize, pods: u32, avoid: &BTreeSet<String>) -> Option<Placed> {
        if self.candidates(shape).pods < u64::from(pods) {
            return None;
        }
        let avoid: BTreeSet<u32> =
            avoid.iter().filter_map(|name| self.by_name.get(name.as_str()).copied()).collect();
        let mut placed = Placed { pods: Vec::new(), units: 0, before: Vec::new() };
        // Pods with different devices share a node's GPUs best when looked at together.
        let together = self.shapes.demands[self.shapes.demand_of[shape]].items.len() > 1;
        let mut left = pods;
        while left > 0 {
            let candidates = self.candidates(shape);
            let order = &candidates.order;
            let best = order.iter().find(|(_, node)| !avoid.contains(node)).or_else(|| order.first());
            let best = best.map(|(_, node)| (*node, candidates.nodes[*node as usize].pods));
            let done = best.and_then(|(node, room)| {
                let count =
                    if together { u32::try_from(room).map_or(left, |room| room.min(left)) } else { 1 };
                self.place_on(shape, node, count, &mut placed)
            });
            let Some(done) = done else {
                self.take_back(shape, placed);
                return None;
            };
            left -= done;
        }
        Some(placed)
    }

    /// Undoes what [`Cluster::place`] did; only the last placement that still stands can be undone.
    pub fn take_back(&mut self, shape: usize, placed: Placed) {
        for (gpu, state) in placed.before.into_iter().rev() {
            self.set_state(gpu, state);
        }
        let taken = taken_by(self.shapes.pods[shape]);
        for pod in placed.pods {
            let free = &mut self.nodes[pod.node.0 as usize].free;
            free.cpu_milli += taken.cpu_milli;
            free.memory_bytes += taken.memory_bytes;
            free.pods += taken.pods;
            for (name, amount) in &taken.other {
                *free.other.entry(name.clone()).or_default() += amount;
            }
            self.changes.push(pod.node.0);
        }
    }

    /// Lets go of what is kept for a shape that no more workload has.
    pub fn forget(&mut self, shape: usize) {
        self.candidates[shape] = None;
    }

    /// What could take pods of a shape, with the reasons of those nodes that cannot.
    pub fn survey(&mut self, shape: usize) -> Survey {
        let demand = self.shapes.demand_of[shape];
        self.refresh_offers(demand);
        let rule = self.know_objections(shape);
        let pod = self.shapes.pods[shape];
        let objections = self.objections[rule].iter().flatten();
        let mut survey = Survey::default();
        let mut turned_away: BTreeMap<Objection, u32> = BTreeMap::new();
        for ((offer, now), objection) in self.offers[demand].nodes.iter().zip(&self.nodes).zip(objections) {
            if offer.pods == 0 {
                continue;
            }
            survey.nodes += 1;
            survey.pods_by_devices = survey.pods_by_devices.saturating_add(offer.pods);
            let (pods, reason) = objection.map_or_else(|| pods_in(&now.free, &pod.resources), |o| (0, o));
            if pods < offer.pods {
                *turned_away.entry(reason).or_default() += 1;
            }
            survey.pods = survey.pods.saturating_add(pods.min(offer.pods));
        }
        survey.turned_away = turned_away.into_iter().map(|(reason, n)| (reason.to_string(), n)).collect();
        survey
    }

    /// Places `pods` pods on one node and tells how many that is.
    fn place_on(&mut self, shape: usize, node: u32, pods: u32, placed: &mut Placed) -> Option<u32> {
        let shapes = self.shapes;
        let demand = &shapes.demands[shapes.demand_of[shape]];
        let mut slots = self.slots(node, shapes.demand_of[shape]);
        for chosen in arrange(&mut self.fleet, &mut slots, demand, pods)? {
            let mut devices = vec![Vec::new(); shapes.pods[shape].requests.len()];
            for chosen in chosen {
                let gpu = self.nodes[node as usize].gpus[chosen.slot];
                let state = self.gpus[gpu as usize].state;
                placed.units = placed.units.saturating_add(self.fleet.units(state, chosen.pick.device));
                placed.before.push((gpu, state));
                let next = self.fleet.take(state, chosen.pick.device);
                self.set_state(gpu, next);
                devices[demand.items[chosen.item].request]
                    .push(DeviceIndex { gpu: GpuIndex(gpu), device: chosen.pick.device });
            }
            let now = &mut self.nodes[node as usize];
            now.free = less(&now.free, &taken_by(shapes.pods[shape]));
            placed.pods.push(PodPlacement { node: NodeIndex(node), devices });
        }
        self.changes.push(node);
        Some(pods)
    }

    fn set_state(&mut self, gpu: u32, state: StateId) {
        let now = &mut self.gpus[gpu as usize];
        let before = std::mem::replace(&mut now.state, state);
        let node = &mut self.nodes[self.snapshot.gpus[gpu as usize].node.0 as usize];
        node.room = node.room.saturating_sub(self.fleet.room(before)).saturating_add(self.fleet.room(state));
    }

    /// Sees to it that the objections of the shape's rule are known; tells where they are.
    fn know_objections(&mut self, shape: usize) -> usize {
        let rule = self.shapes.rule_of[shape];
        let (snapshot, pod, emptied) = (self.snapshot, self.shapes.pods[rule], self.emptied);
        self.objections[rule]
            .get_or_insert_with(|| snapshot.nodes.iter().map(|node| objection(node, pod, emptied)).collect());
        rule
    }

    fn all_nodes(&self) -> Vec<u32> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).collect()
    }

    fn slots(&self, node: u32, demand: usize) -> Vec<Slot> {
        let items = &self.shapes.demands[demand].items;
        let slot = |gpu: &u32| {
            let now = &self.gpus[*gpu as usize];
            let mask = |set: usize| {
                let set = self.snapshot.device_sets.get(set);
                set.and_then(|set| set.0.get(*gpu as usize)).copied().unwrap_or(0) & now.open
            };
            Slot { state: now.state, masks: items.iter().map(|item| mask(item.eligible)).collect() }
        };
        self.nodes[node as usize].gpus.iter().map(slot).collect()
    }

    fn refresh_offers(&mut self, demand: usize) {
        let fresh = self.offers[demand].nodes.len() != self.nodes.len();
        let stale = if fresh {
            self.offers[demand].nodes = vec![Offer::default(); self.nodes.len()];
            self.all_nodes()
        } else {
            changed_since(&self.changes, self.offers[demand].seen)
        };
        self.offers[demand].seen = self.changes.len();
        for node in stale {
            let mut slots = self.slots(node, demand);
            let wanted = &self.shapes.demands[demand];
            let (pods, fitness) = offer(&mut self.fleet, &mut slots, wanted, wanted.pods);
            let place = Place { fitness, node_room: self.nodes[node as usize].room };
            self.offers[demand].nodes[node as usize] = Offer { pods, place };
        }
    }

    fn candidates(&mut self, shape: usize) -> &Candidates {
        let demand = self.shapes.demand_of[shape];
        self.refresh_offers(demand);
        let rule = self.know_objections(shape);
        let pod = self.shapes.pods[shape];
        let stale = match &self.candidates[shape] {
            None => self.all_nodes(),
            Some(known) => changed_since(&self.changes, known.seen),
        };
        let offers = &self.offers[demand].nodes;
        let objections = self.objections[rule].as_deref().unwrap_or_default();
        let candidates = self.candidates[shape].get_or_insert_with(|| Candidates {
            nodes: vec![Candidate::default(); objections.len()],
            ..Candidates::default()
        });
        candidates.seen = self.changes.len();
        for node in stale {
            if objections[node as usize].is_some() {
                continue;
            }
            let candidate = &mut candidates.nodes[node as usize];
            let offer = offers[node as usize];
            let (pods, _) = pods_in(&self.nodes[node as usize].free, &pod.resources);
            if candidate.pods > 0 {
                candidates.order.remove(&(candidate.place, node));
                candidates.pods -= candidate.pods;
            }
            *candidate = Candidate { pods: pods.min(offer.pods), place: offer.place };
            if candidate.pods > 0 {
                candidates.order.insert((candidate.place, node));
                candidates.pods = candidates.pods.saturating_add(candidate.pods);
            }
        }
        candidates
    }
}

/// The devices of a GPU that may be given out at all.
fn open(gpu: &Gpu, emptied: bool) -> u64 {
    if gpu.blocked && !emptied {
        return 0;
    }
    let closed = |(device, _): &(&crate::model::Device, usize)| emptied || !device.tainted;
    looked_at(gpu).zip(0..MAX_DEVICES).filter(closed).fold(0, |mask, (_, bit)| mask | 1 << bit)
}

/// The nodes that changed since, each once.
fn changed_since(changes: &[u32], seen: usize) -> Vec<u32> {
    let mut stale = changes.get(seen..).unwrap_or_default().to_vec();
    stale.sort_unstable();
    stale.dedup();
    stale
}
