//! The ledger's edge: claims as entries of the core's books, and its reports as
//! objects. What is counted, and when what is written, is decided in
//! `vingt_core::ledger`.

pub mod ends;
pub mod objects;
pub mod prices;
pub mod uses;
