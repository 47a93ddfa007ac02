//! A year of a cluster with a sovereign reserve, played event by event through
//! the planner of the cluster ([`crate::plan`]) and the reserve's own account
//! ([`crate::reserve`]): services that follow the day, training gangs, tenants
//! who claim and order, GPUs that break, a crisis. Drawn from a seed.
//!
//! What is not modelled: nodes that fail whole, and work that leaves before its
//! grace is over.

mod apart;
mod booking;
mod compare;
mod engine;
mod load;
mod newest;
mod outcome;
mod tally;
mod world;

#[cfg(test)]
mod tests;

pub use compare::{Comparison, compare, play};
pub use outcome::{GPU_HOUR, Row, Summary, Year};

use crate::reserve::{Crisis, DAY_MS, Terms};

/// What is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What is drawn is drawn from it.
    pub seed: u64,
    /// GPUs: one on a node of its own, the others four to a node.
    pub gpus: u32,
    /// How long it goes on, in days.
    pub days: u32,
    /// When it starts, in milliseconds since 1970.
    pub start_ms: i64,
    /// How much training gangs ask for on average, in percent of the cluster.
    pub training_percent: u32,
    /// The reserve's share, and how much of it can be saved up.
    pub terms: Terms,
    /// A crisis, in which those who draw on the reserve ask for five times as much.
    pub crisis: Option<Crisis>,
    /// How the share is kept.
    pub keeping: Keeping,
    /// Who leaves for a claim.
    pub victims: Victims,
    /// How long after its place is free a pod runs, in milliseconds: partition, bind, start.
    pub ready_ms: i64,
}

/// How the reserve's share is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is lent to work that leaves in time.
    Lent,
    /// One GPU is set aside, for those who draw on the reserve and for nobody else; what they order elsewhere comes as
    /// as much work for one GPU at a time.
    SetAside,
    /// It is not kept: those who would draw on it are tenants as any other, and what they order comes as jobs.
    Nothing,
}

/// Who leaves for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// Who the planner says: those who lose the least.
    LeastLost,
    /// Who started last, until there is room; those that turn out not to be in the way stay.
    NewestFirst,
}

/// Grace that lenders have, in milliseconds.
pub const GRACE_MS: i64 = 30_000;

/// Within what time after it is asked for a claim is to run, in milliseconds.
pub const WITHIN_MS: i64 = 60_000;

/// For how long a claim must be covered by tokens, in milliseconds.
pub const LEAST_CLAIM_MS: i64 = 10 * 60_000;

impl Default for Setup {
    /// 20 GPUs for the year 2027 and 5 % of them, with a crisis in July that makes it 20 %.
    fn default() -> Self {
        let start_ms = 1_798_761_600_000;
        Self {
            seed: 1,
            gpus: 20,
            days: 365,
            start_ms,
            training_percent: 66,
            terms: Terms { fraction_ppm: 50_000, depth_ms: 30 * DAY_MS },
            crisis: Some(Crisis {
                reason: "supply of accelerators interrupted".to_owned(),
                from_ms: start_ms + 190 * DAY_MS,
                until_ms: start_ms + 200 * DAY_MS,
                fraction_ppm: 200_000,
            }),
            keeping: Keeping::Lent,
            victims: Victims::LeastLost,
            ready_ms: 20_000,
        }
    }
}

impl Setup {
    /// When it ends, in milliseconds since 1970.
    pub fn end_ms(&self) -> i64 {
        self.start_ms.saturating_add(i64::from(self.days) * DAY_MS)
    }
}
