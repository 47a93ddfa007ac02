//! Where pods go: the cluster as it changes during one cycle of planning, and
//! the best node and devices in it. Who may go is not decided here.
//!
//! Best fit: of the nodes that suit a pod, the one whose GPU has the least room
//! that takes it; on a GPU, the device after which the most others still fit;
//! between equals, the node with the least room, then the first. Everything is
//! kept per shape of pod and brought up to date by the nodes that changed, so
//! that the next pod of a shape costs next to nothing.

mod arrange;
mod choice;
mod cluster;
mod demand;
mod filter;
mod groups;
mod hold;
mod nodes;
mod room;
mod topology;

pub(crate) use cluster::{Cluster, Placed};
pub(crate) use demand::Shapes;
pub(crate) use nodes::Survey;

#[cfg(test)]
mod tests;
