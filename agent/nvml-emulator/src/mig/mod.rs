//! The rules of MIG: which instances fit where, and what changes the state. Pure functions on [`crate::state`]: no
//! files, no C.

pub(crate) mod compute;
pub(crate) mod gpu_instances;
pub(crate) mod mode;

#[cfg(test)]
mod tests;
