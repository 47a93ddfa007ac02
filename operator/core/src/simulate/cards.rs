//! Cards for simulations and tests, as their published MIG tables have them.
//! Decisions about a live cluster never use them: they read its slices.

use crate::states::{Card, CardDevice};

/// A sort of partition: compute slices, memory slices, the memory slices at which it may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What people call it, without the memory.
    pub name: &'static str,
    /// Compute slices, of 7.
    pub compute: u64,
    /// Memory slices, of 8.
    pub memory: usize,
    /// First memory slice of each placement.
    pub starts: &'static [usize],
    /// Whether it takes the one media engine group beyond those of the slices.
    pub media: bool,
}

const fn profile(name: &'static str, compute: u64, memory: usize, starts: &'static [usize]) -> Profile {
    Profile { name, compute, memory, starts, media: false }
}

/// The partitions of an H100, an A100 or an H200 that do not take the media engines.
pub const HOPPER: [Profile; 6] = [
    profile("1g", 1, 1, &[0, 1, 2, 3, 4, 5, 6]),
    profile("1g-double", 1, 2, &[0, 2, 4, 6]),
    profile("2g", 2, 2, &[0, 2, 4]),
    profile("3g", 3, 4, &[0, 4]),
    profile("4g", 4, 4, &[0]),
    profile("7g", 7, 8, &[0]),
];

/// The `1g` with the media engines, of which a GPU has one.
pub const MEDIA: Profile = Profile { media: true, ..profile("1g+me", 1, 1, &[0, 1, 2, 3, 4, 5, 6]) };

/// An A30: four compute and four memory slices.
pub const A30: [Profile; 3] =
    [profile("1g", 1, 1, &[0, 1, 2, 3]), profile("2g", 2, 2, &[0, 2]), profile("4g", 4, 4, &[0])];

/// The card that can be cut into `profiles`; demand `d` is profile `d`.
pub fn card(profiles: &[Profile], compute: u64, memory: usize) -> Card {
    let media = profiles.iter().any(|profile| profile.media);
    let mut capacity = vec![1; memory];
    capacity.push(compute);
    capacity.extend(media.then_some(1));
    let mut devices = Vec::new();
    for (demand, profile) in profiles.iter().enumerate() {
        for &start in profile.starts {
            let mut consumes: Vec<u64> = (0..memory)
                .map(|slice| u64::from(slice >= start && slice < start + profile.memory))
                .collect();
            consumes.push(profile.compute);
            // The largest partition has all engines.
            consumes.extend(media.then(|| u64::from(profile.media || profile.memory == memory)));
            devices.push(CardDevice { consumes, serves: 1 << demand });
        }
    }
    Card { capacity, devices }
}

/// An H100 without the media profile.
pub fn hopper() -> Card {
    card(&HOPPER, 7, 8)
}
