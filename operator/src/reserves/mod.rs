//! The sovereign reserves' edge: which GPUs a reserve's pool has, what it holds
//! as its account, and how orders fit into it. What it is entitled to, and how
//! an order is answered, is decided in `vingt_core::reserve`.

pub mod booking;
pub mod pools;
pub mod room;
pub mod state;
pub mod status;
