//! The node agent of vingt: reads GPUs through NVML, publishes them as
//! `ResourceSlices`, and makes and removes MIG partitions for claims that the
//! operator decided. It decides nothing itself.

pub mod cdi;
pub mod claims;
pub mod cli;
pub mod devices;
mod driver_root;
mod files;
pub mod http;
pub mod inventory;
pub mod journal;
pub mod metrics;
pub mod nvml;
pub mod plugin;
pub mod preparer;
pub mod proto;
pub mod publish;
pub mod run;
pub mod status;
pub mod steps;
mod system;
pub mod target;
