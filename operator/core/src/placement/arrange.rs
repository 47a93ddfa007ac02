//! The devices of one pod on the GPUs of one node. Which node, and whether the
//! pod may go there at all, is not decided here.

use super::demand::{Demand, Item};
use crate::geometry::{Fleet, Pick, StateId, devices_in};
use crate::model::Units;

/// How many choices are looked at for one pod on one node before it counts as
/// not fitting. Equal devices need one choice each; a mix of devices may have to
/// take choices back, and this bounds how often.
const SEARCH_STEPS: u32 = 2_000;

/// A GPU of the node, for one demand.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Its state.
    pub state: StateId,
    /// For each item of the demand, the devices that will do and are not closed.
    pub masks: Vec<u64>,
}

/// One device chosen: of which item, on which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub item: usize,
    pub slot: usize,
    pub pick: Pick,
}

/// Devices for one pod, in the order of the demand's items; `None` if it does
/// not fit. The slots' states are those after it when it does.
pub(crate) fn arrange(fleet: &mut Fleet, slots: &mut [Slot], demand: &Demand) -> Option<Vec<Chosen>> {
    let enough = |(index, item): (usize, &Item)| {
        let fits = |slot: &Slot| u64::from((slot.masks[index] & fleet.fits(slot.state)).count_ones());
        slots.iter().map(fits).sum::<u64>() >= u64::from(item.count)
    };
    if !demand.items.iter().enumerate().all(enough) {
        return None;
    }
    let mut search = Search { fleet, demand, steps: SEARCH_STEPS, chosen: Vec::new() };
    search.fill(slots, 0, 0).then_some(search.chosen)
}

/// How many pods the node's devices suffice for, taken one after the other, and
/// how good a place the first of them gets.
pub(crate) fn offer(fleet: &mut Fleet, slots: &mut [Slot], demand: &Demand) -> (u64, Fitness) {
    if demand.items.is_empty() {
        return (u32::MAX.into(), Fitness::default());
    }
    // Equal devices are taken one by one anyway: their number is known by state.
    let equal = match demand.items.as_slice() {
        [item] => {
            let most = |slot: &Slot| u64::from(fleet.most(slot.state, slot.masks[0], item.smallest));
            Some(slots.iter().map(most).sum::<u64>() / u64::from(item.count))
        }
        _ => None,
    };
    if equal == Some(0) {
        return (0, Fitness::default());
    }
    let Some(first) = arrange(fleet, slots, demand) else { return (0, Fitness::default()) };
    let fitness = Fitness::of(&first);
    if let Some(pods) = equal {
        return (pods, fitness);
    }
    let mut pods = 1;
    while arrange(fleet, slots, demand).is_some() {
        pods += 1;
    }
    (pods, fitness)
}

/// How good a place is; less is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fitness {
    size: Units,
    room: u64,
    loss: Units,
}

impl Fitness {
    fn of(chosen: &[Chosen]) -> Self {
        chosen.iter().fold(Self::default(), |sum, chosen| Self {
            size: sum.size.saturating_add(chosen.pick.size),
            room: sum.room.saturating_add(chosen.pick.room),
            loss: sum.loss.saturating_add(chosen.pick.loss),
        })
    }
}

struct Search<'a> {
    fleet: &'a mut Fleet,
    demand: &'a Demand,
    steps: u32,
    chosen: Vec<Chosen>,
}

impl Search<'_> {
    /// Chooses the devices from item `item` on, of which `done` are chosen already.
    fn fill(&mut self, slots: &mut [Slot], item: usize, done: u32) -> bool {
        let demand = self.demand;
        let Some(wanted) = demand.items.get(item) else { return true };
        if done == wanted.count {
            return self.fill(slots, item + 1, 0);
        }
        let Some(best) = self.best(slots, item) else { return false };
        if self.choose(slots, item, done, best) {
            return true;
        }
        // One sort of device can't be in its own way; a mix can.
        if demand.items.len() == 1 {
            return false;
        }
        for choice in self.others(slots, item, best) {
            if self.steps == 0 {
                return false;
            }
            if self.choose(slots, item, done, choice) {
                return true;
            }
        }
        false
    }

    fn choose(&mut self, slots: &mut [Slot], item: usize, done: u32, (pick, slot): (Pick, usize)) -> bool {
        self.steps = self.steps.saturating_sub(1);
        let before = slots[slot].state;
        slots[slot].state = self.fleet.take(before, pick.device);
        self.chosen.push(Chosen { item, slot, pick });
        if self.fill(slots, item, done + 1) {
            return true;
        }
        self.chosen.pop();
        slots[slot].state = before;
        false
    }

    fn best(&mut self, slots: &[Slot], item: usize) -> Option<(Pick, usize)> {
        let smallest = self.demand.items[item].smallest;
        let pick = |(index, slot): (usize, &Slot)| {
            Some((self.fleet.pick(slot.state, slot.masks[item], smallest)?, index))
        };
        slots.iter().enumerate().filter_map(pick).min_by_key(|(pick, index)| rank(pick, *index))
    }

    /// All choices but `best`, best first, those on equal GPUs once.
    fn others(&mut self, slots: &[Slot], item: usize, best: (Pick, usize)) -> Vec<(Pick, usize)> {
        let smallest = self.demand.items[item].smallest;
        let mut choices = Vec::new();
        for (index, slot) in slots.iter().enumerate() {
            let same = |other: &Slot| other.state == slot.state && other.masks == slot.masks;
            if slots[..index].iter().any(same) {
                continue;
            }
            for device in devices_in(slot.masks[item] & self.fleet.fits(slot.state)) {
                choices.push((self.fleet.weigh(slot.state, device, smallest), index));
            }
        }
        choices.retain(|choice| *choice != best);
        choices.sort_by_key(|(pick, index)| rank(pick, *index));
        choices
    }
}

fn rank(pick: &Pick, slot: usize) -> (Units, u64, Units, usize, u8) {
    (pick.size, pick.room, pick.loss, slot, pick.device)
}
