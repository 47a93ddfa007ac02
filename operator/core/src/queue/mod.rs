//! Who goes next: the order of the waiting workloads, and one cycle of planning.
//!
//! Within a tenant, the higher priority goes first, then who was queued first;
//! waiting raises the priority. Tenants are a tree, and at each of its levels those
//! that hold less than their guarantee go first, the one that uses the smallest
//! part of it before the others; after them whoever holds and held the least by
//! weight. Waiting moves a tenant's next workload ahead of all of that, in time.
//! Priorities of different tenants are not compared: each sets its own. What a
//! workload is given counts at once. One that cannot start waits with its reason,
//! and those behind it may still go.

mod claim;
mod cycle;
mod drain;
mod fewest;
mod jobs;
mod keep;
mod order;
mod reason;
mod room;
pub(crate) mod tree;
mod usage;
mod way;
mod words;

pub use cycle::{plan, plan_with};
pub use usage::Usage;
pub use words::gpus;

#[cfg(test)]
mod tests;
