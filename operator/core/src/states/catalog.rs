//! The cards of a cluster as it is published: which GPUs are of one sort, and
//! what is asked for on them.

use std::collections::BTreeMap;

use crate::model::{Device, Gpu};

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
        let mut before: Option<&Gpu> = None;
        for gpu in gpus {
            // Equal neighbours bring nothing new.
            let same = |(a, b): (&Device, &Device)| a.kind == b.kind && a.units == b.units;
            let seen = before.is_some_and(|before| {
                before.devices.len() == gpu.devices.len() && before.devices.iter().zip(&gpu.devices).all(same)
            });
            for device in gpu.devices.iter().filter(|_| !seen) {
                let most = units.entry(&device.kind).or_default();
                *most = device.units.max(*most);
            }
            before = Some(gpu);
        }
        let number: BTreeMap<&str, usize> = units.keys().copied().zip(0..64).collect();
        let mut cards: Vec<(Card, &Gpu)> = Vec::new();
        let mut last = 0;
        let card_of = gpus
            .iter()
            .map(|gpu| {
                let known = cards.get(last).is_some_and(|(_, first)| alike(first, gpu));
                let known =
                    known.then_some(last).or_else(|| cards.iter().position(|(_, first)| alike(first, gpu)));
                last = known.unwrap_or_else(|| {
                    let devices = gpu.devices.iter().map(|device| CardDevice {
                        consumes: device.consumes.clone(),
                        serves: number.get(device.kind.as_str()).map_or(0, |demand| 1 << demand),
                    });
                    cards.push((Card { capacity: gpu.capacity.clone(), devices: devices.collect() }, gpu));
                    cards.len() - 1
                });
                last
            })
            .collect();
        let cards = cards.into_iter().map(|(card, _)| card).collect();
        let worth = number.keys().map(|kind| slices(units[kind])).collect();
        Self { cards, card_of, kinds: number.keys().map(|kind| (*kind).to_owned()).collect(), worth }
    }

    /// The state of GPU `gpu` on which the devices `held` are in use, if that can be.
    pub fn state(&self, space: &Space, gpu: usize, held: u64) -> Option<State> {
        space.state(self.card_of[gpu], held)
    }
}

/// Whether two GPUs are of one sort: whatever their devices are called and charged.
fn alike(a: &Gpu, b: &Gpu) -> bool {
    let same = |(a, b): (&Device, &Device)| a.kind == b.kind && a.consumes == b.consumes;
    a.capacity == b.capacity
        && a.devices.len() == b.devices.len()
        && a.devices.iter().zip(&b.devices).all(same)
}

/// Units are at most 56 for a GPU.
#[allow(clippy::cast_precision_loss)]
fn slices(units: u64) -> f64 {
    units as f64 / 7.0
}
