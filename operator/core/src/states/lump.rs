//! Which states nothing can tell apart: the coarsest partition in which two
//! states of a class can reach, with each sort of job, the same classes, and
//! lose jobs to the same classes at the same rates (exact lumpability).

use std::collections::HashMap;

use super::set::Bits;
use super::space::{Class, Space, State};

/// The class of each state, numbered by first appearance, and how many there are. Jobs of demands with the same
/// number in `life` leave at the same rate.
pub(super) fn lump(space: &Space, life: &[u8]) -> (Vec<Class>, usize) {
    let mut class = vec![0_u32; space.states()];
    let mut count = 1;
    loop {
        let mut known: HashMap<Signature, u32> = HashMap::new();
        let refined: Vec<u32> = (0..space.states())
            .map(|state| {
                let signature = signature(space, state, &class, life);
                let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
                *known.entry(signature).or_insert(next)
            })
            .collect();
        let refined_count = known.len();
        class = refined;
        if refined_count == count {
            let classes = class.into_iter().map(|class| Class(u16::try_from(class).unwrap_or(u16::MAX)));
            return (classes.collect(), count);
        }
        count = refined_count;
    }
}

/// Own class, what arrivals lead to, what departures lead to.
type Signature = (u32, Vec<(u64, u32)>, Vec<(u8, u32)>);

fn signature(space: &Space, index: usize, class: &[u32], life: &[u8]) -> Signature {
    let state = State(u32::try_from(index).unwrap_or(u32::MAX));
    let card = &space.cards()[space.card(state)];
    let of = |state: State| class[state.0 as usize];
    let mut arrivals: Vec<(u64, u32)> = (0..card.devices.len())
        .filter_map(|device| Some((card.devices[device].serves, of(space.put(state, device)?))))
        .collect();
    arrivals.sort_unstable();
    arrivals.dedup();
    let life_of = |device: usize| {
        let demand = Bits(card.devices[device].serves).next();
        demand.and_then(|demand| life.get(demand)).copied().unwrap_or_default()
    };
    let mut departures: Vec<(u8, u32)> =
        Bits(space.devices(state)).map(|device| (life_of(device), of(space.take(state, device)))).collect();
    departures.sort_unstable();
    (class[index], arrivals, departures)
}
