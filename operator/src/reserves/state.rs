//! A reserve's account while this process leads: begun from what its status
//! says, brought up to date by what is held, and written back now and then.

use std::collections::BTreeMap;

use vingt_core::ledger::{Basis, Entry, PoolCounts, PoolNow};
use vingt_core::model::{UnitMs, Units};
use vingt_core::reserve::{Account, Booking, Crisis, Holding, Now, Standing, Terms};
use vingt_crds::{ReserveAccount, SovereignReserve};

use super::pools::Pool;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// What is remembered of a reserve.
#[derive(Clone, Debug)]
pub struct State {
    /// What it has and had.
    pub account: Account,
    /// What happened in its pool since its report was last written.
    pub counts: PoolCounts,
    /// The crisis that was declared, from when it was first seen.
    pub crisis: Option<Crisis>,
    /// What claims hold.
    pub claimed: Units,
    /// What is lent, by tenant.
    pub lent: BTreeMap<String, Units>,
    /// What is booked.
    pub booked: Vec<Booking>,
    /// What of the instant claim does not fit now, in words; empty if all does, nothing if nobody looked.
    pub missing: Option<String>,
}

/// The terms of a reserve outside a crisis.
pub fn terms(reserve: &SovereignReserve) -> Terms {
    Terms {
        fraction_ppm: reserve.spec.fraction.ppm().unwrap_or(0),
        depth_ms: i64::from(reserve.spec.token_bucket.depth_days) * DAY_MS,
    }
}

impl State {
    /// The account of a reserve as its status has it, or a new one.
    pub fn of(pool: &Pool, now_ms: i64) -> Self {
        let reserve = &pool.reserve;
        let stored = reserve.status.as_ref().and_then(|status| status.account.as_ref()).and_then(read);
        let open = || Account::open(reserve.spec.window_days, now_ms, terms(reserve), pool.units());
        Self {
            account: stored.unwrap_or_else(open),
            counts: PoolCounts::default(),
            crisis: None,
            claimed: 0,
            lent: BTreeMap::new(),
            booked: Vec::new(),
            missing: None,
        }
    }

    /// Takes in the crisis that is declared now. It is in force since it was first seen.
    pub fn declare(&mut self, reserve: &SovereignReserve, now_ms: i64) {
        let status = reserve.status.as_ref().and_then(|status| status.crisis.as_ref());
        self.crisis = reserve.spec.crisis.as_ref().map(|crisis| {
            let until_ms = crisis.until.0.as_millisecond();
            let known =
                self.crisis.as_ref().filter(|known| known.reason == crisis.reason).map(|known| known.from_ms);
            let told =
                status.filter(|told| told.reason == crisis.reason).map(|told| told.since.0.as_millisecond());
            Crisis {
                reason: crisis.reason.clone(),
                from_ms: known.or(told).unwrap_or(now_ms),
                until_ms,
                fraction_ppm: crisis.fraction.ppm().unwrap_or(0),
            }
        });
    }

    /// Reckons up to now; answers the claims that have nothing left, by their place among the holdings, and since when.
    pub fn advance(&mut self, pool: &Pool, held: &[Holding], now_ms: i64) -> Vec<(usize, i64)> {
        let before_ms = self.account.as_of_ms();
        let now = Now {
            terms: terms(&pool.reserve),
            crisis: self.crisis.as_ref(),
            installed: pool.units(),
            booked: &self.booked,
        };
        let replayed = self.account.replay(now_ms, &now, held);
        let open = held.iter().enumerate().filter(|(_, one)| one.until_ms.is_none());
        let claims = open.filter(|(at, one)| !one.ordered && !replayed.ended.contains_key(at));
        self.claimed = claims.map(|(_, one)| one.units).sum();
        let passed_ms = u64::try_from(now_ms.saturating_sub(before_ms)).unwrap_or(0);
        let out = pool.out.saturating_mul(vingt_core::model::UNITS_PER_GPU);
        match self.missing.as_deref() {
            Some("") => self.counts.held_ms = self.counts.held_ms.saturating_add(passed_ms),
            Some(_) => self.counts.not_held_ms = self.counts.not_held_ms.saturating_add(passed_ms),
            // Nobody looked.
            None => {}
        }
        self.counts.maintenance = self.counts.maintenance.saturating_add(out.saturating_mul(passed_ms));
        replayed.ended.into_iter().collect()
    }

    fn now(&self, pool: &Pool) -> Now<'_> {
        let crisis = self.crisis.as_ref();
        Now { terms: terms(&pool.reserve), crisis, installed: pool.units(), booked: &self.booked }
    }

    /// The crisis, if it is in force.
    pub fn in_crisis(&self, now_ms: i64) -> Option<&Crisis> {
        self.crisis.as_ref().filter(|crisis| crisis.in_force(now_ms))
    }

    /// How it stands to those who want `most_units` at once at the most.
    pub fn standing(&self, pool: &Pool, most_units: Units) -> Standing {
        let least_ms = i64::from(pool.reserve.spec.instant_claim.within_seconds) * 1000;
        self.account.standing(&self.now(pool), self.claimed, most_units, least_ms)
    }

    /// What may be taken from others by more claims.
    pub fn spare(&self, pool: &Pool) -> UnitMs {
        self.standing(pool, Units::MAX).spare()
    }

    /// What the monthly report is told, and what was counted since the last time.
    pub fn for_report(&self, pool: &Pool, now_ms: i64) -> PoolNow {
        let ordinary = terms(&pool.reserve);
        let crisis = self.in_crisis(now_ms);
        PoolNow {
            units: pool.units(),
            fraction_ppm: crisis.map_or(ordinary, |crisis| crisis.terms(ordinary)).fraction_ppm,
            crisis: crisis.map(|crisis| vingt_core::ledger::CrisisRecord {
                from_ms: crisis.from_ms,
                until_ms: crisis.until_ms,
                fraction_ppm: crisis.fraction_ppm,
                reason: crisis.reason.clone(),
            }),
            counts: self.counts,
        }
    }
}

/// What is held by a right of the reserve, as the account counts it, with the place of the use among the entries.
pub fn holdings(reserve: &str, entries: &[Entry]) -> Vec<(usize, Holding)> {
    let drawn = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.basis != Basis::Ordinary && entry.reserve.as_deref() == Some(reserve));
    let held = drawn.map(|(at, entry)| {
        let ends = [entry.end_ms(), entry.ordinary_from_ms];
        let holding = Holding {
            units: entry.units,
            from_ms: entry.start_ms,
            until_ms: ends.into_iter().flatten().min(),
            ordered: entry.basis == Basis::Ordered,
        };
        (at, holding)
    });
    held.collect()
}

/// An account as it is stored: the same fields by the same names.
pub fn read(stored: &ReserveAccount) -> Option<Account> {
    serde_json::from_value(serde_json::to_value(stored).ok()?).ok()
}

/// An account as it is to be stored.
pub fn write(account: &Account) -> Option<ReserveAccount> {
    serde_json::from_value(serde_json::to_value(account).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reserves::pools::tests::pool_of;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn an_account_is_stored_and_read_back_as_it_is() {
        let (pool, _) = pool_of(&[("a", 8)]);
        let mut state = State::of(&pool, 1_000_000_000_000);
        let held = Holding { units: 28, from_ms: 1_000_000_000_500, until_ms: None, ordered: false };
        for hour in 1..50 {
            state.advance(&pool, std::slice::from_ref(&held), 1_000_000_000_000 + hour * HOUR_MS);
        }
        assert_eq!(read(&write(&state.account).unwrap()), Some(state.account.clone()));
        assert_eq!(state.claimed, 28);
    }

    #[test]
    fn how_long_the_promise_held_is_counted() {
        let (pool, _) = pool_of(&[("a", 8)]);
        let start_ms = 1_000_000_000_000;
        let mut state = State::of(&pool, start_ms);
        state.advance(&pool, &[], start_ms + 1_000);
        state.missing = Some(String::new());
        state.advance(&pool, &[], start_ms + 3_000);
        state.missing = Some("there is no room for 1 × 8 GPUs".to_owned());
        state.advance(&pool, &[], start_ms + 8_000);
        assert_eq!((state.counts.held_ms, state.counts.not_held_ms), (2_000, 5_000));
    }

    #[test]
    fn what_is_claimed_is_spent_and_what_ran_dry_is_told() {
        let (pool, _) = pool_of(&[("a", 8)]);
        let start_ms = 1_000_000_000_000;
        let mut state = State::of(&pool, start_ms);
        let full = state.standing(&pool, Units::MAX).spendable();
        // 5 % of 8 GPUs over 30 days.
        assert_eq!(full, 8 * 56 * 30 * 24 * 3_600_000 / 20);
        let held = Holding { units: 56, from_ms: start_ms, until_ms: None, ordered: false };
        assert_eq!(state.advance(&pool, std::slice::from_ref(&held), start_ms + HOUR_MS), []);
        assert!(state.standing(&pool, Units::MAX).spendable() < full);
        let ended = state.advance(&pool, &[held], start_ms + 30 * 24 * HOUR_MS);
        assert_eq!(ended.len(), 1, "a whole GPU is more than 5 % of eight");
        assert_eq!(state.claimed, 0);
    }
}
