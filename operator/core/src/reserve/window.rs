//! The rolling window: day by day what a reserve was entitled to and what was
//! delivered of it, and from that what is left of the year.
//!
//! A day of the window that is not wholly in it any more counts wholly on the
//! side of what was delivered, and at the least that it can have been on the
//! side of the entitlement: never too much is given. Days are those of UTC,
//! 86,400,000 ms each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{UnitMs, Units};

use super::amount::{Amount, Rate};
use super::bucket::over;

/// A day, in milliseconds.
pub const DAY_MS: i64 = 86_400_000;

/// The longest window that is kept, in days.
pub const LONGEST_DAYS: u32 = 400;

/// What happened on a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Day {
    /// What was installed: units, times milliseconds.
    pub installed: UnitMs,
    /// What of it the reserve was entitled to.
    pub entitled: Amount,
    /// The least rate at which that accrued at any time of the day.
    pub least: Rate,
    /// What instant claims took.
    pub claimed: UnitMs,
    /// What was held under advance orders.
    pub ordered: UnitMs,
}

impl Day {
    fn delivered(&self) -> UnitMs {
        self.claimed.saturating_add(self.ordered)
    }
}

/// What goes on for some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Installed.
    pub installed: Units,
    /// At what rate the entitlement accrues.
    pub rate: Rate,
    /// Held by instant claims.
    pub claimed: Units,
    /// Held under advance orders.
    pub ordered: Units,
}

/// What is booked ahead, of an accepted order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booking {
    /// How much.
    pub units: Units,
    /// From when, in milliseconds since 1970.
    pub from_ms: i64,
    /// Until when, in milliseconds since 1970.
    pub until_ms: i64,
}

impl Booking {
    /// What it takes between two times.
    pub fn between(&self, from_ms: i64, until_ms: i64) -> UnitMs {
        over(self.units, self.until_ms.min(until_ms).saturating_sub(self.from_ms.max(from_ms)))
    }

    fn first_day(&self) -> i64 {
        day_of(self.from_ms)
    }

    /// The last day of which it takes something.
    fn last_day(&self) -> i64 {
        day_of(self.until_ms.saturating_sub(1))
    }
}

/// The days of the window, and what went before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// How long it is, in days.
    length: u32,
    /// The rate that stands for the time before the first day.
    before: Rate,
    /// By their number since 1970; none is missing between the first and the last.
    days: BTreeMap<i64, Day>,
    /// The time up to which it is reckoned, in milliseconds since 1970.
    as_of_ms: i64,
}

impl Window {
    /// A window of so many days, from 1 to [`LONGEST_DAYS`], that begins now. Until it is full, `before` stands for
    /// the entitlement of the time before: 0 gives a reserve nothing for the time before it was made, its own rate
    /// lets it take from the first day on what it would be entitled to had it always been there.
    pub fn begin(length_days: u32, now_ms: i64, before: Rate) -> Self {
        let length = length_days.clamp(1, LONGEST_DAYS);
        let first = Day { entitled: before.over(now_ms.rem_euclid(DAY_MS)), least: before, ..Day::default() };
        Self { length, before, days: BTreeMap::from([(day_of(now_ms), first)]), as_of_ms: now_ms }
    }

    /// Up to when it is reckoned, in milliseconds since 1970.
    pub fn as_of_ms(&self) -> i64 {
        self.as_of_ms
    }

    /// How long it is, in milliseconds.
    pub fn length_ms(&self) -> i64 {
        i64::from(self.length) * DAY_MS
    }

    /// Its days, by their number since 1970, in order.
    pub fn days(&self) -> impl Iterator<Item = (i64, &Day)> {
        self.days.iter().map(|(number, day)| (*number, day))
    }

    /// Reckons up to `now_ms` what went on since. A time that is not later changes nothing.
    ///
    /// Days that are gone before the window's begin are forgotten; where more than a window went by at once, only
    /// what goes on in its last one is kept.
    pub fn advance(&mut self, now_ms: i64, held: &Held) {
        if now_ms <= self.as_of_ms {
            return;
        }
        let last = day_of(now_ms);
        let oldest = last.saturating_sub(self.length.into());
        self.days = self.days.split_off(&oldest);
        if self.as_of_ms < begin_ms(oldest) {
            self.before = held.rate;
            self.as_of_ms = begin_ms(oldest);
        }
        while self.as_of_ms < now_ms {
            let number = self.today();
            let until_ms = begin_ms(number.saturating_add(1)).min(now_ms);
            let passed_ms = until_ms.saturating_sub(self.as_of_ms);
            let day = self.days.entry(number).or_insert(Day { least: held.rate, ..Day::default() });
            day.installed = day.installed.saturating_add(over(held.installed, passed_ms));
            day.entitled = day.entitled.plus(held.rate.over(passed_ms));
            day.least = day.least.min(held.rate);
            day.claimed = day.claimed.saturating_add(over(held.claimed, passed_ms));
            day.ordered = day.ordered.saturating_add(over(held.ordered, passed_ms));
            self.as_of_ms = until_ms;
        }
    }

    /// What the reserve is entitled to over the window that ends now, at the least; what is to come of today
    /// cannot make it less while entitlement accrues at `rate`.
    pub fn entitled(&self, rate: Rate) -> UnitMs {
        let today = self.today();
        let oldest = today - i64::from(self.length);
        let rest_ms = DAY_MS - self.as_of_ms.rem_euclid(DAY_MS);
        let rest = self.least(oldest).min(rate).over(rest_ms);
        (oldest + 1..=today).map(|number| self.day_entitled(number)).fold(rest, Amount::plus).whole
    }

    /// What was delivered over the window, its oldest day counted whole.
    pub fn delivered(&self) -> UnitMs {
        self.days.values().map(Day::delivered).fold(0, UnitMs::saturating_add)
    }

    /// What is left of the window that ends now.
    pub fn left(&self, rate: Rate) -> UnitMs {
        self.entitled(rate).saturating_sub(self.delivered())
    }

    /// What is left besides what is booked, if entitlement goes on to accrue at `rate`: that much may be taken now, and
    /// still no more than its entitlement is delivered in any window that ends on a day with bookings.
    pub fn left_besides(&self, rate: Rate, booked: &[Booking]) -> UnitMs {
        let Some(last) = booked.iter().map(Booking::last_day).max() else { return UnitMs::MAX };
        let left = Outlook::new(self, rate, booked).least_left(self.today(), last, None);
        UnitMs::try_from(left.max(0)).unwrap_or(UnitMs::MAX)
    }

    fn today(&self) -> i64 {
        day_of(self.as_of_ms)
    }

    /// What accrued on a day till now; today has no entry yet at midnight.
    fn day_entitled(&self, number: i64) -> Amount {
        match self.days.get(&number) {
            Some(day) => day.entitled,
            None if number < self.today() => self.before.over(DAY_MS),
            None => Amount::default(),
        }
    }

    fn least(&self, number: i64) -> Rate {
        self.days.get(&number).map_or(self.before, |day| day.least)
    }
}

/// What the windows that end on the days to come allow, as far as is known now.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    length: i64,
    today: i64,
    /// The oldest day that is in the window now, at least in part.
    first: i64,
    /// Entry `n` is what accrues on the first `n` days from there, in millionths.
    entitled: Vec<u128>,
    /// The same of what was delivered and what is booked, in unit-milliseconds.
    delivered: Vec<u128>,
}

impl Outlook {
    /// For two windows ahead, with entitlement that goes on to accrue at `rate`.
    pub fn new(window: &Window, rate: Rate, booked: &[Booking]) -> Self {
        let length = i64::from(window.length);
        let today = window.today();
        let first = today - length;
        let last = today.saturating_add(length.saturating_mul(2)).min(i64::MAX / DAY_MS - 1);
        let (mut entitled, mut delivered) = (Vec::new(), Vec::new());
        for number in first..=last {
            let to_come_ms = begin_ms(number + 1).saturating_sub(window.as_of_ms.max(begin_ms(number)));
            let known = if number > today { Amount::default() } else { window.day_entitled(number) };
            entitled.push(known.in_millionths() + rate.millionths_over(to_come_ms));
            delivered.push(window.days.get(&number).map_or(0, |day| u128::from(day.delivered())));
        }
        for booking in booked {
            let booking = Booking { from_ms: booking.from_ms.max(window.as_of_ms), ..*booking };
            for number in booking.first_day().max(first)..=booking.last_day().min(last) {
                let on_day = booking.between(begin_ms(number), begin_ms(number + 1));
                delivered[usize::try_from(number - first).unwrap_or(0)] += u128::from(on_day);
            }
        }
        Self { length, today, first, entitled: sums(&entitled), delivered: sums(&delivered) }
    }

    /// The least that is left of the windows that end on the days from `from` to `to`, once `more` is delivered too;
    /// below 0 if there is not enough for it. Without such days, more than there ever is.
    pub fn least_left(&self, from: i64, to: i64, more: Option<&Booking>) -> i128 {
        (from.max(self.today)..=to.min(self.last_day()))
            .map(|day| {
                let oldest = day - self.length;
                let extra = more.map_or(0, |more| more.between(begin_ms(oldest), begin_ms(day + 1)));
                let delivered = sum(&self.delivered, oldest - self.first, day - self.first);
                let entitled = sum(&self.entitled, oldest + 1 - self.first, day - self.first);
                let left = i128::from(Amount::from_millionths(entitled).whole) - i128::from(extra);
                left.saturating_sub_unsigned(delivered)
            })
            .min()
            .unwrap_or(i128::MAX)
    }

    /// The last day that is looked at.
    pub fn last_day(&self) -> i64 {
        self.first + i64::try_from(self.entitled.len()).unwrap_or(0) - 2
    }
}

/// Entry `n` is the sum of the first `n`.
fn sums(each: &[u128]) -> Vec<u128> {
    let mut all = vec![0];
    all.extend(each.iter().scan(0_u128, |sum, one| {
        *sum += one;
        Some(*sum)
    }));
    all
}

/// Of the numbers from one position to another, both included.
fn sum(sums: &[u128], from: i64, to: i64) -> u128 {
    let at = |position: i64| sums[usize::try_from(position).unwrap_or(0).min(sums.len() - 1)];
    at(to.saturating_add(1)).saturating_sub(at(from))
}

/// When a day begins, in milliseconds since 1970.
pub(super) fn begin_ms(day: i64) -> i64 {
    day.saturating_mul(DAY_MS)
}

/// The number of a day since 1970.
pub(super) fn day_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}
