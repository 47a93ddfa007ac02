//! The ledger: what every claim of devices used, in whole unit-milliseconds, by
//! month, in reports that form a chain and can be verified by themselves.
//!
//! - [`Entry`]: what a claim holds or held; [`Report`]: what a tenant used in a
//!   [`Month`], or what all used of a reserve's pool;
//! - [`Books`]: what to write next, so that each claim is counted exactly once;
//! - [`verify`]: whether reports are as they were written, and add up;
//! - [`bill`]: what a tenant owes;
//! - [`TimedClaim`]: whether an instant claim was kept.
//!
//! It decides and computes only: the operator reads claims, and writes reports.

mod books;
mod chain;
mod encode;
mod entry;
mod listed;
mod month;
mod price;
mod report;
mod statement;
#[cfg(test)]
mod tests;
mod timing;

pub use books::{Actions, Books, Facts, PoolCounts, PoolNow};
pub use chain::{Fault, Verified, hash, verify};
pub use encode::{VERSION, canonical};
pub use entry::{Basis, Entry, LineKey, Overflow};
pub use month::{Month, NotAMonth, split};
pub use price::{Bill, BillLine, Derivation, Micros, PricePlan, bill, micros, money};
pub use report::{
    Amount, ClaimCount, CrisisRecord, GPU_HOUR, OrderCount, Pool, Report, Subject, SubjectKind, Summary,
    gpu_hours,
};
pub use statement::{Figures, ReserveYear, Statement, TenantYear};
pub use timing::TimedClaim;
