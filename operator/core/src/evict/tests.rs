//! What must hold of every choice of victims.

mod victims;
