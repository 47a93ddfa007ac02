//! The cluster during a cycle: in which state each GPU is, what is left on
//! nodes, and how both change. Where a pod goes is decided in the other modules.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::arrange::Fitness;
use super::choice::Sought;
use super::demand::Shapes;
use super::filter::Objection;
use super::groups::{GroupId, Groups, LEVELS};
use super::hold::sound;
use super::nodes::{Candidates, Offers, Views};
use super::room::{PARTS, Room, part};
use super::topology::{Domains, Together};
use crate::geometry::{Fleet, Held, StateId, devices_in};
use crate::model::{DeviceIndex, Gpu, NodeIndex, PlacementPolicy, PodPlacement, Snapshot, Units};

/// The cluster during one cycle.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) shapes: &'a Shapes<'a>,
    /// Whether nothing is held, nodes are well, and devices without taint.
    pub(super) emptied: bool,
    pub(super) fleet: Fleet,
    pub(super) groups: Groups,
    pub(super) gpus: Vec<GpuNow>,
    pub(super) nodes: Vec<NodeNow>,
    pub(super) room: Room<'a>,
    pub(super) by_name: BTreeMap<&'a str, u32>,
    /// Nodes in the order in which they changed.
    pub(super) changes: Vec<u32>,
    /// Nodes that got something back, in that order: only those may take what they did not take before.
    pub(super) given: Vec<u32>,
    pub(super) views: Vec<Views>,
    pub(super) offers: Vec<Offers>,
    /// For each node, the pods for which it had the devices of this demand after so many changes.
    pub(super) offered: Option<((usize, usize), Vec<u64>)>,
    pub(super) candidates: Vec<Option<Candidates>>,
    pub(super) sought: Vec<Option<Box<Sought>>>,
    /// For the first shape of each rule, what speaks against each node.
    pub(super) objections: Vec<Option<Vec<Option<Objection<'a>>>>>,
    pub(super) domains: BTreeMap<String, Rc<Domains>>,
    /// What is known of pods of a shape in domains of a label.
    pub(super) together: BTreeMap<(usize, String), Together>,
    /// Nodes that may still be compared for balance in this cycle, beyond a few for each pod.
    pub(super) patience: u32,
}

#[derive(Debug)]
pub(super) struct GpuNow {
    pub state: StateId,
    pub group: GroupId,
    pub node: u32,
    pub held: Held,
    /// Whether what is held on it is in what is used of it, once that was asked.
    pub sound: Option<bool>,
}

#[derive(Debug)]
pub(super) struct NodeNow {
    pub gpus: Vec<u32>,
    /// Room of all its GPUs, now and if they were whole.
    pub room: u64,
    pub all: u64,
    /// How many of them are whole.
    whole: u8,
    pub level: u8,
}

/// A gang in its place, and what its tenant is charged.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub pods: Vec<PodPlacement>,
    pub units: Units,
    pub(super) devices: Vec<DeviceIndex>,
    /// What it costs by the policy.
    pub(super) fitness: Fitness,
}

impl<'a> Cluster<'a> {
    /// As the snapshot is; or as it would be if nothing ran, nodes were well and devices without taint.
    pub fn new(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, emptied: bool) -> Self {
        Self::unsettled(snapshot, shapes, emptied).settled()
    }

    /// As it would be without these of the snapshot's running, each of which comes once: as after
    /// [`Cluster::release`] of all of them.
    pub fn without(
        snapshot: &'a Snapshot,
        shapes: &'a Shapes<'a>,
        gone: impl IntoIterator<Item = usize>,
    ) -> Self {
        let mut cluster = Self::unsettled(snapshot, shapes, false);
        let mut released = vec![0_u64; snapshot.gpus.len()];
        for running in gone.into_iter().filter_map(|at| snapshot.running.get(at)) {
            let shape = shapes.index_of.get(running.shape).copied();
            for pod in &running.pods {
                for &DeviceIndex { gpu, device } in pod.devices.iter().flatten() {
                    if cluster.is_held_by_us(gpu.0, device) {
                        released[gpu.0 as usize] |= 1 << device;
                    }
                }
                if let Some(shape) = shape.filter(|_| (pod.node.0 as usize) < snapshot.nodes.len()) {
                    cluster.room.give(pod.node.0, shape, 1);
                }
            }
        }
        for (gpu, released) in (0..).zip(released).filter(|(_, released)| *released != 0) {
            cluster.set_free(gpu, released);
        }
        cluster.settled()
    }

    fn unsettled(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, emptied: bool) -> Self {
        let nodes =
            snapshot.nodes.iter().map(|_| NodeNow { gpus: Vec::new(), room: 0, all: 0, whole: 0, level: 0 });
        let mut cluster = Self {
            snapshot,
            shapes,
            emptied,
            fleet: Fleet::kept(&shapes.scorer),
            groups: Groups::new(snapshot.gpus.len()),
            gpus: Vec::with_capacity(snapshot.gpus.len()),
            nodes: nodes.collect(),
            room: Room::new(&snapshot.nodes, &shapes.pods, emptied),
            by_name: snapshot.nodes.iter().zip(0..).map(|(node, i)| (node.name.as_str(), i)).collect(),
            changes: Vec::new(),
            given: Vec::new(),
            views: shapes.demands.iter().map(|_| Views::default()).collect(),
            offers: shapes.demands.iter().map(|_| Offers::default()).collect(),
            offered: None,
            candidates: shapes.pods.iter().map(|_| None).collect(),
            sought: shapes.pods.iter().map(|_| None).collect(),
            objections: vec![None; shapes.pods.len()],
            domains: BTreeMap::new(),
            together: BTreeMap::new(),
            patience: PATIENCE,
        };
        for (index, gpu) in (0..).zip(&snapshot.gpus) {
            cluster.add_gpu(index, gpu);
        }
        cluster
    }

    /// Puts the GPUs into their groups once all states are known.
    fn settled(mut self) -> Self {
        for node in 0..self.nodes.len() {
            self.nodes[node].level = self.level_of(u32::try_from(node).unwrap_or(u32::MAX));
        }
        for (index, now) in (0..).zip(&self.gpus) {
            if let Some(node) = self.nodes.get(now.node as usize) {
                self.groups.enter(now.group, node.level, index);
            }
        }
        self
    }

    fn add_gpu(&mut self, index: u32, gpu: &Gpu) {
        let untainted = self.shapes.untainted[index as usize];
        let open = match (self.emptied, gpu.blocked) {
            (true, _) => self.shapes.all[index as usize],
            (false, true) => 0,
            (false, false) => untainted,
        };
        let masks = self.snapshot.device_sets.iter();
        let masks = masks.map(|set| set.0.get(index as usize).copied().unwrap_or(0) & open);
        let sort = self.groups.sort(open, masks);
        let state = self.fleet.state_of_known(self.shapes.card_of[index as usize], gpu, self.emptied);
        let group = self.groups.find(sort, state);
        let held = if self.emptied { Held::default() } else { Held { held: gpu.held, kept: 0 } };
        self.gpus.push(GpuNow { state, group, node: gpu.node.0, held, sound: None });
        if let Some(node) = self.nodes.get_mut(gpu.node.0 as usize) {
            node.gpus.push(index);
            node.room = node.room.saturating_add(self.fleet.room(state));
            node.all = node.all.saturating_add(self.fleet.room_of_whole(state));
            node.whole = node.whole.saturating_add(self.fleet.is_whole(state).into());
        }
    }

    /// Counts devices as free that are held, before the GPUs are in their groups.
    fn set_free(&mut self, gpu: u32, devices: u64) {
        let now = &mut self.gpus[gpu as usize];
        let before = now.state;
        now.held.held &= !devices;
        now.state = devices_in(devices).fold(before, |state, device| self.fleet.give(state, device));
        now.group = self.groups.find(self.groups.get(now.group).sort, now.state);
        let state = now.state;
        if let Some(node) = self.nodes.get_mut(now.node as usize) {
            node.room =
                node.room.saturating_sub(self.fleet.room(before)).saturating_add(self.fleet.room(state));
            node.whole = node.whole.saturating_sub(self.fleet.is_whole(before).into());
            node.whole = node.whole.saturating_add(self.fleet.is_whole(state).into());
        }
    }

    /// Whether the snapshot counts a device as held, on a GPU of which at least so much is used.
    pub(super) fn is_held_by_us(&mut self, gpu: u32, device: u8) -> bool {
        let Some(of) = self.snapshot.gpus.get(gpu as usize) else { return false };
        let held = device < 64 && of.held >> device & 1 == 1;
        held && *self.gpus[gpu as usize].sound.get_or_insert_with(|| sound(of))
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
        self.sought[shape] = None;
    }

    /// Takes a device for what is being placed; it must fit.
    pub(super) fn take_device(&mut self, device: DeviceIndex, placed: &mut Placed) {
        let state = self.gpus[device.gpu.0 as usize].state;
        placed.units = placed.units.saturating_add(self.fleet.units(state, device.device));
        placed.devices.push(device);
        placed.fitness = placed.fitness.plus(&self.fleet.weigh(state, device.device, false));
        self.set_held(device.gpu.0, device.device, true);
    }

    /// Whether a device fits now, may be given out, and is in a set of devices.
    pub(super) fn may_take(&self, device: DeviceIndex, eligible: usize) -> bool {
        let Some(now) = self.gpus.get(device.gpu.0 as usize) else { return false };
        let mask = self.mask(device.gpu.0, eligible) & self.fleet.fits(now.state);
        device.device < 64 && mask >> device.device & 1 == 1
    }

    /// The devices of a set that may be given out on a GPU, whether they are free or not.
    pub(super) fn mask(&self, gpu: u32, set: usize) -> u64 {
        let sort = self.groups.get(self.gpus[gpu as usize].group).sort;
        self.groups.sorts[sort as usize].masks.get(set).copied().unwrap_or(0)
    }

    pub(super) fn is_held(&self, gpu: u32, device: u8) -> bool {
        self.gpus[gpu as usize].held.held >> device & 1 == 1
    }

    pub(super) fn is_kept(&self, gpu: u32, device: u8) -> bool {
        self.gpus[gpu as usize].held.kept >> device & 1 == 1
    }

    /// Counts a device as held by vingt, or not.
    pub(super) fn set_held(&mut self, gpu: u32, device: u8, held: bool) {
        let now = &mut self.gpus[gpu as usize];
        now.held.held ^= 1 << device;
        let state = match (now.held.kept, held) {
            (0, true) => self.fleet.take(now.state, device),
            (0, false) => self.fleet.give(now.state, device),
            _ => {
                let held = now.held;
                self.state_with(gpu, held)
            }
        };
        self.set_state(gpu, state, held);
    }

    /// Counts a device as closed for others, or not.
    pub(super) fn set_kept(&mut self, gpu: u32, device: u8, kept: bool) {
        let now = &mut self.gpus[gpu as usize];
        now.held.kept ^= 1 << device;
        let held = now.held;
        let state = self.state_with(gpu, held);
        self.set_state(gpu, state, kept);
    }

    fn state_with(&mut self, gpu: u32, held: Held) -> StateId {
        let gpu = gpu as usize;
        self.fleet.state_with(self.shapes.card_of[gpu], &self.snapshot.gpus[gpu], held)
    }

    fn set_state(&mut self, gpu: u32, state: StateId, less: bool) {
        let now = &mut self.gpus[gpu as usize];
        let (before, from, node) = (now.state, now.group, now.node);
        let to = self.groups.find(self.groups.get(from).sort, state);
        (now.state, now.group) = (state, to);
        let Some(on) = self.nodes.get_mut(node as usize) else { return };
        on.room = on.room.saturating_sub(self.fleet.room(before)).saturating_add(self.fleet.room(state));
        on.whole = on.whole.saturating_sub(self.fleet.is_whole(before).into());
        on.whole = on.whole.saturating_add(self.fleet.is_whole(state).into());
        self.groups.leave(from, on.level, gpu);
        self.groups.enter(to, on.level, gpu);
        self.changed(node, !less);
    }

    /// Gives a node back what a pod of a shape takes of it, or takes it.
    pub(super) fn shift_room(&mut self, node: NodeIndex, shape: usize, back: bool) {
        if (node.0 as usize) < self.nodes.len() {
            if back {
                self.room.give(node.0, shape, 1);
            } else {
                self.room.take(node.0, shape, 1);
            }
            self.changed(node.0, back);
        }
    }

    fn changed(&mut self, node: u32, more: bool) {
        self.changes.push(node);
        if more {
            self.given.push(node);
        }
        self.settle(node);
    }

    /// Parts of a node's GPUs that are left, if so much of their room is taken.
    pub(super) fn gpus_left(&self, node: u32, taken: u64) -> i64 {
        let now = &self.nodes[node as usize];
        let of = |room: u64| i64::try_from(room).unwrap_or(i64::MAX);
        if now.all == 0 { PARTS } else { part(of(now.room.saturating_sub(taken)), of(now.all)) }
    }

    /// Puts the GPUs of a node on the level that is its now.
    ///
    /// Nodes that run out of CPU or memory before they run out of GPUs come first, for the pods that need little of
    /// them; then those with the fewest whole GPUs, so that the others can take pods that need many.
    fn settle(&mut self, node: u32) {
        let level = self.level_of(node);
        let before = std::mem::replace(&mut self.nodes[node as usize].level, level);
        if before != level {
            for &gpu in &self.nodes[node as usize].gpus {
                let group = self.gpus[gpu as usize].group;
                self.groups.leave(group, before, gpu);
                self.groups.enter(group, level, gpu);
            }
        }
    }

    fn level_of(&self, node: u32) -> u8 {
        let now = &self.nodes[node as usize];
        let whole = now.whole.min(LEVELS - 2);
        match self.shapes.scorer.policy() {
            PlacementPolicy::FirstFit => 0,
            PlacementPolicy::Spread => LEVELS - 1 - whole,
            _ if now.room > 0 && self.room.is_short(node, self.gpus_left(node, 0)) => 0,
            _ => 1 + whole,
        }
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        std::mem::take(&mut self.fleet).keep();
    }
}

/// Comparisons of nodes for balance in one cycle; later pods look at a few nodes only.
const PATIENCE: u32 = 200_000;
