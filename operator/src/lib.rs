//! The operator of vingt: watches the cluster, has the core decide, and writes
//! the decisions.
//!
//! What is decided, and why, is in `vingt-core`; this crate turns the API's
//! objects into a snapshot and a plan into writes, such that a crash between
//! any two writes ends in a whole gang or none.

mod background;
mod check;
mod cleanup;
pub mod cli;
mod client;
mod engine;
mod forecasts;
mod http;
mod jobs;
mod learner;
mod lease;
mod ledger;
mod metrics;
mod quantity;
mod reserves;
mod run;
mod settings;
mod snapshot;
mod tenants;
mod world;
