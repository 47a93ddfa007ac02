//! Placement without a cluster: streams of jobs played against policies, with
//! the very code that decides in one. Seeded; no clock, no files.
//!
//! - [`replay`]: a stream of jobs through the whole planner. - [`jobs`], [`fleet`], [`sample`]: lists of jobs and clusters for it.
//! - [`forecast`]: when what waits is likely to start.
//! - [`trace`], [`openb`]: streams of jobs. - [`loss`]: how a run goes. - [`player`]: a cluster under a policy.
//! - [`year`]: a year with a sovereign reserve. - [`cards`]: geometries to play with.
//! - [`repack`]: the ceiling. - [`stats`]: means with intervals.

pub mod cards;
pub mod fleet;
pub mod forecast;
pub mod jobs;
pub mod loss;
pub mod openb;
pub mod player;
pub mod random;
pub mod repack;
pub mod replay;
pub mod sample;
pub mod stats;
pub mod trace;
pub mod year;

#[cfg(test)]
mod tests;

pub use loss::{Counts, Placer, run};
pub use player::{Player, Table};
pub use random::Random;
pub use trace::{Event, Job, Phase, Trace};
