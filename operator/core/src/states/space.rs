//! Every state that some cards can be in, found from their counters alone.
//!
//! A [`State`] is a set of devices that are cut at the same time. States that
//! no sequence of arrivals and departures can tell apart form a [`Class`]; an
//! H100 with seven sorts of partitions has 723 states and 100 classes.

use std::collections::HashMap;

use super::card::Card;
use super::lump::lump;
use super::set::Bits;

/// Something jobs ask for one of: index below [`Space::demands`].
pub type Demand = usize;

/// A set of devices of one card, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State(pub u32);

/// States that behave alike, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub u16);

/// Why the states of some cards could not be listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpaceError {
    /// More states than the limit.
    #[error("card {card} has more than {limit} states: place on it without a table")]
    TooManyStates {
        /// Index of the card.
        card: usize,
        /// The limit.
        limit: usize,
    },
    /// More devices than a mask has bits.
    #[error("card {card} has {devices} devices, of which at most 64 can be told apart")]
    TooManyDevices {
        /// Index of the card.
        card: usize,
        /// How many it has.
        devices: usize,
    },
    /// A device that takes nothing could be given out without end.
    #[error("device {device} of card {card} takes nothing, or has another number of counters than the card")]
    BadDevice {
        /// Index of the card.
        card: usize,
        /// Index of the device.
        device: usize,
    },
    /// More classes than their number holds.
    #[error("the cards have {classes} classes of states, of which at most 65,535 can be told apart")]
    TooManyClasses {
        /// How many there are.
        classes: usize,
    },
}

/// States of one card beyond which no table is made.
pub const STATE_LIMIT: usize = 1 << 18;

/// The states and classes of some cards.
#[derive(Clone, Debug)]
pub struct Space {
    cards: Vec<Card>,
    first_state: Vec<u32>,
    devices: Vec<u64>,
    /// For each state a row of as many entries as its card has devices: the state after the device is put in
    /// or, if it is in, taken out. `NONE` where it does not fit.
    toggled: Vec<u32>,
    row: Vec<u32>,
    class: Vec<Class>,
    card_of: Vec<u8>,
    demands: usize,
    classes: Vec<ClassInfo>,
    /// For each state and demand, the devices that alone keep the demand out.
    blockers: Vec<u64>,
}

#[derive(Clone, Debug)]
struct ClassInfo {
    representative: State,
    fits: u64,
    /// For each demand the classes it can lead to.
    targets: Vec<Vec<Class>>,
}

pub(super) const NONE: u32 = u32::MAX;

impl Space {
    /// Lists the states of `cards`, to which `demands` sorts of jobs come, all of which live equally long.
    pub fn new(cards: &[Card], demands: usize) -> Result<Self, SpaceError> {
        Self::with_lives(cards, demands, &vec![0; demands])
    }

    /// The same where the jobs of a demand live about as long as those of others with the same number in `life`,
    /// and longer or shorter than the rest. States whose jobs differ in this are then different classes.
    pub fn with_lives(cards: &[Card], demands: usize, life: &[u8]) -> Result<Self, SpaceError> {
        let space = Self::listed(cards, demands)?;
        let (classes, count) = lump(&space, life);
        space.classify(classes, count)
    }

    /// The same, but each state is a class of its own: for rules that tell apart what makes no difference.
    pub fn unlumped(cards: &[Card], demands: usize) -> Result<Self, SpaceError> {
        let space = Self::listed(cards, demands)?;
        let count = space.states();
        space.classify(
            (0..count).map(|state| Class(u16::try_from(state).unwrap_or(u16::MAX))).collect(),
            count,
        )
    }

    fn classify(mut self, classes: Vec<Class>, count: usize) -> Result<Self, SpaceError> {
        if count > usize::from(u16::MAX) {
            return Err(SpaceError::TooManyClasses { classes: count });
        }
        self.class = classes;
        self.describe_classes(count);
        self.blockers = (0..self.states() * self.demands)
            .map(|index| {
                let state = State(id(index / self.demands));
                let alone = |&device: &usize| {
                    self.fits(self.class(self.take(state, device))) >> (index % self.demands) & 1 == 1
                };
                Bits(self.devices(state)).filter(alone).fold(0, |mask, device| mask | 1 << device)
            })
            .collect();
        Ok(self)
    }

    fn listed(cards: &[Card], demands: usize) -> Result<Self, SpaceError> {
        let mut space = Self {
            cards: cards.to_vec(),
            first_state: Vec::new(),
            devices: Vec::new(),
            toggled: Vec::new(),
            row: Vec::new(),
            class: Vec::new(),
            card_of: Vec::new(),
            demands,
            classes: Vec::new(),
            blockers: Vec::new(),
        };
        for (index, card) in cards.iter().enumerate() {
            space.add_card(index, card)?;
        }
        Ok(space)
    }

    fn add_card(&mut self, index: usize, card: &Card) -> Result<(), SpaceError> {
        let width = card.devices.len();
        if width > 64 {
            return Err(SpaceError::TooManyDevices { card: index, devices: width });
        }
        if let Some(device) = card.devices.iter().position(|device| {
            device.consumes.len() != card.capacity.len() || device.consumes.iter().all(|&takes| takes == 0)
        }) {
            return Err(SpaceError::BadDevice { card: index, device });
        }
        let first = self.devices.len();
        self.first_state.push(id(first));
        let mut known = HashMap::from([(0_u64, id(first))]);
        let mut free = vec![card.capacity.clone()];
        self.devices.push(0);
        let mut at = first;
        while at < self.devices.len() {
            let mask = self.devices[at];
            let left = free[at - first].clone();
            self.row.push(id(self.toggled.len()));
            self.card_of.push(u8::try_from(index).unwrap_or(u8::MAX));
            for (device, sort) in card.devices.iter().enumerate() {
                let bit = 1 << device;
                let entry = if mask & bit != 0 {
                    // Breadth first: the state without the device was found before.
                    known[&(mask & !bit)]
                } else if sort.consumes.iter().zip(&left).all(|(takes, have)| takes <= have) {
                    let next = id(self.devices.len());
                    *known.entry(mask | bit).or_insert_with(|| {
                        self.devices.push(mask | bit);
                        free.push(
                            left.iter().zip(&sort.consumes).map(|(have, takes)| have - takes).collect(),
                        );
                        next
                    })
                } else {
                    NONE
                };
                self.toggled.push(entry);
            }
            at += 1;
            if self.devices.len() - first > STATE_LIMIT {
                return Err(SpaceError::TooManyStates { card: index, limit: STATE_LIMIT });
            }
        }
        Ok(())
    }

    fn describe_classes(&mut self, count: usize) {
        let mut representatives = vec![None; count];
        for (state, class) in self.class.iter().enumerate() {
            representatives[usize::from(class.0)].get_or_insert(State(id(state)));
        }
        self.classes = representatives
            .into_iter()
            .flatten()
            .map(|representative| {
                let targets: Vec<Vec<Class>> = (0..self.demands)
                    .map(|demand| {
                        let mut to: Vec<Class> = self
                            .ways(representative, demand)
                            .filter_map(|device| self.put(representative, device))
                            .map(|next| self.class(next))
                            .collect();
                        to.sort_unstable();
                        to.dedup();
                        to
                    })
                    .collect();
                let fits = targets.iter().enumerate().filter(|(_, to)| !to.is_empty());
                let fits = fits.fold(0, |mask, (demand, _)| mask | 1 << demand);
                ClassInfo { representative, fits, targets }
            })
            .collect();
    }

    /// The cards.
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// Number of sorts of jobs.
    pub fn demands(&self) -> usize {
        self.demands
    }

    /// Number of states, over all cards.
    pub fn states(&self) -> usize {
        self.devices.len()
    }

    /// Number of classes, over all cards.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// The state in which a card is whole.
    pub fn empty(&self, card: usize) -> State {
        State(self.first_state[card])
    }

    /// The state of `card` in which exactly `devices` are cut (bit `i` is device `i`), if there is one.
    pub fn state(&self, card: usize, devices: u64) -> Option<State> {
        Bits(devices).try_fold(self.empty(card), |state, device| {
            (device < self.cards[card].devices.len()).then(|| self.put(state, device)).flatten()
        })
    }

    /// The devices that are cut in `state`, as bits.
    pub fn devices(&self, state: State) -> u64 {
        self.devices[state.0 as usize]
    }

    /// The card of `state`.
    pub fn card(&self, state: State) -> usize {
        usize::from(self.card_of[state.0 as usize])
    }

    /// The class of `state`.
    #[inline]
    pub fn class(&self, state: State) -> Class {
        self.class[state.0 as usize]
    }

    /// `state` with `device` cut too, if it fits.
    pub fn put(&self, state: State, device: usize) -> Option<State> {
        let absent = self.devices(state) >> device & 1 == 0;
        let next = self.toggled[self.row[state.0 as usize] as usize + device];
        (absent && next != NONE).then_some(State(next))
    }

    /// `state` without `device`; `device` must be cut in it.
    #[inline]
    pub fn take(&self, state: State, device: usize) -> State {
        debug_assert!(self.devices(state) >> device & 1 == 1, "device {device} is not cut in {state:?}");
        State(self.toggled[self.row[state.0 as usize] as usize + device])
    }

    /// The devices that could be cut from `state` for `demand`, lowest first.
    pub fn ways(&self, state: State, demand: Demand) -> impl Iterator<Item = usize> + '_ {
        let card = &self.cards[self.card(state)];
        (0..card.devices.len())
            .filter(move |&device| card.devices[device].serves >> demand & 1 == 1)
            .filter(move |&device| self.put(state, device).is_some())
    }

    /// The devices of which each alone, were it not cut, would let `demand` into `state`, as bits.
    #[inline]
    pub fn blockers(&self, state: State, demand: Demand) -> u64 {
        self.blockers[state.0 as usize * self.demands + demand]
    }

    /// A state of `class`.
    pub fn representative(&self, class: Class) -> State {
        self.classes[usize::from(class.0)].representative
    }

    /// The demands that fit into `class`, as bits.
    pub fn fits(&self, class: Class) -> u64 {
        self.classes[usize::from(class.0)].fits
    }

    /// The classes to which `demand` can lead from `class`.
    pub fn targets(&self, class: Class, demand: Demand) -> &[Class] {
        &self.classes[usize::from(class.0)].targets[demand]
    }

    /// All classes.
    pub fn every_class(&self) -> impl Iterator<Item = Class> + use<> {
        (0..self.classes.len()).map(|class| Class(u16::try_from(class).unwrap_or(u16::MAX)))
    }

    /// The slices that are in use in `state`; see [`Card::slices_of`].
    pub fn used_slices(&self, state: State) -> u64 {
        let card = &self.cards[self.card(state)];
        Bits(self.devices(state)).fold(0, |used, device| used | card.slices_of(device))
    }

    /// How many slices are free in `state`.
    pub fn free_slices(&self, state: State) -> u32 {
        let all = self.cards[self.card(state)].slices();
        (all & !self.used_slices(state)).count_ones()
    }
}

fn id(index: usize) -> u32 {
    // Bounded by `STATE_LIMIT` states of at most 64 entries for each card.
    u32::try_from(index).unwrap_or(NONE)
}
