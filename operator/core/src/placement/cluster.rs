//! The cluster during a cycle: states of GPUs, what is free on nodes, and the
//! candidates of each shape.

use std::collections::{BTreeMap, BTreeSet};

use super::arrange::{Fitness, Slot, arrange, offer};
use super::demand::Shapes;
use super::filter::{Objection, objection};
use super::room::Room;
use crate::geometry::{Fleet, MAX_DEVICES, StateId, looked_at};
use crate::model::{DeviceIndex, Gpu, GpuIndex, NodeIndex, PodPlacement, Snapshot, Units};

/// The cluster during one cycle.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) shapes: &'a Shapes<'a>,
    /// Whether nothing is held, nodes are well, and devices without taint.
    pub(super) emptied: bool,
    fleet: Fleet,
    gpus: Vec<GpuNow>,
    nodes: Vec<NodeNow>,
    room: Room<'a>,
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
    /// Devices that vingt holds, now.
    held: u64,
    /// Devices that are closed for others.
    kept: u64,
}

#[derive(Debug)]
struct NodeNow {
    gpus: Vec<u32>,
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
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub pods: Vec<PodPlacement>,
    pub units: Units,
    devices: Vec<DeviceIndex>,
}

impl<'a> Cluster<'a> {
    pub fn new(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, emptied: bool) -> Self {
        let mut fleet = Fleet::default();
        let now = |gpu: &Gpu| GpuNow {
            state: fleet.state_of(gpu, emptied),
            open: open(gpu, emptied),
            held: if emptied { 0 } else { gpu.held },
            kept: 0,
        };
        let gpus: Vec<GpuNow> = snapshot.gpus.iter().map(now).collect();
        let nodes = snapshot.nodes.iter().map(|_| NodeNow { gpus: Vec::new(), room: 0 });
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
            room: Room::new(&snapshot.nodes, &shapes.pods, emptied),
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
        let mut placed = Placed::default();
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

    /// Undoes what [`Cluster::place`] or [`Cluster::claim`] did.
    pub fn take_back(&mut self, shape: usize, placed: Placed) {
        for device in placed.devices.into_iter().rev() {
            self.set_held(device.gpu.0, device.device, false);
        }
        for pod in placed.pods {
            self.shift_room(pod.node, shape, true);
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
        let objections = self.objections[rule].iter().flatten();
        let mut survey = Survey::default();
        let mut turned_away: BTreeMap<Objection, u32> = BTreeMap::new();
        for ((offer, node), objection) in self.offers[demand].nodes.iter().zip(0..).zip(objections) {
            if offer.pods == 0 {
                continue;
            }
            survey.nodes += 1;
            survey.pods_by_devices = survey.pods_by_devices.saturating_add(offer.pods);
            let (pods, reason) = objection.map_or_else(|| self.room.pods(node, shape), |o| (0, o));
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
                let gpu = GpuIndex(self.nodes[node as usize].gpus[chosen.slot]);
                let device = DeviceIndex { gpu, device: chosen.pick.device };
                self.take_device(device, placed);
                devices[demand.items[chosen.item].request].push(device);
            }
            self.shift_room(NodeIndex(node), shape, false);
            placed.pods.push(PodPlacement { node: NodeIndex(node), devices });
        }
        Some(pods)
    }

    /// Takes a device for what is being placed; it must fit.
    pub(super) fn take_device(&mut self, device: DeviceIndex, placed: &mut Placed) {
        let state = self.gpus[device.gpu.0 as usize].state;
        placed.units = placed.units.saturating_add(self.fleet.units(state, device.device));
        placed.devices.push(device);
        self.set_held(device.gpu.0, device.device, true);
    }

    /// Whether a device fits now, may be given out, and is in a set of devices.
    pub(super) fn may_take(&self, device: DeviceIndex, eligible: usize) -> bool {
        let Some(now) = self.gpus.get(device.gpu.0 as usize) else { return false };
        let mask = self.eligible(eligible, device.gpu.0) & now.open & self.fleet.fits(now.state);
        device.device < 64 && mask >> device.device & 1 == 1
    }

    /// Whether a pod of a shape may go to a node, and the node has what it asks for besides devices.
    pub(super) fn takes_pod(&mut self, shape: usize, node: u32) -> bool {
        let rule = self.know_objections(shape);
        let suits =
            self.objections[rule].as_ref().is_some_and(|known| known.get(node as usize) == Some(&None));
        suits && self.room.pods(node, shape).0 > 0
    }

    /// Pods of a shape that fit now.
    pub(super) fn count(&mut self, shape: usize) -> u64 {
        self.candidates(shape).pods
    }

    pub(super) fn is_held(&self, gpu: u32, device: u8) -> bool {
        self.gpus[gpu as usize].held >> device & 1 == 1
    }

    pub(super) fn is_kept(&self, gpu: u32, device: u8) -> bool {
        self.gpus[gpu as usize].kept >> device & 1 == 1
    }

    /// Counts a device as held by vingt, or not.
    pub(super) fn set_held(&mut self, gpu: u32, device: u8, held: bool) {
        self.gpus[gpu as usize].held ^= 1 << device;
        self.set_state(gpu, device, held);
    }

    /// Counts a device as closed for others, or not.
    pub(super) fn set_kept(&mut self, gpu: u32, device: u8, kept: bool) {
        self.gpus[gpu as usize].kept ^= 1 << device;
        self.set_state(gpu, device, kept);
    }

    fn set_state(&mut self, gpu: u32, device: u8, more: bool) {
        let now = &mut self.gpus[gpu as usize];
        let before = now.state;
        now.state = if more { self.fleet.take(before, device) } else { self.fleet.free(before, device) };
        let (more, less) = (self.fleet.room(now.state), self.fleet.room(before));
        let index = self.snapshot.gpus[gpu as usize].node.0;
        if let Some(node) = self.nodes.get_mut(index as usize) {
            node.room = node.room.saturating_sub(less).saturating_add(more);
            self.changes.push(index);
        }
    }

    /// Gives a node back what a pod of a shape takes of it, or takes it.
    pub(super) fn shift_room(&mut self, node: NodeIndex, shape: usize, back: bool) {
        if (node.0 as usize) < self.nodes.len() {
            if back {
                self.room.give(node.0, shape, 1);
            } else {
                self.room.take(node.0, shape, 1);
            }
            self.changes.push(node.0);
        }
    }

    /// Sees to it that the objections of the shape's rule are known; tells where they are.
    fn know_objections(&mut self, shape: usize) -> usize {
        let rule = self.shapes.rule_of[shape];
        let (snapshot, pod, emptied) = (self.snapshot, self.shapes.pods[rule], self.emptied);
        self.objections[rule]
            .get_or_insert_with(|| snapshot.nodes.iter().map(|node| objection(node, pod, emptied)).collect());
        rule
    }

    fn eligible(&self, set: usize, gpu: u32) -> u64 {
        let set = self.snapshot.device_sets.get(set);
        set.and_then(|set| set.0.get(gpu as usize)).copied().unwrap_or(0)
    }

    fn all_nodes(&self) -> Vec<u32> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).collect()
    }

    fn slots(&self, node: u32, demand: usize) -> Vec<Slot> {
        let items = &self.shapes.demands[demand].items;
        let slot = |gpu: &u32| {
            let now = &self.gpus[*gpu as usize];
            let mask = |set: usize| self.eligible(set, *gpu) & now.open;
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
            let (pods, _) = self.room.pods(node, shape);
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
