//! On which GPU and at which place of it a job is put, where any would do.
//!
//! A [`Policy`] says what it costs to bring a GPU from one class of states to
//! another; a [`Ranking`] makes of it a list of classes for each demand, in
//! which a decision is the first class that is present. What fits at all is
//! [`crate::states`]' to say, who is next is decided elsewhere, and values are
//! improved in [`crate::learn`].
//!
//! - [`greedy`]: the simple rules, as baselines and guards.
//! - [`values`], [`features`], [`prior`]: values of states, from what they promise and the mix of jobs.
//! - [`scorer`]: a policy as the planner asks it.
//! - [`moves`], [`price`]: one move for a job that fits nowhere, and which moves are worth it.

pub mod features;
pub mod greedy;
pub mod moves;
pub mod price;
pub mod prior;
pub mod ranking;
pub mod scorer;
pub mod values;

#[cfg(test)]
mod tests;

pub use features::Features;
pub use price::Price;
pub use ranking::{Ranking, Spot};
pub use scorer::Scorer;
pub use values::Values;

use crate::states::{Class, Demand, Space};

/// A rule by which one place is better than another.
pub trait Policy {
    /// What it costs to bring a GPU from class `from` to class `to` by placing `demand`. The least is taken;
    /// of equals the lowest GPU, and there the lowest device.
    fn cost(&self, space: &Space, demand: Demand, from: Class, to: Class) -> f64;
}
