//! A sort of GPU, as the counters its slices publish (KEP-4815). Nothing here
//! knows a MIG profile: two GPUs whose counters are equal are the same card.

/// What one sort of GPU can be cut into.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Card {
    /// What there is of each counter.
    pub capacity: Vec<u64>,
    /// The devices, at most 64, in the order in which a driver would try them.
    pub devices: Vec<CardDevice>,
}

/// One way to use a part of a card.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CardDevice {
    /// What it takes of each counter; as long as [`Card::capacity`].
    pub consumes: Vec<u64>,
    /// The demands it satisfies: bit `d` stands for [`super::Demand`] `d`.
    pub serves: u64,
}

impl Card {
    /// The counters that a device either takes whole or not at all, and of which there is one, as bits:
    /// for a MIG device its memory slices (and an engine, where a card has only one).
    pub fn slices_of(&self, device: usize) -> u64 {
        let mut bit = 1;
        let mut slices = 0;
        for (&have, &takes) in self.capacity.iter().zip(&self.devices[device].consumes) {
            if have == 1 {
                slices |= if takes == 1 { bit } else { 0 };
                bit <<= 1;
            }
        }
        slices
    }

    /// All of them that a device can be cut from: the rest of the card is somebody else's.
    pub fn slices(&self) -> u64 {
        (0..self.devices.len()).fold(0, |all, device| all | self.slices_of(device))
    }

    /// The same card for `times` times the demands: each device once for every group, where group `g` of
    /// demand `d` is demand `g · demands + d`. So jobs that differ in something the counters don't know, such
    /// as how long they live, make states that differ.
    #[must_use]
    pub fn repeated(&self, times: usize, demands: usize) -> Self {
        let devices = (0..times).flat_map(|group| {
            self.devices.iter().map(move |device| CardDevice {
                consumes: device.consumes.clone(),
                serves: device.serves << (group * demands),
            })
        });
        Self { capacity: self.capacity.clone(), devices: devices.collect() }
    }
}
