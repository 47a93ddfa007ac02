//! What a GPU can be and become, as a finite set of states derived from its
//! counters, and a cluster as the set of GPUs in each state. A decision looks
//! at the states that are present, never at the GPUs one by one.
//!
//! - [`card`]: a sort of GPU: what there is of each counter, what each device takes.
//! - [`catalog`]: the cards of a cluster as it is published.
//! - [`space`]: every state of some cards, and the classes of states that nothing can tell apart.
//! - [`set`]: sets of GPUs.
//! - [`cluster`]: which GPU is in which state.
//! - [`fit`]: the smallest number of GPUs that holds a demand.
//!
//! Which state is worth what is not decided here, but in [`crate::policy`].

pub mod card;
pub mod catalog;
pub mod cluster;
pub mod fit;
pub mod lump;
pub mod set;
pub mod space;

#[cfg(test)]
mod tests;

pub use card::{Card, CardDevice};
pub use catalog::Catalog;
pub use cluster::Cluster;
pub use set::GpuSet;
pub use space::{Class, Demand, Space, SpaceError, State};
