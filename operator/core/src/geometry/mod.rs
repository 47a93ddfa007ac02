//! What fits on a GPU, told from its counters alone: GPUs with equal counters
//! and equal use are one state, and each question about a state is answered
//! once. Which GPU is in which state, and on which node, is not known here.

mod cards;
mod charge;
mod kept;

use std::collections::HashMap;

pub(crate) use cards::Cards;
pub use charge::{Counter, charge};

use crate::model::{Device, Gpu, PlacementPolicy, Units};
use crate::policy::Scorer;
use crate::states;

/// The most devices of one GPU that are looked at; sets of them are bit masks.
pub(crate) const MAX_DEVICES: usize = 64;

/// What room of a state is counted in: parts of each counter.
const PARTS: u64 = 840;

/// Names a state of a [`Fleet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StateId(pub u32);

/// A device chosen on a GPU; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pick {
    /// Its units if the smallest was asked for, else 0.
    pub size: Units,
    /// Whether the policy knows the GPU's state; one that others hold parts of is used up first.
    pub known: bool,
    /// What it costs by the policy, if the state is known; see [`Scorer`].
    pub cost: i64,
    /// If not: room on the GPU before; less is a better fit.
    pub room: u64,
    /// Units of the devices that fit no more once it is taken.
    pub loss: Units,
    /// Its position on the GPU.
    pub device: u8,
}

/// The states that the GPUs of a cluster are in or come into.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    scorer: Option<Scorer>,
    cards: Vec<Card>,
    states: Vec<State>,
    /// The card of the last GPU that was looked at: the next is often the same.
    last: usize,
    /// By the numbers that others give cards, the card.
    numbers: Vec<Option<usize>>,
}

/// A sort of GPU: what equal GPUs have in common.
#[derive(Debug)]
struct Card {
    capacity: Vec<u64>,
    devices: Vec<Part>,
    /// Its number among those whose states the policy knows.
    in_space: Option<usize>,
    known: HashMap<(Option<u64>, Vec<u64>), StateId>,
    /// The state in which nothing is in use, once it was asked for.
    whole: Option<StateId>,
}

/// A device of a card.
#[derive(Debug)]
struct Part {
    kind: String,
    consumes: Vec<u64>,
    units: Units,
}

#[derive(Debug)]
struct State {
    card: usize,
    used: Vec<u64>,
    /// The devices in use, if nothing else is and the policy knows the state.
    devices: Option<u64>,
    /// The same as the policy has it.
    known: Option<states::State>,
    fits: u64,
    room: u64,
    /// By device, see [`Pick`]; empty until asked for.
    picks: Vec<Pick>,
    /// By device, the state once it is taken.
    next: Vec<Option<StateId>>,
    /// By device, the state once it is given back.
    before: Vec<Option<StateId>>,
    /// Answers of [`Fleet::most`].
    most: Vec<(u64, bool, u32)>,
}

/// What is held of a GPU, and what is kept on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Devices that are held, as bits.
    pub held: u64,
    /// Devices that are kept for somebody, whether they are free or not.
    pub kept: u64,
}

impl Fleet {
    /// No states yet; devices are weighed by `scorer`.
    pub fn new(scorer: Scorer) -> Self {
        Self { scorer: Some(scorer), ..Self::default() }
    }

    /// The state of `gpu` as it is, or as if nothing were held on it.
    pub fn state_of(&mut self, gpu: &Gpu, emptied: bool) -> StateId {
        let card = self.card_of(gpu);
        self.state_on(card, gpu, emptied)
    }

    /// The same for a GPU of which is known that it is [`alike`] all that were told by the same `number`.
    pub fn state_of_known(&mut self, number: usize, gpu: &Gpu, emptied: bool) -> StateId {
        let card = self.known_card(number, gpu);
        self.state_on(card, gpu, emptied)
    }

    fn state_on(&mut self, card: usize, gpu: &Gpu, emptied: bool) -> StateId {
        if emptied {
            return self.whole(card);
        }
        if let Some(known) = self.state_of_held(card, gpu) {
            return known;
        }
        let mut used = vec![0; gpu.capacity.len()];
        for (slot, held) in used.iter_mut().zip(&gpu.used) {
            *slot = *held;
        }
        let mut ours = vec![0_i128; used.len()];
        let named = self.cards[card].add(&mut ours, gpu.held, 1);
        let devices = (named && ours.iter().zip(&used).all(|(ours, used)| *ours == i128::from(*used)))
            .then_some(gpu.held);
        self.enter(card, devices, used)
    }

    fn whole(&mut self, card: usize) -> StateId {
        if let Some(whole) = self.cards[card].whole {
            return whole;
        }
        let used = vec![0; self.cards[card].capacity.len()];
        let whole = self.enter(card, Some(0), used);
        self.cards[card].whole = Some(whole);
        whole
    }

    /// The state of a GPU on which nothing is in use but what is held: that of a whole one, once they are taken. From
    /// each state to the next is known after the first time, so that nothing has to be added up.
    fn state_of_held(&mut self, card: usize, gpu: &Gpu) -> Option<StateId> {
        let whole = self.whole(card);
        let state = devices_in(gpu.held).try_fold(whole, |state, device| {
            (self.fits(state) >> device & 1 == 1).then(|| self.take(state, device))
        })?;
        (self.state(state).used == gpu.used).then_some(state)
    }

    /// The state of `gpu` if `now` is held and kept on it, beside what others than vingt hold; `number` as in
    /// [`Fleet::state_of_known`].
    ///
    /// Where what is kept is not free yet, the state leaves just the room that there is both now and once what is
    /// in its way has left and what is kept is in use.
    pub fn state_with(&mut self, number: usize, gpu: &Gpu, now: Held) -> StateId {
        let index = self.known_card(number, gpu);
        let card = &self.cards[index];
        let mut used: Vec<i128> =
            (0..gpu.capacity.len()).map(|i| gpu.used.get(i).copied().unwrap_or(0).into()).collect();
        let mut foreign = used.clone();
        card.add(&mut foreign, gpu.held, -1);
        card.add(&mut used, now.held & !gpu.held, 1);
        card.add(&mut used, gpu.held & !now.held, -1);
        let leaving = card.in_the_way(now.held, now.kept);
        let mut then = used.clone();
        card.add(&mut then, leaving, -1);
        card.add(&mut then, now.kept, 1);
        let clean = leaving == 0 && now.held & now.kept == 0 && foreign.iter().all(|foreign| *foreign == 0);
        let most = used.iter().zip(&then).map(|(used, then)| u64::try_from(*used.max(then)).unwrap_or(0));
        let most = most.collect();
        self.enter(index, clean.then_some(now.held | now.kept), most)
    }

    /// Devices that fit, as a bit mask.
    pub fn fits(&self, state: StateId) -> u64 {
        self.state(state).fits
    }

    /// How much is free, over all counters; comparable between cards.
    pub fn room(&self, state: StateId) -> u64 {
        self.state(state).room
    }

    /// How much there is on a GPU of the same sort that is whole.
    pub fn room_of_whole(&self, state: StateId) -> u64 {
        let capacity = &self.cards[self.state(state).card].capacity;
        capacity.iter().map(|all| if *all == 0 { 0 } else { PARTS }).sum()
    }

    /// Whether nothing of the GPU is in use.
    pub fn is_whole(&self, state: StateId) -> bool {
        self.state(state).used.iter().all(|used| *used == 0)
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
        if self.state(state).picks.is_empty() {
            self.states[state.0 as usize].picks = self.picks(state);
        }
        let pick = self.state(state).picks[usize::from(device)];
        let size = if smallest { self.units(state, device) } else { 0 };
        Pick { size, ..pick }
    }

    /// The state once `device`, which fits, is taken.
    pub fn take(&mut self, state: StateId, device: u8) -> StateId {
        if let Some(next) = self.state(state).next[usize::from(device)] {
            return next;
        }
        let State { card, ref used, devices, .. } = *self.state(state);
        let consumes = &self.cards[card].devices[usize::from(device)].consumes;
        let used = used.iter().zip(consumes).map(|(held, more)| held.saturating_add(*more)).collect();
        let next = self.enter(card, devices.map(|devices| devices | 1 << device), used);
        self.states[state.0 as usize].next[usize::from(device)] = Some(next);
        next
    }

    /// The state once `device`, which is in use, is given back. Not for a GPU on which something is kept.
    pub fn give(&mut self, state: StateId, device: u8) -> StateId {
        if let Some(before) = self.state(state).before[usize::from(device)] {
            return before;
        }
        let State { card, ref used, devices, .. } = *self.state(state);
        let consumes = &self.cards[card].devices[usize::from(device)].consumes;
        let used = used.iter().zip(consumes).map(|(held, less)| held.saturating_sub(*less)).collect();
        let before = self.enter(card, devices.map(|devices| devices & !(1 << device)), used);
        self.states[state.0 as usize].before[usize::from(device)] = Some(before);
        before
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

    fn known_card(&mut self, number: usize, gpu: &Gpu) -> usize {
        if let Some(Some(card)) = self.numbers.get(number) {
            return *card;
        }
        let card = self.card_of(gpu);
        if self.numbers.len() <= number {
            self.numbers.resize(number + 1, None);
        }
        self.numbers[number] = Some(card);
        card
    }

    fn card_of(&mut self, gpu: &Gpu) -> usize {
        // Whether the policy knows it counts: which cards came before must not matter.
        let in_space = self.scorer.as_ref().and_then(|scorer| scorer.card_of(gpu));
        let same = |card: &Card| card.in_space == in_space && card.is_of(gpu);
        let known = self.cards.get(self.last).is_some_and(same).then_some(self.last);
        let known = known.or_else(|| self.cards.iter().position(same));
        self.last = known.unwrap_or_else(|| {
            let part =
                |d: &Device| Part { kind: d.kind.clone(), consumes: d.consumes.clone(), units: d.units };
            let devices = looked_at(gpu).map(part).collect();
            let known = HashMap::new();
            self.cards.push(Card { capacity: gpu.capacity.clone(), devices, in_space, known, whole: None });
            self.cards.len() - 1
        });
        self.last
    }

    /// The state in which `used` is in use, by just `devices` if that is known.
    fn enter(&mut self, card: usize, devices: Option<u64>, used: Vec<u64>) -> StateId {
        let card_index = card;
        let card = &mut self.cards[card];
        // Without a policy that tells them apart, states of equal use are one.
        let devices = devices.filter(|_| card.in_space.is_some());
        let key = (devices, used);
        if let Some(&known) = card.known.get(&key) {
            return known;
        }
        let (devices, used) = key.clone();
        let known = card.in_space.zip(devices).zip(self.scorer.as_ref());
        let known = known.and_then(|((card, devices), scorer)| scorer.state(card, devices));
        let id = StateId(u32::try_from(self.states.len()).unwrap_or(u32::MAX));
        let state = State {
            card: card_index,
            fits: card.fits(&used),
            room: card.room(&used),
            picks: Vec::new(),
            next: vec![None; card.devices.len()],
            before: vec![None; card.devices.len()],
            most: Vec::new(),
            used,
            devices,
            known,
        };
        card.known.insert(key, id);
        self.states.push(state);
        id
    }

    fn picks(&self, state: StateId) -> Vec<Pick> {
        let State { card, ref used, fits, known, room, .. } = *self.state(state);
        let card = &self.cards[card];
        let before = card.units_in(fits);
        let loss = |device: &Part| {
            let after: Vec<u64> =
                used.iter().zip(&device.consumes).map(|(a, b)| a.saturating_add(*b)).collect();
            before - card.units_in(card.fits(&after) & fits)
        };
        let policy = self.scorer.as_ref().map_or(PlacementPolicy::BestFit, Scorer::policy);
        let pick = |(part, device): (&Part, u8)| {
            let price =
                known.zip(self.scorer.as_ref()).and_then(|(known, scorer)| scorer.price(known, device));
            let (known, cost) = (price.is_some(), price.unwrap_or(0));
            let room = match policy {
                _ if known => 0,
                PlacementPolicy::FirstFit => 0,
                PlacementPolicy::Spread => u64::MAX - room,
                _ => room,
            };
            let loss = if policy == PlacementPolicy::FirstFit { 0 } else { loss(part) };
            Pick { size: 0, known, cost, room, loss, device }
        };
        card.devices.iter().zip(0..).map(pick).collect()
    }
}

impl Card {
    fn is_of(&self, gpu: &Gpu) -> bool {
        let same = |(part, device): (&Part, &Device)| {
            part.units == device.units
                && part.consumes == device.consumes
                && (self.in_space.is_none() || part.kind == device.kind)
        };
        self.capacity == gpu.capacity
            && self.devices.len() == looked_at(gpu).count()
            && self.devices.iter().zip(looked_at(gpu)).all(same)
    }

    /// Adds `times` what `devices` consume to `sum`; whether there are such devices.
    fn add(&self, sum: &mut [i128], devices: u64, times: i128) -> bool {
        devices_in(devices).all(|device| {
            let Some(part) = self.devices.get(usize::from(device)) else { return false };
            for (slot, takes) in sum.iter_mut().zip(&part.consumes) {
                *slot += times * i128::from(*takes);
            }
            true
        })
    }

    /// The devices of `held` that cannot be beside some device of `kept`, even on a GPU that is empty else.
    fn in_the_way(&self, held: u64, kept: u64) -> u64 {
        let device = |device: u8| self.devices.get(usize::from(device));
        let both = |a: &Part, b: &Part| {
            let sums = a.consumes.iter().zip(&b.consumes).zip(&self.capacity);
            sums.into_iter().all(|((a, b), all)| a.saturating_add(*b) <= *all)
        };
        let blocks = |part: &Part| devices_in(kept).filter_map(device).any(|kept| !both(part, kept));
        let in_the_way = devices_in(held).filter(|&index| device(index).is_some_and(blocks));
        in_the_way.fold(0, |mask, index| mask | 1 << index)
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
