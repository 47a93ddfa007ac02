//! Who is asked to leave, or to move, so that something else fits: by what right,
//! and which of several, so that the least work is lost. Whose turn it is, and
//! whether something fits as things are, is not decided here.

mod claim;
mod defragment;
mod lift;
mod limits;
mod reclaim;
mod room;
mod victims;

pub(crate) use claim::Demands;
pub(crate) use room::{Evictor, Room, Wanted};

#[cfg(test)]
mod tests;
