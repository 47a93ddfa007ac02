//! Use of the past that counts less the longer ago it is. When it is looked at,
//! and what is done with it, is not decided here.

use crate::model::{UnitMs, Units};

/// Bits behind the point of the fractions in here.
const BITS: u32 = 62;
const ONE: i128 = 1 << BITS;

/// The natural logarithm of 2, and what 1 divided by it is, of [`ONE`].
const LN_2: i128 = 3_196_577_161_300_663_914;
const BY_LN_2: u128 = 6_653_256_548_922_161_245;

/// What a tenant held of late: unit-milliseconds, of which each counts half
/// once a half-life has gone by, and a quarter after two.
///
/// Whole numbers only; it does not matter how often it is brought up to date,
/// but for less than one unit-millisecond each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    recent: UnitMs,
    at_ms: i64,
}

impl Usage {
    /// What is known at a time, in milliseconds since 1970; nothing at first.
    pub fn at(at_ms: i64, recent: UnitMs) -> Self {
        Self { recent, at_ms }
    }

    /// Counts `held` as held from the last time until `now_ms`. A time that is not later changes nothing; a half-life
    /// of 0 or less forgets everything at once.
    pub fn advance(&mut self, now_ms: i64, held: Units, half_life_ms: i64) {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        if passed_ms <= 0 {
            return;
        }
        self.at_ms = now_ms;
        if half_life_ms <= 0 {
            self.recent = 0;
            return;
        }
        let stays = halved(passed_ms, half_life_ms);
        // Held all the time, it would come to `full`; of that, what is new has decayed in part.
        let full = always(held, half_life_ms);
        let old = part(self.recent.into(), stays);
        let new = part(full, ONE.unsigned_abs() - stays);
        self.recent = UnitMs::try_from(old.saturating_add(new)).unwrap_or(UnitMs::MAX);
    }

    /// Unit-milliseconds as they count now.
    pub fn recent(self) -> UnitMs {
        self.recent
    }
}

/// The units that, held without end, would count as much as `recent` does.
pub(super) fn average(recent: UnitMs, half_life_ms: i64) -> Units {
    let per_unit = always(1, half_life_ms.max(1)).max(1);
    Units::try_from(u128::from(recent) / per_unit).unwrap_or(Units::MAX)
}

/// What units that are held without end come to: a half-life of them, divided by ln 2.
fn always(held: Units, half_life_ms: i64) -> u128 {
    part(u128::from(held).saturating_mul(half_life_ms.unsigned_abs().into()), BY_LN_2)
}

/// `amount` times `fraction` of [`ONE`], rounded down.
fn part(amount: u128, fraction: u128) -> u128 {
    // Each half is below 2^64, and the fraction below 2^63.
    let (high, low) = (amount >> 64, amount & u128::from(u64::MAX));
    high.saturating_mul(fraction).saturating_mul(1 << (64 - BITS)).saturating_add((low * fraction) >> BITS)
}

/// 2 to the power of -(passed / half-life), of [`ONE`].
fn halved(passed_ms: i64, half_life_ms: i64) -> u128 {
    let (whole, rest) = (passed_ms / half_life_ms, passed_ms % half_life_ms);
    let x = ((i128::from(rest) << BITS) / i128::from(half_life_ms) * (LN_2 >> 2)) >> (BITS - 2);
    let (mut sum, mut term) = (ONE, ONE);
    for n in 1..=24 {
        term = ((-term * (x >> 2)) >> (BITS - 2)) / n;
        sum += term;
    }
    let whole = u32::try_from(whole).unwrap_or(u32::MAX);
    sum.unsigned_abs().checked_shr(whole).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 3_600_000;

    #[test]
    fn use_counts_half_after_a_half_life_and_a_quarter_after_two() {
        for (days, left) in [(1, 1 << 39), (2, 1 << 38), (3, 1 << 37), (200, 0)] {
            let mut usage = Usage::at(0, 1 << 40);
            usage.advance(days * DAY_MS, 0, DAY_MS);
            assert!(usage.recent().abs_diff(left) <= 1, "{days}: {usage:?}");
        }
    }

    #[test]
    fn what_is_held_for_long_averages_to_what_is_held() {
        let mut usage = Usage::default();
        usage.advance(7 * DAY_MS, 560_000, 7 * DAY_MS);
        assert_eq!(average(usage.recent(), 7 * DAY_MS), 280_000, "half of it after a half-life");
        usage.advance(700 * DAY_MS, 560_000, 7 * DAY_MS);
        assert_eq!(average(usage.recent(), 7 * DAY_MS), 560_000);
        usage.advance(0, 1 << 40, DAY_MS);
        assert_eq!(average(usage.recent(), 7 * DAY_MS), 560_000, "time does not go back");
        usage.advance(701 * DAY_MS, 1, 0);
        assert_eq!(usage.recent(), 0);
        assert_eq!(average(u64::MAX, 0), u64::MAX);
    }

    #[test]
    fn a_short_time_counts_in_full() {
        let mut usage = Usage::default();
        usage.advance(1000, 56, 7 * DAY_MS);
        assert!(usage.recent().abs_diff(56_000) <= 1, "{usage:?}");
    }

    proptest::proptest! {
        #[test]
        fn it_does_not_matter_how_often_it_is_brought_up_to_date(
            recent in 0_u64..1 << 50, held in 0_u64..1 << 20, half_life_ms in 1_i64..1 << 34,
            steps in proptest::collection::vec(1_i64..1 << 28, 1..50),
        ) {
            let (mut once, mut often) = (Usage::at(5, recent), Usage::at(5, recent));
            for step in &steps {
                often.advance(often.at_ms + step, held, half_life_ms);
            }
            once.advance(often.at_ms, held, half_life_ms);
            let apart = once.recent().abs_diff(often.recent());
            proptest::prop_assert!(apart <= 3 * steps.len() as u64, "{once:?} {often:?}");
            let most = recent.max(u64::try_from(always(held, half_life_ms)).unwrap());
            proptest::prop_assert!(once.recent() <= most.saturating_add(2));
        }
    }
}
