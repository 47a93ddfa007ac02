//! An exact amount of unit-milliseconds: shares are counted in parts per
//! million, and what is less than a unit-millisecond is carried, not dropped.

use serde::{Deserialize, Serialize};

use crate::model::{UnitMs, Units};

/// What all of something is, in parts per million.
pub const MILLION: u32 = 1_000_000;

/// Unit-milliseconds, and millionths of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Amount {
    /// Whole unit-milliseconds.
    pub whole: UnitMs,
    /// Millionths of a unit-millisecond besides, less than a million.
    pub millionths: u32,
}

impl Amount {
    /// A whole number of unit-milliseconds.
    pub fn of(whole: UnitMs) -> Self {
        Self { whole, millionths: 0 }
    }

    /// So many millionths; the greatest there is, if they are too many.
    pub(crate) fn from_millionths(all: u128) -> Self {
        let million = u128::from(MILLION);
        match (UnitMs::try_from(all / million), u32::try_from(all % million)) {
            (Ok(whole), Ok(millionths)) => Self { whole, millionths },
            _ => Self { whole: UnitMs::MAX, millionths: MILLION - 1 },
        }
    }

    /// All of it in millionths.
    pub(crate) fn in_millionths(self) -> u128 {
        u128::from(self.whole) * u128::from(MILLION) + u128::from(self.millionths)
    }

    /// The sum, or the greatest there is.
    pub(crate) fn plus(self, more: Self) -> Self {
        Self::from_millionths(self.in_millionths() + more.in_millionths())
    }
}

/// What accrues in a millisecond: millionths of a unit-millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub u64);

impl Rate {
    /// That of `fraction_ppm` of so many units.
    pub fn of(units: Units, fraction_ppm: u32) -> Self {
        Self(units.saturating_mul(fraction_ppm.into()))
    }

    /// What accrues in so many milliseconds; nothing if they are negative.
    pub fn over(self, ms: i64) -> Amount {
        Amount::from_millionths(self.millionths_over(ms))
    }

    pub(crate) fn millionths_over(self, ms: i64) -> u128 {
        u128::from(self.0) * u128::from(u64::try_from(ms).unwrap_or(0))
    }
}
