//! The token bucket: what may be taken by asking others to leave. It fills at
//! the reserve's share of what is installed, holds so much and no more, and is
//! spent by instant claims while they run.
//!
//! Time only goes on here: a clock that goes back changes nothing until it has
//! caught up. What the year allows besides is not reckoned here ([`super::window`]).

use serde::{Deserialize, Serialize};

use crate::model::{UnitMs, Units};

use super::amount::{Amount, MILLION, Rate};

/// How a bucket fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// The reserve's share of what is installed, in parts per million.
    pub fraction_ppm: u32,
    /// How long an empty bucket that nobody draws on takes to be full, in milliseconds.
    pub depth_ms: i64,
}

impl Terms {
    /// What accrues of so many installed units.
    pub fn rate(&self, installed: Units) -> Rate {
        Rate::of(installed, self.fraction_ppm)
    }

    /// What the bucket holds at most.
    pub fn depth(&self, installed: Units) -> UnitMs {
        self.rate(installed).over(self.depth_ms).whole
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// What is in it.
    pub tokens: Amount,
    /// What it had no room for since it began; only advance orders can use it.
    pub spilled: Amount,
    /// The time up to which it is reckoned, in milliseconds since 1970.
    pub as_of_ms: i64,
}

/// What happens to a bucket over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// What it fills by.
    pub rate: Rate,
    /// What it holds at most.
    pub depth: UnitMs,
    /// What instant claims hold.
    pub claimed: Units,
    /// What they may take before they end, besides what the bucket allows; `None` is as much as that.
    pub most: Option<UnitMs>,
}

/// What was taken from a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// By instant claims.
    pub amount: UnitMs,
    /// From this time on nothing was left for them, in milliseconds since 1970: they are
    /// claims no longer. `None` if they lasted.
    pub ended_ms: Option<i64>,
}

impl Bucket {
    /// An empty one.
    pub fn empty(as_of_ms: i64) -> Self {
        Self { as_of_ms, ..Self::default() }
    }

    /// One that holds `tokens`.
    pub fn holding(tokens: UnitMs, as_of_ms: i64) -> Self {
        Self { tokens: Amount::of(tokens), as_of_ms, ..Self::default() }
    }

    /// Reckons up to `now_ms`. What claims take is taken in whole milliseconds: in one for which not all of them
    /// have enough, none of them is a claim any more. A time that is not later changes nothing.
    pub fn advance(&mut self, now_ms: i64, flow: &Flow) -> Taken {
        let passed_ms = now_ms.saturating_sub(self.as_of_ms);
        self.fill(0, 0, flow);
        if passed_ms <= 0 {
            return Taken::default();
        }
        let lasts_ms = self.lasts_ms(flow).min(passed_ms);
        let began_ms = self.as_of_ms;
        self.fill(lasts_ms, flow.claimed, flow);
        self.fill(passed_ms - lasts_ms, 0, flow);
        self.as_of_ms = now_ms;
        let ended_ms = (lasts_ms < passed_ms).then(|| began_ms.saturating_add(lasts_ms));
        Taken { amount: over(flow.claimed, lasts_ms), ended_ms }
    }

    /// Up to when what claims hold is covered, in milliseconds since 1970; `None` if nothing ends them.
    pub fn runs_dry_ms(&self, flow: &Flow) -> Option<i64> {
        let lasts_ms = self.lasts_ms(flow);
        (lasts_ms < i64::MAX).then(|| self.as_of_ms.saturating_add(lasts_ms))
    }

    /// For how long what claims hold is covered.
    fn lasts_ms(&self, flow: &Flow) -> i64 {
        if flow.claimed == 0 {
            return i64::MAX;
        }
        let spends = u128::from(flow.claimed) * u128::from(MILLION);
        let holds = self.tokens.min(Amount::of(flow.depth)).in_millionths();
        // In each millisecond what accrues in it is spent first.
        let by_tokens = holds.checked_div(spends.saturating_sub(flow.rate.0.into())).unwrap_or(u128::MAX);
        let by_most = flow.most.map_or(u128::MAX, |most| u128::from(most / flow.claimed));
        i64::try_from(by_tokens.min(by_most)).unwrap_or(i64::MAX)
    }

    /// Lets it fill for some time in which so much is spent, which it has.
    fn fill(&mut self, ms: i64, claimed: Units, flow: &Flow) {
        let spent = u128::from(over(claimed, ms)) * u128::from(MILLION);
        let filled = self.tokens.in_millionths() + flow.rate.millionths_over(ms);
        let filled = filled.saturating_sub(spent);
        let kept = filled.min(Amount::of(flow.depth).in_millionths());
        self.tokens = Amount::from_millionths(kept);
        self.spilled = self.spilled.plus(Amount::from_millionths(filled - kept));
    }
}

/// Units held for so many milliseconds.
pub(super) fn over(units: Units, ms: i64) -> UnitMs {
    units.saturating_mul(u64::try_from(ms).unwrap_or(0))
}
