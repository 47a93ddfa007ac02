//! Every decision of vingt, as pure functions from a [`Snapshot`] and a time
//! to a [`Plan`].
//!
//! No I/O, no async, no Kubernetes types, no clock (time is an argument), no
//! unseeded randomness, ordered collections only: the operator, the tests and
//! the benchmarks run the same code, and the same snapshot and time give the
//! same plan.

pub mod learn;
pub mod model;
pub mod policy;
pub mod simulate;
pub mod states;

pub use model::{Plan, Snapshot};
