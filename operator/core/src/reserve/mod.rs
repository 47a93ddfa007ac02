//! What a sovereign reserve is entitled to, what of it was delivered, and what
//! can be had of it now or later. Accounting and bookings only: where a claim
//! is placed and who leaves for it is the planner's.
//!
//! - [`Account`]: the token bucket ([`Bucket`]) and the rolling window ([`Window`]), reckoned together.
//! - [`Standing`]: whether an instant claim may be made now, and why not.
//! - [`Calendar`]: advance orders, each answered at once.
//! - [`Room`]: whether shapes fit into the empty pool.
//! - [`lent`]: what runs there that would leave in time.
//! - [`Crisis`]: a larger share for a stated time.
//!
//! Amounts are whole unit-milliseconds and millionths of them ([`Amount`]): nothing is rounded twice, nothing decays.

mod account;
mod amount;
mod bucket;
mod crisis;
pub(crate) mod guard;
mod lent;
mod orders;
mod room;
mod standing;
mod window;

#[cfg(test)]
mod tests;

pub use account::{Account, Holding, Now, Replayed};
pub use amount::{Amount, Rate};
pub use bucket::{Bucket, Flow, Taken, Terms};
pub use crisis::Crisis;
pub use lent::lent;
pub use orders::{Answer, Asked, Calendar, Facts, Fits, LATE_MS, Why};
pub use room::{Room, Shape};
pub use standing::{ClaimRight, Standing};
pub use window::{Booking, DAY_MS, Day, Held, LONGEST_DAYS, Window};
