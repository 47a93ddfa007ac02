//! What must hold of every choice of victims, and of all of them over time.

mod loops;
mod moves;
mod reclaim;
mod room;
mod victims;
pub(super) mod world;
