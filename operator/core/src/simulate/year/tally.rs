//! Sums that are kept while a year is played, apart from the reserve's own
//! account, so that the two can be compared.

use crate::model::{UnitMs, Units};
use crate::reserve::Rate;

/// The most that was taken between any two instants beyond what accrued between them, from one pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beyond {
    taken: i128,
    accrued: i128,
    /// The most that had accrued and was not taken, at any time till now.
    low: i128,
    most: i128,
}

const MILLION: i128 = 1_000_000;

impl Beyond {
    /// For so long, so much was held and entitlement accrued at this rate.
    pub fn step(&mut self, ms: i64, claimed: Units, rate: Rate) {
        self.taken += i128::from(claimed) * i128::from(ms) * MILLION;
        self.accrued += i128::from(rate.0) * i128::from(ms);
        self.low = self.low.max(self.accrued - self.taken);
        self.most = self.most.max(self.taken - self.accrued + self.low);
    }

    /// Begins anew: instants before are not compared with those after.
    pub fn cut(&mut self) {
        *self = Self { most: self.most, ..Self::default() };
    }

    /// The most, rounded up.
    pub fn most(&self) -> UnitMs {
        u64::try_from((self.most + MILLION - 1) / MILLION).unwrap_or(u64::MAX)
    }
}

/// Units held for so long.
pub(super) fn over(units: Units, ms: i64) -> UnitMs {
    units.saturating_mul(u64::try_from(ms).unwrap_or(0))
}
