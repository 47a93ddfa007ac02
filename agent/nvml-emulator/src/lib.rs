//! `libnvidia-ml.so.1` for machines without a GPU: a node's NVIDIA GPUs, with MIG, played from a file.
//!
//! The shared library exports every function of NVML. Those that describe GPUs and those of the MIG life cycle
//! behave as the driver does, return codes and placement rules included; all others answer
//! `NVML_ERROR_NOT_SUPPORTED`. There is no telemetry yet (utilization, power, temperature, events, GPM).
//!
//! All processes that use the same *root* see the same GPUs:
//!
//! | in the root | what it is |
//! |---|---|
//! | `node.yaml` | the node: see [`NodeDescription`]; read once, when the node boots |
//! | `state` | the GPUs, instances, processes and faults, as JSON; remove it to boot afresh |
//! | `lock` | held while the state changes |
//! | `proc/` | what the kernel module would show in `/proc`: MIG capabilities, `devices`, `mig-minors` |
//!
//! The root is `$VINGT_EMULATOR_ROOT`, or else the folder the library was loaded from. Where it is read-only,
//! everything can be read and changes answer `NVML_ERROR_NO_PERMISSION`. With `$VINGT_EMULATOR_DEV` (a container's
//! `/dev`) only GPUs and MIG devices whose device nodes exist there are visible, as with the real driver, and only
//! `nvidia-caps/nvidia-cap1` gives the right to change them.
//!
//! Taken from captures and headers, not tried on hardware: ids of GPU instances and the default placement (from the
//! last slice down) as printed by `nvidia-smi` on an A100; MIG devices indexed in the order of their instance ids;
//! profile names that begin with `MIG `; where a 3-slice compute instance may start in a 7g; 16 multiprocessors for
//! the plain compute profile of a 1g with double memory; `NO_PERMISSION` for the memory of a whole GPU in MIG mode
//! inside a container; an A100 that always needs a reset to change its mode.
//!
//! The UUID of a MIG device is no identity, as with the driver, which derives it from the GPU and the place: whatever is
//! created in the same place has the same UUID, after a boot too. [`Partition::serial`] tells them apart.
//!
//! A process is on a GPU from [`Emulator::add_process`] to [`Emulator::remove_process`], whether or not the system
//! knows its id.
//!
//! The Rust library is for tests and labs: [`Emulator`] makes a node, injects faults and tells what is where. It is
//! not a binding of NVML; clients use the shared library.
#![allow(unsafe_code)] // a C library: pointers come in from callers; all of them are touched in `ffi::pointers`

mod cards;
mod code;
mod control;
mod faults;
mod ffi;
mod mig;
mod node;
mod proc_tree;
mod session;
mod state;
mod store;
mod uuid;
mod visibility;

pub use code::Code;
pub use control::{Emulator, Occupancy, Partition, library_built_with};
pub use faults::{ANY, Action, Fault, Moment};
pub use node::{GpuGroup, NodeDescription, NodeError};
pub use state::Process;
pub use store::StoreError;

/// The names of the functions that are emulated.
pub fn emulated_functions() -> impl Iterator<Item = &'static str> {
    ffi::emulated()
}

/// The names of the functions that are there but only answer `NVML_ERROR_NOT_SUPPORTED`.
pub fn unsupported_functions() -> impl Iterator<Item = &'static str> {
    ffi::not_emulated()
}
