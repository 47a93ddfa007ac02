//! What fits on a GPU, told from its counters alone: GPUs with equal counters
//! and equal use are one state, and each question about a state is answered
//! once. Which GPU is in which state, and on which node, is not known here.

mod charge;

use std::collections::BTreeMap;

pub use charge::{Counter, charge};

use crate::model::{Device, Gpu, Units};

/// The most devices of one GPU that are looked at; sets of them are bit masks.
pub(crate) const MAX_DEVICES: usize = 64;

/// What room of a state is counted in: parts of each counter.
const PARTS: u64 = 840;

/// Names a state of a [`Fleet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StateId(u32);

/// A device chosen on a GPU; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pick {
    /// Its units if the smallest was asked for, else 0.
    pub size: Units,
    /// Room on the GPU before; less is a better fit.
    pub room: u64,
    /// Units of the devices that fit no more once it is taken.
    pub loss: Units,
    /// Its position on the GPU.
    pub device: u8,
}

/// The states that the GPUs of a cluster are in or come into.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    cards: Vec<Card>,
    states: Vec<State>,
}

/// A sort of GPU: what equal GPUs have in common.
#[derive(Debug)]
struct Card {
    capacity: Vec<u64>,
    devices: Vec<Part>,
    known: BTreeMap<Vec<u64>, StateId>,
}

/// A device of a card.
#[derive(Debug)]
struct Part {
    consumes: Vec<u64>,
    units: Units,
}

#[derive(Debug)]
struct State {
    card: usize,
    used: Vec<u64>,
    fits: u64,
    room: u64,
    /// By device, see [`Pick::loss`]; empty until asked for.
    losses: Vec<Units>,
    /// By device, the state once it is taken.
    next: Vec<Option<StateId>>,
    /// Answers of [`Fleet::most`].
    most: Vec<(u64, bool, u32)>,
}

impl Fleet {
    /// The state of `gpu` as it is, or as if nothing were held on it.
    pub fn state_of(&mut self, gpu: &Gpu, emptied: bool) -> StateId {
        let card = self.card_of(gpu);
        let mut used = vec![0; gpu.capacity.len()];
        if !emptied {
            for (slot, held) in used.iter_mut().zip(&gpu.used) {
                *slot = *held;
            }
        }
        self.enter(card, used)
    }

    /// Devices that fit, as a bit mask.
    pub fn fits(&self, state: StateId) -> u64 {
        self.state(state).fits
    }

    /// How much is free, over all counters; comparable between cards.
    pub fn room(&self, state: StateId) -> u64 {
        self.state(state).room
    }

    /// What a tenant is charged for `device`.
    pub fn units(&self, state: StateId, device: u8) -> Units {
        self.cards[self.state(state).card].devices[usize::from(device)].units
    }

    /// The best of the devices in `mask` that fit.
    pub fn pick(&mut self, state: StateId, mask: u64, smallest: bool) -> Option<Pick> {
        let available = mask & self.fits(state);
        devices_in(available).map(|device| self.weigh(state, device, smallest)).min()
    }

    /// How good a choice `device` is; it must fit.
    pub fn weigh(&mut self, state: StateId, device: u8, smallest: bool) -> Pick {
        if self.state(state).losses.is_empty() {
            self.states[state.0 as usize].losses = self.losses(state);
        }
        let loss = self.state(state).losses[usize::from(device)];
        let size = if smallest { self.units(state, device) } else { 0 };
        Pick { size, room: self.room(state), loss, device }
    }

    /// The state once `device` is taken. Where it does not fit, more is in use than there is.
    pub fn take(&mut self, state: StateId, device: u8) -> StateId {
        if let Some(next) = self.state(state).next[usize::from(device)] {
            return next;
        }
        let State { card, ref used, .. } = *self.state(state);
        let consumes = &self.cards[card].devices[usize::from(device)].consumes;
        let used = used.iter().zip(consumes).map(|(held, more)| held.saturating_add(*more)).collect();
        let next = self.enter(card, used);
        self.states[state.0 as usize].next[usize::from(device)] = Some(next);
        next
    }

    /// The state once `device`, which is in use, is given back.
    pub fn free(&mut self, state: StateId, device: u8) -> StateId {
        let State { card, ref used, .. } = *self.state(state);
        let consumes = &self.cards[card].devices[usize::from(device)].consumes;
        let used = used.iter().zip(consumes).map(|(held, less)| held.saturating_sub(*less)).collect();
        self.enter(card, used)
    }

    /// How many devices of `mask` can be taken one after the other, each the best at its time.
    pub fn most(&mut self, state: StateId, mask: u64, smallest: bool) -> u32 {
        if mask & self.fits(state) == 0 {
            return 0;
        }
        let known = self.state(state).most.iter().find(|known| (known.0, known.1) == (mask, smallest));
        if let Some(&(_, _, count)) = known {
            return count;
        }
        let mut count = 0;
        let mut at = state;
        while let Some(pick) = self.pick(at, mask, smallest) {
            at = self.take(at, pick.device);
            count += 1;
        }
        self.states[state.0 as usize].most.push((mask, smallest, count));
        count
    }

    fn state(&self, id: StateId) -> &State {
        &self.states[id.0 as usize]
    }

    fn card_of(&mut self, gpu: &Gpu) -> usize {
        if let Some(known) = self.cards.iter().position(|card| card.is_of(gpu)) {
            return known;
        }
        let devices = looked_at(gpu).map(|d| Part { consumes: d.consumes.clone(), units: d.units }).collect();
        self.cards.push(Card { capacity: gpu.capacity.clone(), devices, known: BTreeMap::new() });
        self.cards.len() - 1
    }

    fn enter(&mut self, card: usize, used: Vec<u64>) -> StateId {
        let card_index = card;
        let card = &mut self.cards[card];
        if let Some(&known) = card.known.get(&used) {
            return known;
        }
        let id = StateId(u32::try_from(self.states.len()).unwrap_or(u32::MAX));
        let state = State {
            card: card_index,
            fits: card.fits(&used),
            room: card.room(&used),
            losses: Vec::new(),
            next: vec![None; card.devices.len()],
            most: Vec::new(),
            used: used.clone(),
        };
        card.known.insert(used, id);
        self.states.push(state);
        id
    }

    fn losses(&self, state: StateId) -> Vec<Units> {
        let State { card, ref used, fits, .. } = *self.state(state);
        let card = &self.cards[card];
        let before = card.units_in(fits);
        let loss = |device: &Part| {
            let after: Vec<u64> =
                used.iter().zip(&device.consumes).map(|(a, b)| a.saturating_add(*b)).collect();
            before - card.units_in(card.fits(&after) & fits)
        };
        card.devices.iter().map(loss).collect()
    }
}

impl Card {
    fn is_of(&self, gpu: &Gpu) -> bool {
        let same =
            |(part, device): (&Part, &Device)| part.units == device.units && part.consumes == device.consumes;
        self.capacity == gpu.capacity
            && self.devices.len() == looked_at(gpu).count()
            && self.devices.iter().zip(looked_at(gpu)).all(same)
    }

    fn fits(&self, used: &[u64]) -> u64 {
        let fits = |part: &Part| {
            self.excludes_itself(part)
                && part
                    .consumes
                    .iter()
                    .zip(used)
                    .zip(&self.capacity)
                    .all(|((more, held), all)| *more == 0 || held.saturating_add(*more) <= *all)
        };
        self.devices.iter().enumerate().filter(|(_, part)| fits(part)).fold(0, |mask, (i, _)| mask | 1 << i)
    }

    /// A device that leaves half of every counter could be given out twice, and
    /// one that names other counters than its GPU has cannot be judged: neither is used.
    fn excludes_itself(&self, part: &Part) -> bool {
        part.consumes.len() == self.capacity.len()
            && part.consumes.iter().zip(&self.capacity).any(|(takes, all)| *takes > all / 2)
    }

    fn room(&self, used: &[u64]) -> u64 {
        let parts = |(all, held): (&u64, &u64)| {
            let free = u128::from(all.saturating_sub(*held)) * u128::from(PARTS);
            free.checked_div(u128::from(*all)).unwrap_or(0)
        };
        let sum: u128 = self.capacity.iter().zip(used).map(parts).sum();
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    fn units_in(&self, mask: u64) -> Units {
        devices_in(mask).map(|device| self.devices[usize::from(device)].units).sum()
    }
}

/// The devices of a mask, in order.
pub(crate) fn devices_in(mut mask: u64) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let device = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        u8::try_from(device).ok().filter(|device| usize::from(*device) < MAX_DEVICES)
    })
}

/// The devices of a GPU that take part in decisions.
pub(crate) fn looked_at(gpu: &Gpu) -> impl Iterator<Item = &Device> {
    gpu.devices.iter().take(MAX_DEVICES)
}

#[cfg(test)]
mod tests;
