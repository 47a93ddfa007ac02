//! Who goes next: the order of the waiting workloads, and one cycle of planning.
//!
//! Within a tenant, the higher priority goes first, then who was queued first.
//! Among tenants, those that hold less than their guarantee go first, the one
//! that uses the smallest part of its guarantee before the others; after them
//! whoever was queued first. Priorities of different tenants are not compared:
//! each sets its own. What a workload is given counts at once. One that cannot
//! start waits with its reason, and those behind it may still go.

mod cycle;
mod order;
mod reason;
mod words;

pub use cycle::plan;
pub use words::gpus;

#[cfg(test)]
mod tests;
