//! What would fit on one node if some of those who run there were gone, added up without a change to the cluster. Who
//! that is, is decided elsewhere.

use super::arrange::{Slot, offer};
use super::cluster::Cluster;
use crate::geometry::{Held, StateId, devices_in};

impl Cluster<'_> {
    /// Pods of a shape that would fit on a node if these of the snapshot's running, of which each comes once, were gone.
    pub fn pods_without(&mut self, shape: usize, node: u32, gone: &[usize]) -> u64 {
        self.pods_if(shape, node, gone, false)
    }

    /// The same in the snapshot, without all that was placed or kept since.
    pub fn pods_at_first_without(&mut self, shape: usize, node: u32, gone: &[usize]) -> u64 {
        self.pods_if(shape, node, gone, true)
    }

    fn pods_if(&mut self, shape: usize, node: u32, gone: &[usize], at_first: bool) -> u64 {
        if node as usize >= self.nodes.len() || !self.suits(shape, node) {
            return 0;
        }
        let mut left = match self.snapshot.nodes.get(node as usize).filter(|_| at_first) {
            Some(of) => self.room.at_first(of),
            None => self.room.left(node).to_vec(),
        };
        let mut freed = vec![0_u64; self.nodes[node as usize].gpus.len()];
        for running in gone.iter().filter_map(|at| self.snapshot.running.get(*at)) {
            let needs = self.shapes.index_of.get(running.shape).copied();
            for pod in running.pods.iter().filter(|pod| pod.node.0 == node) {
                for device in pod.devices.iter().flatten() {
                    let slot = self.nodes[node as usize].gpus.binary_search(&device.gpu.0);
                    if let Some(slot) = slot.ok().filter(|_| self.is_held_by_us(device.gpu.0, device.device))
                    {
                        freed[slot] |= 1 << device.device;
                    }
                }
                if let Some(needs) = needs {
                    self.room.add(&mut left, needs);
                }
            }
        }
        let by_room = self.room.pods_in(&left, shape).0;
        if by_room == 0 { 0 } else { by_room.min(self.pods_by_devices(shape, node, &freed, at_first)) }
    }

    fn pods_by_devices(&mut self, shape: usize, node: u32, freed: &[u64], at_first: bool) -> u64 {
        let shapes = self.shapes;
        let demand = &shapes.demands[shapes.demand_of[shape]];
        let gpus = (0..freed.len()).map(|slot| self.nodes[node as usize].gpus[slot]);
        let gpus: Vec<u32> = gpus.collect();
        if let [item] = demand.items.as_slice() {
            let mut devices = 0_u64;
            for (gpu, freed) in gpus.into_iter().zip(freed) {
                let (state, mask) = (self.state_if(gpu, *freed, at_first), self.mask(gpu, item.eligible));
                devices = devices.saturating_add(self.fleet.most(state, mask, item.smallest).into());
            }
            return devices / u64::from(item.count);
        }
        let mut slots = Vec::new();
        for (gpu, freed) in gpus.into_iter().zip(freed) {
            let masks = demand.items.iter().map(|item| self.mask(gpu, item.eligible)).collect();
            slots.push(Slot { state: self.state_if(gpu, *freed, at_first), masks });
        }
        offer(&mut self.fleet, &mut slots, demand, demand.pods).0
    }

    fn state_if(&mut self, gpu: u32, freed: u64, at_first: bool) -> StateId {
        let now = &self.gpus[gpu as usize];
        let (state, held) = (now.state, now.held);
        let Some(of) = self.snapshot.gpus.get(gpu as usize) else { return state };
        let before = if at_first { Held { held: of.held, kept: 0 } } else { held };
        let freed = freed & before.held;
        if before == held && held.kept == 0 {
            return devices_in(freed).fold(state, |state, device| self.fleet.give(state, device));
        }
        let then = Held { held: before.held & !freed, ..before };
        self.fleet.state_with(self.shapes.card_of[gpu as usize], of, then)
    }
}
