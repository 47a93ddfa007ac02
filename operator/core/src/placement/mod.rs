//! Where pods go: the cluster as it changes during one cycle of planning, and
//! the best node and devices in it. Who may go is not decided here.
//!
//! GPUs that are alike for every request form a group ([`groups`]). A pod of one
//! device gets a GPU of the group that costs least by the policy of the cluster
//! ([`crate::policy::Scorer`]); GPUs that others hold parts of, whose states no
//! policy knows, go first, those with the least room before the others. Of groups
//! that cost the same, a GPU is taken whose node stays in balance ([`room`]), on
//! the node with the fewest whole GPUs, then the first. Pods of several devices
//! get nodes by the same measures ([`nodes`]); gangs may be kept in one domain of
//! a label ([`topology`]). Everything is kept for the cycle and brought up to date
//! by what changed, so that the next pod costs next to nothing.

mod arrange;
mod choice;
mod cluster;
mod demand;
mod filter;
mod gone;
mod groups;
mod hold;
mod nodes;
mod places;
mod room;
mod topology;

pub(crate) use cluster::{Cluster, Placed};
pub(crate) use demand::Shapes;
pub(crate) use nodes::Survey;
pub use places::{Places, Seat, with_places};

#[cfg(test)]
mod tests;
