//! The ledger against a simulated API server, and against who changes reports.

mod chain;
mod crash;
mod statement;
mod tamper;
mod world;
