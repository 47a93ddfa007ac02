//! What came of a year: a row for each day, and sums.

use serde::{Deserialize, Serialize};

use crate::model::{UNITS_PER_GPU, UnitMs, Units};
use crate::simulate::replay::Quantiles;

/// A year that was played.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Year {
    /// A row for each day, in order.
    pub rows: Vec<Row>,
    /// Sums.
    pub summary: Summary,
}

/// A day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// When it began, in milliseconds since 1970.
    pub day_ms: i64,
    /// Units times milliseconds held on it, by all.
    pub used: UnitMs,
    /// Of these, by instant claims.
    pub claimed: UnitMs,
    /// Of these, under advance orders.
    pub ordered: UnitMs,
    /// Tokens at its end.
    pub tokens: UnitMs,
    /// What the reserve was entitled to since the start, at its end.
    pub entitled: UnitMs,
    /// What was delivered of it since the start, at its end.
    pub delivered: UnitMs,
    /// What is booked for the days to come, at its end.
    pub booked: UnitMs,
    /// Jobs that left for claims and orders on it.
    pub evictions: u32,
    /// Jobs that waited at its end.
    pub waiting: u32,
    /// GPUs that were broken at its end.
    pub broken: u32,
    /// Whether a crisis was in force at its end.
    pub crisis: bool,
}

/// The sums of a year.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Units installed, whether broken or not.
    pub installed: Units,
    /// Units times milliseconds installed.
    pub capacity: UnitMs,
    /// Of these, held.
    pub used: UnitMs,
    /// What the reserve was entitled to.
    pub entitled: UnitMs,
    /// What the reserve's account says was taken by instant claims, and held under orders.
    pub claimed: UnitMs,
    /// Held under orders, by the account.
    pub ordered: UnitMs,
    /// The same two, summed over the jobs that ran: from the start of each to its end.
    pub claimed_by_jobs: UnitMs,
    /// Held under orders, by jobs.
    pub ordered_by_jobs: UnitMs,
    /// What those who draw on the reserve held in all, by right or not.
    pub sovereign: UnitMs,
    /// The most that was taken between two instants outside a crisis beyond what accrued between them.
    pub most_beyond_rate: UnitMs,
    /// What that may be.
    pub depth: UnitMs,
    /// Jobs that asked for something at once.
    pub claims: u32,
    /// Of these, those for which there was a right to it then.
    pub valid: u32,
    /// Of these, those that did not run within the time that is promised, though no GPU broke in it.
    pub late: u32,
    /// How long the valid ones took from being asked for until they ran, in milliseconds.
    pub claim_ms: Quantiles,
    /// Orders that were asked for.
    pub orders: u32,
    /// Of these, accepted as they were.
    pub accepted: u32,
    /// Countered with a later start, which was taken.
    pub countered: u32,
    /// Refused.
    pub refused: u32,
    /// Of those that began, those that had not started a minute later, though no GPU was broken.
    pub orders_late: u32,
    /// Jobs that left for claims and orders.
    pub evictions: u32,
    /// Work they lost.
    pub lost: UnitMs,
    /// GPUs that broke.
    pub failures: u32,
    /// Jobs that came, and that ended having done all they were to do.
    pub jobs: u32,
    /// Jobs that ended.
    pub ended: u32,
    /// Plans made.
    pub plans: u32,
}

impl Summary {
    /// Mean share of what is installed that was held, from 0 to 1.
    pub fn utilisation(&self) -> f64 {
        ratio(self.used, self.capacity)
    }

    /// Evictions for each hour of a whole GPU that was delivered by right.
    pub fn evictions_per_gpu_hour(&self) -> f64 {
        ratio(u64::from(self.evictions) * GPU_HOUR, self.claimed + self.ordered)
    }

    /// Hours of whole GPUs lost by those who left, for each that was delivered by right.
    pub fn lost_per_gpu_hour(&self) -> f64 {
        ratio(self.lost, self.claimed + self.ordered)
    }
}

/// A whole GPU for an hour.
pub const GPU_HOUR: UnitMs = UNITS_PER_GPU * 3_600_000;

#[allow(clippy::cast_precision_loss)] // ratios for people
fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}
