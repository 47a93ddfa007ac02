//! What must hold of every choice of victims.

mod reclaim;
mod victims;
