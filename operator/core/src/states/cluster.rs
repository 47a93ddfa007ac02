//! Which GPU is in which state, kept as the set of GPUs of each class.

use std::sync::Arc;

use super::set::GpuSet;
use super::space::{Class, Space, State};

/// A number of GPUs, each in a state.
#[derive(Clone, Debug)]
pub struct Cluster {
    space: Arc<Space>,
    state: Vec<State>,
    members: Vec<GpuSet>,
    /// Bit `c` is set if a GPU is in class `c`.
    present: Vec<u64>,
}

impl Cluster {
    /// GPUs that are whole; `cards` has the card of each.
    pub fn new(space: Arc<Space>, cards: &[usize]) -> Self {
        let state: Vec<State> = cards.iter().map(|&card| space.empty(card)).collect();
        let cluster = Self { members: Vec::new(), present: Vec::new(), space: space.clone(), state };
        cluster.on(space)
    }

    /// The same GPUs in the same states, of `space`, which must have been listed from the same cards: its classes
    /// may be others.
    #[must_use]
    pub fn on(&self, space: Arc<Space>) -> Self {
        let mut cluster = Self {
            members: vec![GpuSet::new(self.gpus()); space.classes()],
            present: vec![0; space.classes().div_ceil(64)],
            space,
            state: self.state.clone(),
        };
        for gpu in 0..cluster.gpus() {
            cluster.enter(cluster.space.class(cluster.state[gpu]), gpu);
        }
        cluster
    }

    /// The states it is made of.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Number of GPUs.
    pub fn gpus(&self) -> usize {
        self.state.len()
    }

    /// The state of `gpu`.
    #[inline]
    pub fn state(&self, gpu: usize) -> State {
        self.state[gpu]
    }

    /// The GPUs in `class`.
    #[inline]
    pub fn members(&self, class: Class) -> &GpuSet {
        &self.members[usize::from(class.0)]
    }

    /// Whether a GPU is in `class`.
    #[inline]
    pub fn present(&self, class: Class) -> bool {
        self.present[usize::from(class.0 >> 6)] >> (class.0 & 63) & 1 == 1
    }

    /// The classes that a GPU is in, as bits.
    pub fn present_classes(&self) -> &[u64] {
        &self.present
    }

    /// Puts `gpu` into `state`.
    #[inline]
    pub fn set(&mut self, gpu: usize, state: State) {
        let from = self.space.class(self.state[gpu]);
        let to = self.space.class(state);
        self.state[gpu] = state;
        if from != to {
            let members = &mut self.members[usize::from(from.0)];
            members.remove(gpu);
            if members.is_empty() {
                self.present[usize::from(from.0 >> 6)] &= !(1 << (from.0 & 63));
            }
            self.enter(to, gpu);
        }
    }

    /// Takes `device` off `gpu`; it must be cut there.
    #[inline]
    pub fn take(&mut self, gpu: usize, device: usize) {
        self.set(gpu, self.space.take(self.state[gpu], device));
    }

    #[inline]
    fn enter(&mut self, class: Class, gpu: usize) {
        self.members[usize::from(class.0)].insert(gpu);
        self.present[usize::from(class.0 >> 6)] |= 1 << (class.0 & 63);
    }
}
