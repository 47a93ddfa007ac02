//! What is known of a reserve, from its status and its accepted orders: who
//! holds and who borrows, what can be claimed, and the year week by week, with
//! a forecast. Nothing is drawn here.

use jiff::Timestamp;
use jiff::civil::{Date, date};
use kube::ResourceExt as _;
use serde::Serialize;
use vingt_core::model::UNITS_PER_GPU;
use vingt_crds::{
    AccountWindow, OrderState, SovereignOrder, SovereignReserve, SovereignReserveSpec, SovereignReserveStatus,
};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Weeks that are looked ahead.
const AHEAD: i64 = 13;

/// Days whose mean stands for the days to come.
const PACE_DAYS: i64 = 28;

/// A reserve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Book {
    /// Its name.
    pub name: String,
    /// What is asked of it.
    pub spec: SovereignReserveSpec,
    /// What the operator knows of it.
    pub status: SovereignReserveStatus,
    /// Its year, if there is an account of it yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub year: Option<Year>,
}

/// A year in weeks, and the weeks after it. Amounts are unit-milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Year {
    /// The weeks, the oldest first. The last that is not to come ends with today.
    pub weeks: Vec<Week>,
    /// What there will have been a right to in the window that ends with the last week.
    pub entitled_then: u64,
    /// What will have been delivered in it, at the pace of the last weeks and with what is ordered.
    pub delivered_then: u64,
}

/// Seven days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Week {
    /// The first day, UTC.
    pub from: Date,
    /// Whether it is to come.
    pub to_come: bool,
    /// What there is a right to.
    pub entitled: u64,
    /// What instant claims took, or will at the pace of the last weeks.
    pub claimed: u64,
    /// What was, or will be, held under accepted orders.
    pub ordered: u64,
}

impl Book {
    /// What is known at `now`; `orders` are those of any reserve.
    pub fn of(reserve: &SovereignReserve, orders: &[SovereignOrder], now: Timestamp) -> Self {
        let name = reserve.name_any();
        let status = reserve.status.clone().unwrap_or_default();
        let ahead: Vec<&SovereignOrder> = orders
            .iter()
            .filter(|order| order.spec.reserve == name)
            .filter(|order| {
                let state = order.status.as_ref().and_then(|status| status.state);
                matches!(state, Some(OrderState::Accepted | OrderState::Active))
            })
            .collect();
        let ppm = reserve.spec.fraction.ppm().unwrap_or(0);
        // What accrues in a day, if nothing is added and no crisis declared.
        let accrues =
            u128::from(status.installed_gpus) * u128::from(UNITS_PER_GPU) * 86_400_000 * u128::from(ppm);
        let accrues = u64::try_from(accrues / 1_000_000).unwrap_or(u64::MAX);
        let year = status.account.as_ref().map(|account| Year::of(&account.window, &ahead, accrues, now));
        Self { name, spec: reserve.spec.clone(), status, year }
    }
}

impl Year {
    fn of(window: &AccountWindow, ahead: &[&SovereignOrder], accrues: u64, now: Timestamp) -> Self {
        let today = now.as_millisecond().div_euclid(DAY_MS);
        let length = i64::from(window.length.clamp(1, 400));
        let past = |day: i64| window.days.get(&day.to_string()).cloned().unwrap_or_default();
        // The core lets this stand for the time before the first day.
        let before = u64::try_from(u128::from(window.before) * 86_400_000 / 1_000_000).unwrap_or(u64::MAX);
        let paced: u64 = (today - PACE_DAYS..today).map(|day| past(day).claimed).fold(0, u64::saturating_add);
        // Of a reserve that is younger, the mean of the days that it has.
        let known = window.days.keys().filter_map(|day| day.parse::<i64>().ok()).min().unwrap_or(today);
        let days = (today - known).clamp(1, PACE_DAYS);
        let pace = paced / days.unsigned_abs();
        let day_of = |day: i64| {
            if day < known {
                (before, 0, 0)
            } else if day <= today {
                let day = past(day);
                (day.entitled.whole, day.claimed, day.ordered)
            } else {
                (accrues, pace, booked(ahead, day))
            }
        };
        let week = |first: i64| {
            let mut week =
                Week { from: civil(first), to_come: first > today, entitled: 0, claimed: 0, ordered: 0 };
            for (entitled, claimed, ordered) in (first..first + 7).map(day_of) {
                week.entitled = week.entitled.saturating_add(entitled);
                week.claimed = week.claimed.saturating_add(claimed);
                week.ordered = week.ordered.saturating_add(ordered);
            }
            week
        };
        let weeks = length.unsigned_abs().div_ceil(7);
        let first = today + 1 - 7 * i64::try_from(weeks).unwrap_or(53);
        let last = today + 7 * AHEAD;
        let weeks = (first..=last).step_by(7).map(week).collect();
        let mut year = Self { weeks, ..Self::default() };
        for (entitled, claimed, ordered) in (last + 1 - length..=last).map(day_of) {
            year.entitled_then = year.entitled_then.saturating_add(entitled);
            year.delivered_then = year.delivered_then.saturating_add(claimed).saturating_add(ordered);
        }
        year
    }
}

/// What accepted orders book on a day.
fn booked(orders: &[&SovereignOrder], day: i64) -> u64 {
    let (begin_ms, end_ms) = (day.saturating_mul(DAY_MS), (day + 1).saturating_mul(DAY_MS));
    let on = |order: &&SovereignOrder| {
        let units = order.status.as_ref().map_or(0, |status| status.units);
        let from_ms = order.spec.from.0.as_millisecond().max(begin_ms);
        let until_ms = order.spec.until.0.as_millisecond().min(end_ms);
        units.saturating_mul(u64::try_from(until_ms - from_ms).unwrap_or(0))
    };
    orders.iter().map(on).fold(0, u64::saturating_add)
}

/// The day of that number since 1970.
fn civil(day: i64) -> Date {
    let epoch = date(1970, 1, 1);
    epoch.checked_add(jiff::Span::new().days(day.clamp(-700_000, 2_900_000))).unwrap_or(epoch)
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    const GPU_DAY: u64 = 56 * 86_400_000;

    /// A reserve of 5 % of 64 GPUs, whose account began 70 days ago; on each of the last 28 days one GPU was claimed for a day.
    pub fn reserve(now: Timestamp) -> SovereignReserve {
        let today = now.as_millisecond().div_euclid(DAY_MS);
        let days: serde_json::Map<_, _> = (today - 70..=today)
            .map(|day| {
                let claimed = if day >= today - 28 && day < today { GPU_DAY } else { 0 };
                let entitled = json!({"whole": 64 * GPU_DAY / 20, "millionths": 0});
                (day.to_string(), json!({"installed": 64 * GPU_DAY, "entitled": entitled, "least": 0, "claimed": claimed, "ordered": 0}))
            })
            .collect();
        let nothing = json!({"whole": 0, "millionths": 0});
        serde_json::from_value(json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "SovereignReserve", "metadata": {"name": "national"},
            "spec": {"fraction": "5%", "instantClaim": {"shapes": [{"gpus": 1}, {"profile": "3g.40gb", "count": 2}]}},
            "status": {
                "installedGPUs": 64,
                "year": {"from": "2026-09-15T00:00:00Z", "asOf": now.to_string(), "installedUnitMs": 0, "entitledUnitMs": 1000 * GPU_DAY,
                    "claimedUnitMs": 28 * GPU_DAY, "orderedUnitMs": 0, "summary": ""},
                "tokens": {"unitMs": 48 * GPU_DAY, "depthUnitMs": 96 * GPU_DAY, "asOf": now.to_string(), "gpuHours": "1152.0"},
                "claimedNow": [{"tenant": "civil", "class": "sovereign", "basis": "claimed", "units": 28, "gpus": "0.5"}],
                "lent": {"gpus": "3.5", "units": 196, "to": [{"tenant": "research", "units": 112}, {"tenant": "serving", "units": 84}]},
                "claimable": [{"shape": {"gpus": 1, "count": 1}, "claimed": 0, "now": 1, "free": 1},
                    {"shape": {"profile": "3g.40gb", "count": 2}, "claimed": 1, "now": 1, "free": 0}],
                "proof": {"holds": true, "asOf": now.to_string()},
                "account": {"bucket": {"tokens": nothing, "spilled": nothing, "asOfMs": 0},
                    "window": {"length": 365, "before": 0, "days": days, "asOfMs": now.as_millisecond()}}}}))
        .unwrap()
    }

    fn order(state: &str, reserve: &str) -> SovereignOrder {
        serde_json::from_value(json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "SovereignOrder", "metadata": {"name": "o", "namespace": "civil"},
            "spec": {"reserve": reserve, "shapes": [{"gpus": 1}], "from": "2026-12-01T12:00:00Z", "until": "2026-12-03T12:00:00Z"},
            "status": {"state": state, "units": 56}}))
        .unwrap()
    }

    #[test]
    fn the_year_is_what_was_and_what_is_to_come() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let orders =
            [order("Accepted", "national"), order("Countered", "national"), order("Accepted", "other")];
        let year = Book::of(&reserve(now), &orders, now).year.unwrap();
        assert_eq!(year.weeks.len(), 53 + 13);
        let last = year.weeks[52];
        assert_eq!((last.from, last.to_come), (date(2026, 11, 18), false), "ends with today");
        assert_eq!(
            (last.entitled, last.claimed),
            (7 * 64 * GPU_DAY / 20, 6 * GPU_DAY),
            "today nothing is claimed"
        );
        let claimed: u64 = year.weeks[..53].iter().map(|week| week.claimed).sum();
        assert_eq!(claimed, 28 * GPU_DAY, "nothing is lost");
        assert_eq!(year.weeks[0].entitled, 0, "there was no reserve");
        let mut older = reserve(now);
        let window = &mut older.status.as_mut().unwrap().account.as_mut().unwrap().window;
        window.before = 64 * 56 * 50_000;
        let year = Book::of(&older, &orders, now).year.unwrap();
        assert_eq!(year.weeks[0].entitled, 7 * 64 * GPU_DAY / 20, "what stands for the time before");
        let year = Book::of(&reserve(now), &orders, now).year.unwrap();
        let next = year.weeks[53];
        assert_eq!((next.from, next.to_come), (date(2026, 11, 25), true));
        assert_eq!(next.claimed, 7 * GPU_DAY, "at the pace of the last 28 days");
        let ordered: Vec<u64> = year.weeks[53..].iter().map(|week| week.ordered / (GPU_DAY / 2)).collect();
        assert_eq!(ordered[..3], [1, 3, 0], "half a day before midnight, a day and a half after it");
        assert_eq!(year.delivered_then, (28 + 91 + 2) * GPU_DAY);
        assert_eq!(year.entitled_then, (71 + 91) * 64 * GPU_DAY / 20);
    }

    #[test]
    fn a_reserve_without_an_account_has_no_year() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let mut reserve = reserve(now);
        reserve.status = None;
        assert_eq!(Book::of(&reserve, &[], now).year, None);
    }
}
