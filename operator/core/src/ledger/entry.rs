//! What a claim of devices costs its tenant: from when until when, how many
//! units, by what right. Who records it is not here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::report::Amount;
use crate::model::{Class, Right, UnitMs, Units};

/// By what right units were held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// As anyone's.
    Ordinary,
    /// As an instant claim: taken by asking others to leave.
    Claimed,
    /// Under an advance order.
    Ordered,
}

impl Basis {
    /// The word for it in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Claimed => "claimed",
            Self::Ordered => "ordered",
        }
    }
}

impl From<&Right> for Basis {
    fn from(right: &Right) -> Self {
        match right {
            Right::Ordinary => Self::Ordinary,
            Right::Claimed => Self::Claimed,
            Right::Ordered(_) => Self::Ordered,
        }
    }
}

/// What a line of a report is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineKey {
    /// The profile of the devices; `gpu` for whole ones.
    pub profile: String,
    /// What the tenant was when it was decided.
    pub class: Class,
    /// By what right.
    pub basis: Basis,
    /// The reserve in whose pool they are; only what is ordinary may be in none.
    pub reserve: Option<String>,
}

/// What a claim holds, or held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// UID of the claim.
    pub claim: String,
    /// The tenant charged.
    pub tenant: String,
    /// What the tenant was when it was decided.
    pub class: Class,
    /// The reserve in whose pool the devices are.
    pub reserve: Option<String>,
    /// The profile of the devices.
    pub profile: String,
    /// What the tenant is charged while it lasts.
    pub units: Units,
    /// By what right it began.
    pub basis: Basis,
    /// When the right ended, if it did while the claim went on as an ordinary one.
    pub ordinary_from_ms: Option<i64>,
    /// When it began, in milliseconds since 1970: the decision.
    pub start_ms: i64,
    /// When it ended, if it is known that it did: the last device was given back.
    pub end_ms: Option<i64>,
    /// It ended by the rule for nodes that do not come back, not by what an agent recorded.
    pub by_rule: bool,
}

/// There is more than can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more unit-milliseconds than can be counted")]
pub struct Overflow;

impl Entry {
    /// When it ended; never before it began, whatever two clocks say.
    pub fn end_ms(&self) -> Option<i64> {
        self.end_ms.map(|end_ms| end_ms.max(self.start_ms))
    }

    /// The line it counts to while it has the right `basis`.
    fn line(&self, basis: Basis) -> LineKey {
        let (profile, class, reserve) = (self.profile.clone(), self.class, self.reserve.clone());
        LineKey { profile, class, basis, reserve }
    }

    /// Counts what was held from `from_ms` until `until_ms`; backwards, takes it back as a credit.
    pub(super) fn count(
        &self,
        lines: &mut BTreeMap<LineKey, Amount>,
        from_ms: i64,
        until_ms: i64,
    ) -> Result<(), Overflow> {
        let (first_ms, last_ms) = (from_ms.min(until_ms), from_ms.max(until_ms));
        let turn_ms = self.ordinary_from_ms.unwrap_or(last_ms).clamp(first_ms, last_ms);
        let mut add = |basis: Basis, ms: i64| {
            let unit_ms = u128::from(self.units) * u128::from(ms.unsigned_abs());
            let unit_ms = UnitMs::try_from(unit_ms).map_err(|_| Overflow)?;
            if unit_ms == 0 {
                return Ok(());
            }
            let amount = lines.entry(self.line(basis)).or_default();
            let side = if until_ms < from_ms { &mut amount.credited } else { &mut amount.used };
            *side = side.checked_add(unit_ms).ok_or(Overflow)?;
            Ok(())
        };
        add(self.basis, turn_ms - first_ms)?;
        add(Basis::Ordinary, last_ms - turn_ms)
    }
}
