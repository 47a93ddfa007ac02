//! The built library as its clients use it: through `nvml-wrapper`, through the raw C functions, from Python.
#![allow(unsafe_code)] // raw NVML calls: every pointer passed is to a local variable that outlives the call
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on stops

mod calls;
mod devices;
mod faults;
mod life_cycle;
mod model;
mod node;
mod python;
mod sharing;
mod symbols;
mod visibility;
