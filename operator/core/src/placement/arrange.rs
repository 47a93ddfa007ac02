//! The devices of one pod on the GPUs of one node. Which node, and whether the
//! pod may go there at all, is not decided here.

use std::collections::BTreeSet;

use super::demand::{Demand, Item};
use crate::geometry::{Fleet, Pick, StateId, devices_in};
use crate::model::Units;

/// How many choices are taken back at most before pods count as not fitting on a
/// node. Equal devices take none back; a mix of devices may have to.
const SEARCH_STEPS: u32 = 500;

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

/// Devices for `pods` pods, pod by pod, each in the order of the demand's
/// items; `None` if they do not all fit. The slots' states are those after it
/// when they do, and undefined when not.
///
/// One after the other is tried first. Where different devices are in each
/// other's way, all are then looked at together: pods of one node may share its
/// GPUs in any way, so that `pods` times each item will do.
pub(crate) fn arrange(
    fleet: &mut Fleet,
    slots: &mut [Slot],
    demand: &Demand,
    pods: u32,
) -> Option<Vec<Vec<Chosen>>> {
    let before = slots.to_vec();
    let one_by_one: Option<Vec<_>> = (0..pods).map(|_| search(fleet, slots, &demand.items)).collect();
    if one_by_one.is_some() || demand.items.len() < 2 || pods < 2 {
        return one_by_one;
    }
    slots.clone_from_slice(&before);
    let times = |item: &Item| Item { count: item.count.saturating_mul(pods), ..item.clone() };
    let together: Vec<Item> = demand.items.iter().map(times).collect();
    let mut chosen = search(fleet, slots, &together)?.into_iter();
    let mut each = vec![Vec::new(); pods as usize];
    for item in &demand.items {
        for pod in &mut each {
            pod.extend(chosen.by_ref().take(item.count as usize));
        }
    }
    Some(each)
}

/// How many pods the node's devices suffice for, at most `limit` if different
/// devices are asked for, and how good a place the first of them gets.
pub(crate) fn offer(fleet: &mut Fleet, slots: &mut [Slot], demand: &Demand, limit: u32) -> (u64, Fitness) {
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
    let before = slots.to_vec();
    let Some(first) = search(fleet, slots, &demand.items) else { return (0, Fitness::default()) };
    let fitness = Fitness::of(first.iter().map(|chosen| &chosen.pick));
    if let Some(pods) = equal {
        return (pods, fitness);
    }
    let mut pods = 1;
    while pods < limit && search(fleet, slots, &demand.items).is_some() {
        pods += 1;
    }
    while pods < limit && arrange(fleet, &mut before.clone(), demand, pods + 1).is_some() {
        pods += 1;
    }
    (pods.into(), fitness)
}

/// Devices for the items, in their order; the slots are left as they were if there are not enough.
fn search(fleet: &mut Fleet, slots: &mut [Slot], items: &[Item]) -> Option<Vec<Chosen>> {
    let enough = |(index, item): (usize, &Item)| {
        let fits = |slot: &Slot| u64::from((slot.masks[index] & fleet.fits(slot.state)).count_ones());
        slots.iter().map(fits).sum::<u64>() >= u64::from(item.count)
    };
    if !items.iter().enumerate().all(enough) {
        return None;
    }
    let mut search = Search { fleet, items, steps: SEARCH_STEPS, chosen: Vec::new(), dead: BTreeSet::new() };
    search.fill(slots, 0, 0).then_some(search.chosen)
}

/// How good a place is; less is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fitness {
    size: Units,
    known: u32,
    cost: i64,
    room: u64,
    loss: Units,
}

/// Costs that differ by no more are nearly equal: a tenth of a slice.
const NEAR: i64 = 102;

impl Fitness {
    /// Of devices that are taken together.
    pub fn of<'a>(picks: impl Iterator<Item = &'a Pick>) -> Self {
        picks.fold(Self::default(), |sum, pick| sum.plus(pick))
    }

    /// With one device more.
    #[must_use]
    pub fn plus(&self, pick: &Pick) -> Self {
        Self {
            size: self.size.saturating_add(pick.size),
            known: self.known.saturating_add(pick.known.into()),
            cost: self.cost.saturating_add(pick.cost),
            room: self.room.saturating_add(pick.room),
            loss: self.loss.saturating_add(pick.loss),
        }
    }

    /// Whether the difference to a better one is so small that other things count more.
    pub fn is_near(&self, better: &Self) -> bool {
        let same = |of: &Self| (of.size, of.known, of.room);
        same(self) == same(better) && self.cost.saturating_sub(better.cost) <= NEAR
    }
}

struct Search<'a> {
    fleet: &'a mut Fleet,
    items: &'a [Item],
    steps: u32,
    chosen: Vec<Chosen>,
    /// What is known to lead nowhere: item, how many of it are chosen, and the slots' states.
    dead: BTreeSet<(usize, u32, Vec<StateId>)>,
}

impl Search<'_> {
    /// Chooses the devices from item `item` on, of which `done` are chosen already.
    fn fill(&mut self, slots: &mut [Slot], item: usize, done: u32) -> bool {
        let items = self.items;
        let Some(wanted) = items.get(item) else { return true };
        if done == wanted.count {
            return self.fill(slots, item + 1, 0);
        }
        let Some(best) = self.best(slots, item) else { return false };
        if self.choose(slots, item, done, best) {
            return true;
        }
        // One sort of device can't be in its own way; a mix can.
        if items.len() == 1 {
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
        let before = slots[slot].state;
        slots[slot].state = self.fleet.take(before, pick.device);
        self.chosen.push(Chosen { item, slot, pick });
        let state = |slot: &Slot| slot.state;
        let key = (item, done, slots.iter().map(state).collect());
        if !self.dead.contains(&key) {
            if self.fill(slots, item, done + 1) {
                return true;
            }
            self.dead.insert(key);
        }
        self.steps = self.steps.saturating_sub(1);
        self.chosen.pop();
        slots[slot].state = before;
        false
    }

    fn best(&mut self, slots: &[Slot], item: usize) -> Option<(Pick, usize)> {
        let smallest = self.items[item].smallest;
        let pick = |(index, slot): (usize, &Slot)| {
            Some((self.fleet.pick(slot.state, slot.masks[item], smallest)?, index))
        };
        slots.iter().enumerate().filter_map(pick).min_by_key(|(pick, index)| rank(pick, *index))
    }

    /// All choices but `best`, best first, those on equal GPUs once.
    fn others(&mut self, slots: &[Slot], item: usize, best: (Pick, usize)) -> Vec<(Pick, usize)> {
        let smallest = self.items[item].smallest;
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

/// Of equal GPUs the first.
fn rank(pick: &Pick, slot: usize) -> (Pick, usize, u8) {
    (Pick { device: 0, ..*pick }, slot, pick.device)
}
