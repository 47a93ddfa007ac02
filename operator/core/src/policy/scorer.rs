//! A policy as the planner asks it: what it costs to take a device of a GPU
//! that is published as such a card, in such a state. Where a card's states
//! are too many to list, nothing is known of it here, and the planner goes by
//! what is free on its GPUs.

use std::cell::RefCell;
use std::sync::Arc;

use crate::geometry::Cards;
use crate::model::{Gpu, PlacementPolicy, Snapshot};
use crate::simulate::Table;
use crate::states::set::Bits;
use crate::states::{Card, Catalog, Space, SpaceError, State};

use super::greedy::{BestFit, FirstFit, Spread};
use super::{Features, Values, prior};

/// Costs are told apart to this part of a slice; what differs by less is equal.
const PARTS_OF_A_SLICE: f64 = 1024.0;

/// A policy for the cards of a cluster. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Scorer {
    policy: PlacementPolicy,
    known: Option<Arc<Known>>,
}

#[derive(Debug)]
struct Known {
    cards: Vec<Card>,
    kinds: Vec<String>,
    /// For each card of `cards`, its number in the table's space.
    in_space: Vec<Option<usize>>,
    table: Arc<Table>,
}

thread_local! {
    /// The last ones made: what they are made of, and what came of it.
    static MADE: RefCell<Vec<(PlacementPolicy, Catalog, Scorer)>> = const { RefCell::new(Vec::new()) };
}

/// How many are remembered. Clusters change their cards rarely.
const REMEMBERED: usize = 4;

impl Scorer {
    /// The policy that the settings of `snapshot` name, for its cards. Where places are to be learnt, by the values
    /// for a mix in which each kind of device is asked for as often as each other: better ones are
    /// [`Scorer::learnt`].
    pub fn new(snapshot: &Snapshot) -> Self {
        Self::for_cards(snapshot, &Cards::of(&snapshot.gpus))
    }

    /// The same, where it is known which GPUs are of one sort.
    pub(crate) fn for_cards(snapshot: &Snapshot, cards: &Cards) -> Self {
        let policy = snapshot.settings.placement;
        let one_each: Vec<Gpu> = cards.first.iter().map(|gpu| snapshot.gpus[*gpu].clone()).collect();
        let catalog = Catalog { card_of: Vec::new(), ..Catalog::of(&one_each) };
        MADE.with_borrow_mut(|made| {
            if let Some((.., scorer)) = made.iter().find(|(p, of, _)| *p == policy && *of == catalog) {
                return scorer.clone();
            }
            let scorer = Self::of(policy, &catalog);
            if made.len() == REMEMBERED {
                made.remove(0);
            }
            made.push((policy, catalog, scorer.clone()));
            scorer
        })
    }

    /// A policy for the cards of `catalog`; what is to be learnt is as in [`Scorer::new`].
    pub fn of(policy: PlacementPolicy, catalog: &Catalog) -> Self {
        Self { policy, known: known(policy, catalog).map(Arc::new) }
    }

    /// By a table that was learnt for the cards and the kinds of `catalog`.
    pub fn learnt(catalog: &Catalog, table: Arc<Table>) -> Self {
        let find = |card: &Card| table.space.cards().iter().position(|other| other == card);
        let in_space = catalog.cards.iter().map(find).collect();
        let (cards, kinds) = (catalog.cards.clone(), catalog.kinds.clone());
        let fits = table.space.demands() >= kinds.len();
        let known = fits.then(|| Arc::new(Known { cards, kinds, in_space, table }));
        Self { policy: PlacementPolicy::Learned, known }
    }

    /// Whether it is the same, or a clone of it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let same = match (&self.known, &other.known) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.policy == other.policy && same
    }

    /// Which policy it is.
    pub fn policy(&self) -> PlacementPolicy {
        self.policy
    }

    /// The number of the card that `gpu` is of, if its states are known.
    pub(crate) fn card_of(&self, gpu: &Gpu) -> Option<usize> {
        let known = self.known.as_ref()?;
        let is_of = |card: &Card| {
            let same = |(of_card, device): (&crate::states::CardDevice, &crate::model::Device)| {
                let demand = known.kinds.binary_search(&device.kind);
                of_card.serves == demand.map_or(0, |demand| 1 << demand)
                    && of_card.consumes == device.consumes
            };
            card.capacity == gpu.capacity
                && card.devices.len() == gpu.devices.len()
                && card.devices.iter().zip(&gpu.devices).all(same)
        };
        known.in_space[known.cards.iter().position(is_of)?]
    }

    /// The state of a card on which just the devices `held` are in use, if there is one.
    pub(crate) fn state(&self, card: usize, held: u64) -> Option<State> {
        self.known.as_ref()?.table.space.state(card, held)
    }

    /// What it costs to take `device` in `state`, in parts of a slice; `None` if it does not fit there, or no kind of
    /// device is known to be its.
    pub(crate) fn price(&self, state: State, device: u8) -> Option<i64> {
        let Table { space, ranking, .. } = &*self.known.as_ref()?.table;
        let device = usize::from(device);
        let after = space.put(state, device)?;
        let demand = Bits(space.cards()[space.card(state)].devices[device].serves).next()?;
        let price = ranking.price(space, demand, space.class(state), space.class(after));
        price.is_finite().then(|| rounded(price * PARTS_OF_A_SLICE))
    }
}

fn known(policy: PlacementPolicy, catalog: &Catalog) -> Option<Known> {
    let demands = catalog.kinds.len();
    let mut listed: Vec<usize> = (0..catalog.cards.len()).collect();
    let space = loop {
        let cards: Vec<Card> = listed.iter().map(|&card| catalog.cards[card].clone()).collect();
        if cards.is_empty() {
            return None;
        }
        let made = match policy {
            PlacementPolicy::Learned => Space::new(&cards, demands),
            // The simple rules tell apart what makes no difference later.
            _ => Space::unlumped(&cards, demands),
        };
        match made {
            Ok(space) => break Arc::new(space),
            // That card is placed on without a table.
            Err(
                SpaceError::TooManyStates { card, .. }
                | SpaceError::TooManyDevices { card, .. }
                | SpaceError::BadDevice { card, .. },
            ) => {
                listed.remove(card);
            }
            Err(SpaceError::TooManyClasses { .. }) => return None,
        }
    };
    let share = vec![1.0 / to_f64(demands.max(1)); demands];
    let table = match policy {
        PlacementPolicy::Learned => {
            let features = Features::promises(&space, &prior::HORIZONS, &vec![1.0; demands]);
            let weights = prior::CONSTANTS.weights(&features, &share, &catalog.worth);
            Table::of_values(&space, features.values(&weights))
        }
        PlacementPolicy::BestFit => Table::of_rule(&space, &BestFit),
        PlacementPolicy::FirstFit => Table::of_rule(&space, &FirstFit),
        PlacementPolicy::Fragmentation => Table::of_values(&space, Values::fragmentation(&space, &share)),
        PlacementPolicy::BlockedWindows => Table::of_values(&space, Values::blocked_windows(&space)),
        PlacementPolicy::Spread => Table::of_rule(&space, &Spread),
    };
    let number = |card: usize| listed.iter().position(|&other| other == card);
    let in_space = (0..catalog.cards.len()).map(number).collect();
    Some(Known { cards: catalog.cards.clone(), kinds: catalog.kinds.clone(), in_space, table })
}

/// Costs are some slices at most.
#[allow(clippy::cast_possible_truncation)]
fn rounded(cost: f64) -> i64 {
    cost.round() as i64
}

/// Numbers of kinds.
#[allow(clippy::cast_precision_loss)]
fn to_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
