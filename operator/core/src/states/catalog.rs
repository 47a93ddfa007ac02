//! The cards of a cluster as it is published: which GPUs are of one sort, and
//! what is asked for on them.

use std::collections::BTreeMap;

use crate::model::Gpu;

use super::card::{Card, CardDevice};
use super::space::{Space, State};

/// The sorts of GPUs of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// The sorts. Device `i` of a card is device `i` of each of its GPUs.
    pub cards: Vec<Card>,
    /// The sort of each GPU, in the order of the snapshot.
    pub card_of: Vec<usize>,
    /// What demand `d` asks for: the kind of a device, over all cards.
    pub kinds: Vec<String>,
    /// What a job of each demand is worth, in slices: its units by seven.
    pub worth: Vec<f64>,
}

impl Catalog {
    /// Of `gpus`, where every kind of device is a demand of its own. Of more than 64 kinds the last are not told
    /// apart, and no device is said to serve them.
    pub fn of(gpus: &[Gpu]) -> Self {
        let mut units: BTreeMap<&str, u64> = BTreeMap::new();
        for device in gpus.iter().flat_map(|gpu| &gpu.devices) {
            let most = units.entry(&device.kind).or_default();
            *most = device.units.max(*most);
        }
        let number: BTreeMap<&str, usize> = units.keys().copied().zip(0..64).collect();
        let mut known: BTreeMap<Card, usize> = BTreeMap::new();
        let mut cards = Vec::new();
        let card_of = gpus
            .iter()
            .map(|gpu| {
                let devices = gpu.devices.iter().map(|device| CardDevice {
                    consumes: device.consumes.clone(),
                    serves: number.get(device.kind.as_str()).map_or(0, |demand| 1 << demand),
                });
                let card = Card { capacity: gpu.capacity.clone(), devices: devices.collect() };
                *known.entry(card.clone()).or_insert_with(|| {
                    cards.push(card);
                    cards.len() - 1
                })
            })
            .collect();
        let worth = number.keys().map(|kind| slices(units[kind])).collect();
        Self { cards, card_of, kinds: number.keys().map(|kind| (*kind).to_owned()).collect(), worth }
    }

    /// The state of GPU `gpu` on which the devices `held` are in use, if that can be.
    pub fn state(&self, space: &Space, gpu: usize, held: u64) -> Option<State> {
        space.state(self.card_of[gpu], held)
    }
}

/// Units are at most 56 for a GPU.
#[allow(clippy::cast_precision_loss)]
fn slices(units: u64) -> f64 {
    units as f64 / 7.0
}
