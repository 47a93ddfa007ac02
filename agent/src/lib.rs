//! The node agent of vingt: reads GPUs through NVML, publishes them as
//! `ResourceSlices`, and makes and removes MIG partitions for claims that the
//! operator decided. It decides nothing itself.

pub mod proto;
pub mod nvml;
pub mod inventory;
pub mod target;
