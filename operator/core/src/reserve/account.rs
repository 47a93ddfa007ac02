//! A reserve's account: its bucket and its window, reckoned together, through
//! midnights and a crisis' begin and end. What happened is an argument; who may
//! claim is [`super::standing`], what is booked [`super::orders`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{UnitMs, Units};

use super::amount::Rate;
use super::bucket::{Bucket, Flow, Taken, Terms};
use super::crisis::Crisis;
use super::standing::Standing;
use super::window::{Booking, DAY_MS, Held, Window, begin_ms, day_of};

/// What a reserve has and had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// What may be taken by asking others to leave.
    pub bucket: Bucket,
    /// What was delivered, and the entitlement.
    pub window: Window,
}

/// What goes on for some time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now<'a> {
    /// The reserve's terms outside a crisis.
    pub terms: Terms,
    /// A crisis that was declared, whether it is in force or not.
    pub crisis: Option<&'a Crisis>,
    /// What is installed; what is broken counts, what is in announced maintenance does not.
    pub installed: Units,
    /// What accepted orders book.
    pub booked: &'a [Booking],
}

/// Something that was held by a right of the reserve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// How much.
    pub units: Units,
    /// Since when, in milliseconds since 1970.
    pub from_ms: i64,
    /// Until when; `None` if it still is.
    pub until_ms: Option<i64>,
    /// Under an advance order; else as an instant claim.
    pub ordered: bool,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// What instant claims took.
    pub amount: UnitMs,
    /// Claims for which nothing was left while they were held, by their index, and since when, in milliseconds since
    /// 1970: they are claims no longer.
    pub ended: BTreeMap<usize, i64>,
}

impl Account {
    /// The account of a reserve that is made now: its bucket is full, and until its window is, the time before
    /// counts as if the reserve had always been there. So it can be claimed from on its first day, and what is
    /// taken in any window is bounded all the same.
    pub fn open(window_days: u32, now_ms: i64, terms: Terms, installed: Units) -> Self {
        Self {
            bucket: Bucket::holding(terms.depth(installed), now_ms),
            window: Window::begin(window_days, now_ms, terms.rate(installed)),
        }
    }

    /// The account of a reserve that has to wait until its entitlement has accrued.
    pub fn open_empty(window_days: u32, now_ms: i64) -> Self {
        Self { bucket: Bucket::empty(now_ms), window: Window::begin(window_days, now_ms, Rate(0)) }
    }

    /// Up to when it is reckoned, in milliseconds since 1970.
    pub fn as_of_ms(&self) -> i64 {
        self.bucket.as_of_ms
    }

    /// Reckons up to `now_ms`, with instant claims that hold `claimed` and orders under which `ordered` is held. Where
    /// claims have nothing left, they take nothing from then on. A time that is not later changes nothing.
    pub fn advance(&mut self, now_ms: i64, now: &Now, claimed: Units, ordered: Units) -> Taken {
        let mut taken = self.catch_up(now_ms, now, claimed);
        while self.as_of_ms() < now_ms {
            let at_ms = self.as_of_ms();
            let until_ms = self.changes_ms(now_ms, now);
            let claimed = if taken.ended_ms.is_some() { 0 } else { claimed };
            let flow = self.flow(at_ms, now, claimed, ordered);
            let part = self.bucket.advance(until_ms, &flow);
            let held = Held { installed: now.installed, rate: flow.rate, claimed, ordered };
            if let Some(ended_ms) = part.ended_ms {
                self.window.advance(ended_ms, &held);
            }
            let claimed = if part.ended_ms.is_some() { 0 } else { claimed };
            self.window.advance(until_ms, &Held { claimed, ..held });
            taken.amount = taken.amount.saturating_add(part.amount);
            taken.ended_ms = taken.ended_ms.or(part.ended_ms);
        }
        taken
    }

    /// Reckons up to `now_ms` what is known to have been held, in any order; an end that became known late counts
    /// from when it was. Of what was held before the account's time nothing counts.
    pub fn replay(&mut self, now_ms: i64, now: &Now, held: &[Holding]) -> Replayed {
        let mut times: Vec<i64> =
            held.iter().flat_map(|one| [Some(one.from_ms), one.until_ms]).flatten().collect();
        times.retain(|at_ms| (self.as_of_ms()..now_ms).contains(at_ms));
        times.push(now_ms);
        times.sort_unstable();
        times.dedup();
        let mut replayed = Replayed::default();
        for until_ms in times {
            let at_ms = self.as_of_ms();
            let holds =
                |one: &Holding| one.from_ms <= at_ms && one.until_ms.is_none_or(|end_ms| at_ms < end_ms);
            let sum = |units: &mut dyn Iterator<Item = Units>| units.fold(0, Units::saturating_add);
            let ordered = sum(&mut held.iter().filter(|one| one.ordered && holds(one)).map(|one| one.units));
            let claims: Vec<usize> = (0..held.len())
                .filter(|index| !held[*index].ordered && holds(&held[*index]))
                .filter(|index| !replayed.ended.contains_key(index))
                .collect();
            let claimed = sum(&mut claims.iter().map(|index| held[*index].units));
            let taken = self.advance(until_ms, now, claimed, ordered);
            replayed.amount = replayed.amount.saturating_add(taken.amount);
            replayed.ended.extend(claims.into_iter().filter_map(|index| Some((index, taken.ended_ms?))));
        }
        replayed
    }

    /// How it stands now: what can be claimed besides `claimed`, if `most_units` may be claimed in all.
    pub fn standing(&self, now: &Now, claimed: Units, most_units: Units, least_claim_ms: i64) -> Standing {
        let flow = Flow { claimed, ..self.flow(self.as_of_ms(), now, 0, 0) };
        Standing { bucket: self.bucket, flow, most_units, least_claim_ms }
    }

    /// Passes over what lies more than a window back, so that a clock that jumped is followed at once. No claim is
    /// believed to have lasted for longer than the window: it ends where that time begins.
    fn catch_up(&mut self, now_ms: i64, now: &Now, claimed: Units) -> Taken {
        let at_ms = self.as_of_ms();
        let until_ms = now_ms.saturating_sub(self.window.length_ms()).saturating_sub(DAY_MS);
        if until_ms <= at_ms.saturating_add(self.window.length_ms()) {
            return Taken::default();
        }
        let flow = self.flow(at_ms, &Now { crisis: None, ..*now }, 0, 0);
        self.bucket.advance(until_ms, &flow);
        self.window.advance(until_ms, &Held { installed: now.installed, rate: flow.rate, ..Held::default() });
        Taken { amount: 0, ended_ms: (claimed > 0).then_some(at_ms) }
    }

    /// What flows from `at_ms` on. In a crisis the year ends no claim: what it grants counts in the year after it.
    fn flow(&self, at_ms: i64, now: &Now, claimed: Units, ordered: Units) -> Flow {
        let crisis = now.crisis.filter(|crisis| crisis.in_force(at_ms));
        let terms = crisis.map_or(now.terms, |crisis| crisis.terms(now.terms));
        let most = crisis.is_none().then(|| {
            let usual = now.terms.rate(now.installed);
            // What orders hold is delivered meanwhile; where it was booked, it is not left besides anyway.
            let left = self.window.left(usual);
            let left = if claimed == 0 { left } else { left / claimed.saturating_add(ordered) * claimed };
            left.min(self.window.left_besides(usual, now.booked))
        });
        Flow { rate: terms.rate(now.installed), depth: terms.depth(now.installed), claimed, most }
    }

    /// The first time after the account's at which something changes by the clock alone, at most `now_ms`.
    fn changes_ms(&self, now_ms: i64, now: &Now) -> i64 {
        let at_ms = self.as_of_ms();
        let midnight_ms = begin_ms(day_of(at_ms).saturating_add(1));
        let crisis = now.crisis.map(|crisis| [crisis.from_ms, crisis.until_ms]);
        let due = crisis.into_iter().flatten().chain([midnight_ms, now_ms]);
        due.filter(|due_ms| *due_ms > at_ms).min().unwrap_or(now_ms)
    }
}
