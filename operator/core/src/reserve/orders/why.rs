//! What is said to who asked for an order that is not accepted as it is. Orders
//! of others are never named: nobody sees another's.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gpus;
use crate::model::{Class, UnitMs, Units};

use super::super::standing::gpu_hours;

/// Why an order is not accepted as it is. Its `Display` is what users read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "why")]
pub enum Why {
    /// It begins in the past.
    Past,
    /// It ends no later than it begins.
    EndsBeforeItBegins,
    /// It takes longer than the reserve's window.
    LongerThanWindow {
        /// How long that is, in days.
        days: i64,
    },
    /// It begins later than a window from now.
    TooFarAhead {
        /// How long that is, in days.
        days: i64,
    },
    /// Nothing is ordered.
    Nothing,
    /// Its tenant does not draw on the reserve.
    NotEntitled {
        /// What the tenant is.
        class: Class,
    },
    /// No GPU of the pool can be cut like this.
    NoSuchShape {
        /// What was asked for, in words.
        shape: String,
    },
    /// The whole pool would not hold it.
    LargerThanPool {
        /// What was asked for, in words.
        asked: String,
    },
    /// The pool would not hold it beside what is kept for instant claims.
    LargerThanPoolLeaves {
        /// What was asked for, in words.
        asked: String,
    },
    /// It is more than the entitlement of a whole window.
    MoreThanEntitled {
        /// What it takes.
        needs: UnitMs,
        /// What a window gives at the most.
        entitled: UnitMs,
    },
    /// Its tenant's own orders have the GPUs then.
    OwnOrders {
        /// Their keys.
        keys: Vec<String>,
    },
    /// Orders of an equal or a higher rating have the GPUs then.
    Orders,
    /// An order of a higher rating took its place after it was accepted.
    Displaced,
    /// The pool is smaller then: some of it is in maintenance.
    Smaller,
    /// Too little of the entitlement is left then.
    EntitlementUsed {
        /// What it takes.
        needs: UnitMs,
        /// What is left.
        left: UnitMs,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Past => f.write_str("it begins in the past"),
            Self::EndsBeforeItBegins => {
                f.write_str("it ends before it begins: until must be later than from")
            }
            Self::LongerThanWindow { days } => {
                write!(f, "it takes longer than {days} days, over which the entitlement is reckoned")
            }
            Self::TooFarAhead { days } => {
                write!(f, "it begins more than {days} days from now: ask again later")
            }
            Self::Nothing => f.write_str("it orders nothing: every count must be at least 1"),
            Self::NotEntitled { class } => {
                write!(f, "tenants of class {} do not draw on this reserve", class_name(*class))
            }
            Self::NoSuchShape { shape } => write!(f, "no GPU of the reserve's pool can be cut into {shape}"),
            Self::LargerThanPool { asked } => write!(f, "the whole pool does not hold {asked}"),
            Self::LargerThanPoolLeaves { asked } => {
                write!(f, "the pool does not hold {asked} beside what is kept for instant claims")
            }
            Self::MoreThanEntitled { needs, entitled } => write!(
                f,
                "it takes {} GPU-hours, the reserve is entitled to {} in all",
                gpu_hours(*needs),
                gpu_hours(*entitled)
            ),
            Self::OwnOrders { keys } => {
                write!(f, "orders of the same tenant have the GPUs then: {}", keys.join(", "))
            }
            Self::Orders => f.write_str(
                "orders of an equal or higher rating that were accepted earlier have the GPUs then",
            ),
            Self::Displaced => f.write_str("an order of a higher rating needs its place"),
            Self::Smaller => f.write_str("too many of the pool's GPUs are in maintenance then"),
            Self::EntitlementUsed { needs, left } => write!(
                f,
                "it takes {} GPU-hours, {} of the entitlement are left then",
                gpu_hours(*needs),
                gpu_hours(*left)
            ),
        }
    }
}

/// As the API spells it.
fn class_name(class: Class) -> &'static str {
    match class {
        Class::Standard => "standard",
        Class::Sme => "sme",
        Class::Sovereign => "sovereign",
        Class::Security => "security",
    }
}

/// In words, what is asked for: `2 × 3g.40gb and 1 × gpu, 2 GPUs in all`.
pub(super) fn asked(shapes: impl Iterator<Item = (u32, String)>, units: Units) -> String {
    let each: Vec<String> = shapes.map(|(count, name)| format!("{count} × {name}")).collect();
    format!("{} ({} GPUs in all)", each.join(" and "), gpus(units))
}
