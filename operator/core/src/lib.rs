//! Every decision of vingt, as pure functions from a [`Snapshot`] and a time
//! to a [`Plan`].
//!
//! No I/O, no async, no Kubernetes types, no clock (time is an argument), no
//! unseeded randomness, ordered collections only: the operator, the tests and
//! the benchmarks run the same code, and the same snapshot and time give the
//! same plan.
//!
//! - [`plan`]: who starts now and where, and why the others wait; [`Usage`]: what a tenant held of late;
//! - [`lifecycle::next_step`]: what to do next with a gang that has a plan, or had one;
//! - [`claims_step`]: which claims to write, so that all are written or none;
//! - [`charge`]: what a device costs, from its counters;
//! - [`audit`]: whether what is held can be held;
//! - [`states`], [`policy`], [`learn`]: what a GPU can become, which place is best, and how that is learnt;
//! - [`ledger`]: what was used, to the unit-millisecond, in reports that can be verified;
//! - [`reserve`]: what a sovereign reserve is entitled to and what was delivered;
//! - [`simulate`]: the same played on streams of jobs.

mod audit;
mod claims;
mod evict;
mod geometry;
pub mod learn;
pub mod ledger;
pub mod lifecycle;
pub mod model;
mod placement;
pub mod policy;
mod queue;
pub mod reserve;
pub mod simulate;
pub mod states;
#[cfg(test)]
mod testing;

pub use audit::{Holding, Violation, audit};
pub use claims::{ClaimState, ClaimWrite, ClaimsStep, claims_step};
pub use geometry::{Counter, charge};
pub use model::{Plan, Snapshot};
pub use placement::{Places, Seat, with_places};
pub use queue::{Usage, gpus, plan, plan_with};
