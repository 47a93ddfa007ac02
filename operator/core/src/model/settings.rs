//! How the owner of a cluster wants decisions made.

use serde::{Deserialize, Serialize};

/// What an owner may set. The defaults are what vingt recommends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// How places are chosen.
    pub placement: PlacementPolicy,
    /// Time after which use of the past counts half, in milliseconds.
    pub half_life_ms: i64,
    /// Waiting this long weighs as much as one step of priority, in milliseconds.
    pub aging_ms: i64,
    /// Waiting this long gets the first in line a reservation, in milliseconds.
    pub reserve_after_ms: i64,
    /// How many workloads may have places kept for them at one time.
    pub reservations: u32,
    /// Whether a tenant within its guarantee takes back what others borrowed.
    pub reclaim: bool,
    /// Whether a higher priority evicts a lower one of the same tenant.
    pub preemption: bool,
    /// Whether jobs are moved for others that fit by count but not by shape.
    pub defragmentation: bool,
    /// Moves for each thousand workloads that start.
    pub moves_per_thousand: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            placement: PlacementPolicy::default(),
            half_life_ms: 7 * 24 * 3_600_000,
            aging_ms: 3_600_000,
            reserve_after_ms: 10 * 60_000,
            reservations: 4,
            reclaim: true,
            preemption: true,
            defragmentation: true,
            moves_per_thousand: 10,
        }
    }
}

/// How places are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PlacementPolicy {
    /// By values learnt from the cluster's own jobs, guarded by the simple rules.
    #[default]
    Learned,
    /// The GPU with the least room.
    BestFit,
    /// The first GPU.
    FirstFit,
    /// Where the least gets lost to the usual jobs (FGD).
    Fragmentation,
    /// Where the fewest windows get blocked (MFI).
    BlockedWindows,
    /// The GPU with the most room.
    Spread,
}
