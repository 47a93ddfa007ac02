//! The node agent of vingt: reads GPUs through NVML, publishes them as
//! `ResourceSlices`, and makes and removes MIG partitions for claims that the
//! operator decided. It decides nothing itself.

pub mod cdi;
pub mod claims;
mod files;
pub mod inventory;
pub mod journal;
pub mod metrics;
pub mod nvml;
pub mod preparer;
pub mod proto;
pub mod steps;
pub mod target;
