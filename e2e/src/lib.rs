//! The local lab: a real Kubernetes on one machine, without a container
//! engine, in which vingt runs as it does in production. `cargo lab` and the
//! end-to-end tests use it through [`Lab`].
//!
//! Nothing of Kubernetes is imitated here but the kubelet of virtual nodes
//! ([`virtual_node`]); nothing of vingt is: its programs, its chart and its
//! policies are the real ones.

pub mod build;
pub mod cleanup;
pub mod cli;
pub mod control_plane;
pub mod cut_proxy;
pub mod demo;
pub mod emulator;
pub mod helm;
pub mod images;
pub mod lab;
pub mod layout;
pub mod pki;
pub mod process;
pub mod real_node;
pub mod virtual_node;
pub mod wait;

pub use lab::{Lab, LabConfig};
pub use wait::wait_for;
