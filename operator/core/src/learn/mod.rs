//! How the values of states are learnt from the cluster's own jobs, and what
//! keeps a table that is wrong from doing harm.
//!
//! - [`mix`]: which jobs come, how long they live.
//! - [`search`]: better weights for that mix, by playing it. - `basis`: in which directions.
//! - [`shadow`]: what other policies would have placed.
//! - [`brain`]: which table decides now. - [`played`]: all of it in a simulation.

mod basis;
pub mod brain;
pub mod mix;
pub mod played;
pub mod search;
pub mod shadow;

#[cfg(test)]
mod tests;

pub use brain::{Brain, Lesson, Setup};
pub use mix::Mix;
pub use played::Played;
pub use search::{Effort, Problem};
