//! The local lab: a real Kubernetes on one machine, without a container
//! engine, in which vingt runs as it does in production. `cargo lab` and the
//! end-to-end tests use it through [`Lab`].
//!
//! Nothing of Kubernetes is imitated here but the kubelet of virtual nodes
//! ([`virtual_node`]); nothing of vingt is: its programs, its chart and its
//! policies are the real ones.
//!
//! A test brings up a lab of its own, or shares one with others:
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! use std::time::Duration;
//! use vingt_e2e::{Lab, LabConfig, wait_for};
//!
//! // In a test: `env!("CARGO_BIN_EXE_lab")`.
//! let program = "target/debug/lab";
//! let lab = Lab::start(LabConfig { gpus_per_node: 8, ..LabConfig::small("t-name", program) }).await?;
//! lab.kubectl(&["apply", "--filename", "e2e/samples/00-tenants.yaml"]).await?;
//! lab.nodes()[0].agent().kill(); // started again, as any container
//! wait_for(Duration::from_secs(30), "the agent to be back", || async {
//!     Ok((!lab.nodes()[0].agent().processes().is_empty()).then_some(()))
//! })
//! .await?;
//! lab.stop().await
//! # }
//! ```
//!
//! A lab that is only dropped, or whose process dies, is cleaned up by its
//! guard, a process that waits for just that.

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
mod port;
pub mod process;
pub mod real_node;
pub mod virtual_node;
pub mod wait;

pub use lab::{Lab, LabConfig};
pub use wait::wait_for;
