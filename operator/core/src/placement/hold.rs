//! What is held besides what the cycle places: taking it away to ask what
//! would be if it left, keeping places for a workload that is ahead, and
//! putting pods just where they are wanted. Whose right that is, is decided elsewhere.

use std::collections::BTreeSet;

use super::cluster::{Cluster, Placed};
use crate::geometry::looked_at;
use crate::model::{DeviceIndex, Gpu, PodPlacement};

impl Cluster<'_> {
    /// Makes free what the workload `running` (index into [`crate::model::Snapshot::running`]) holds: its devices,
    /// and what its pods ask of their nodes. What others hold of the same GPUs stays held. A device that the
    /// snapshot does not count as held, or whose GPU's use is less than what is held on it, stays as it is.
    ///
    /// Each may be released once, until it is restored; nothing may be placed in between that then stays.
    pub fn release(&mut self, running: usize) {
        self.shift(running, true);
    }

    /// Undoes [`Cluster::release`], exactly. Several may be restored in any order, after everything that was
    /// placed since they were released has been taken back.
    pub fn restore(&mut self, running: usize) {
        self.shift(running, false);
    }

    fn shift(&mut self, running: usize, away: bool) {
        let Some(running) = self.snapshot.running.get(running).filter(|_| !self.emptied) else { return };
        let shape = self.shapes.index_of.get(running.shape).copied();
        for pod in &running.pods {
            for &DeviceIndex { gpu, device } in pod.devices.iter().flatten() {
                if self.is_held_by_us(gpu.0, device) && self.is_held(gpu.0, device) == away {
                    self.set_held(gpu.0, device, !away);
                }
            }
            if let Some(shape) = shape {
                self.shift_room(pod.node, shape, away);
            }
        }
    }

    /// Puts pods of a shape just there; `None`, and nothing is changed, unless every device of them will do, may
    /// be given out, and is free, and the nodes suit them. [`Cluster::take_back`] undoes it.
    pub fn claim(&mut self, shape: usize, pods: &[PodPlacement]) -> Option<Placed> {
        let mut placed = Placed::default();
        for pod in pods {
            if !self.claim_pod(shape, pod, &mut placed) {
                self.take_back(shape, placed);
                return None;
            }
        }
        Some(placed)
    }

    fn claim_pod(&mut self, shape: usize, pod: &PodPlacement, placed: &mut Placed) -> bool {
        let node = pod.node.0;
        let requests = &self.shapes.pods[shape].requests;
        let counted = requests.iter().zip(&pod.devices).all(|(request, devices)| {
            usize::try_from(request.count).is_ok_and(|count| count == devices.len())
        });
        if !counted || requests.len() != pod.devices.len() || !self.takes_pod(shape, node) {
            return false;
        }
        placed.pods.push(PodPlacement { node: pod.node, devices: Vec::new() });
        self.shift_room(pod.node, shape, false);
        for (request, devices) in requests.iter().zip(&pod.devices) {
            for &device in devices {
                let there =
                    self.snapshot.gpus.get(device.gpu.0 as usize).is_some_and(|gpu| gpu.node == pod.node);
                if !there || !self.may_take(device, request.eligible) {
                    return false;
                }
                self.take_device(device, placed);
            }
        }
        if let Some(last) = placed.pods.last_mut() {
            last.devices.clone_from(&pod.devices);
        }
        true
    }

    /// Keeps places of pods of a shape for whoever opens them: nobody gets these devices, nor those that overlap
    /// them, nor what the pods ask of the nodes, even once what holds them now has left. `false`, and nothing is
    /// changed, if a device is kept already, or there is no such device or node.
    pub fn close(&mut self, shape: usize, pods: &[PodPlacement]) -> bool {
        let mut seen = BTreeSet::new();
        let free = |&device: &DeviceIndex| {
            self.snapshot.gpus.get(device.gpu.0 as usize).is_some_and(|gpu| {
                usize::from(device.device) < looked_at(gpu).count()
                    && !self.is_kept(device.gpu.0, device.device)
            }) && seen.insert(device)
        };
        let nodes = self.snapshot.nodes.len();
        let known = pods.iter().all(|pod| (pod.node.0 as usize) < nodes);
        if !known || !pods.iter().flat_map(|pod| pod.devices.iter().flatten()).all(free) {
            return false;
        }
        self.keep(shape, pods, true);
        true
    }

    /// Undoes [`Cluster::close`] of the same places.
    pub fn open(&mut self, shape: usize, pods: &[PodPlacement]) {
        self.keep(shape, pods, false);
    }

    fn keep(&mut self, shape: usize, pods: &[PodPlacement], kept: bool) {
        for pod in pods {
            for device in pod.devices.iter().flatten() {
                self.set_kept(device.gpu.0, device.device, kept);
            }
            self.shift_room(pod.node, shape, !kept);
        }
    }

    /// Whether `pods` pods of a shape would get places now, wherever.
    #[cfg(test)]
    pub fn fits(&mut self, shape: usize, pods: u32) -> bool {
        self.count(shape) >= u64::from(pods)
    }
}

/// Whether what is held on a GPU is in what is used of it.
pub(super) fn sound(gpu: &Gpu) -> bool {
    let held = |counter: usize| {
        let devices = looked_at(gpu).enumerate().filter(|(bit, _)| gpu.held >> bit & 1 == 1);
        devices.fold(0_u64, |sum, (_, device)| {
            sum.saturating_add(device.consumes.get(counter).copied().unwrap_or(0))
        })
    };
    let named =
        usize::try_from(64 - gpu.held.leading_zeros()).is_ok_and(|bits| bits <= looked_at(gpu).count());
    named
        && (0..gpu.capacity.len()).all(|counter| held(counter) <= gpu.used.get(counter).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests;
