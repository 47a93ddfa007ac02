//! Whether an instant claim may be made now, and why not. Whoever has no right
//! to one waits and is placed as an ordinary tenant; nobody is refused. Where
//! the claim is placed and who leaves for it is not decided here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gpus;
use crate::model::{UNITS_PER_GPU, UnitMs, Units};

use super::bucket::{Bucket, Flow};

/// How a reserve stands, to those who draw on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its tokens, and how they flow with what is claimed now; what is left of the year is its `most`, which is
    /// `None` in a crisis.
    pub bucket: Bucket,
    /// How the bucket fills and is spent now.
    pub flow: Flow,
    /// What may be claimed in all, by shapes and burst.
    pub most_units: Units,
    /// For how long a claim must be covered to be made, in milliseconds.
    pub least_claim_ms: i64,
}

/// The right to an instant claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClaimRight {
    /// It may be made.
    #[serde(rename_all = "camelCase")]
    Granted {
        /// If nothing else changes it is a claim up to this time, in milliseconds since 1970, and an ordinary
        /// workload from then on; `None` if nothing ends it.
        until_ms: Option<i64>,
    },
    /// There are too few tokens.
    #[serde(rename_all = "camelCase")]
    NoTokens {
        /// What it takes to be covered for the least time.
        needs: UnitMs,
        /// What there is.
        tokens: UnitMs,
    },
    /// There are tokens, but too little is left of the entitlement of the window.
    #[serde(rename_all = "camelCase")]
    YearSpent {
        /// What it takes to be covered for the least time.
        needs: UnitMs,
        /// What is left.
        left: UnitMs,
    },
    /// More than the reserve gives at once would be claimed.
    #[serde(rename_all = "camelCase")]
    BeyondBurst {
        /// What is claimed already.
        claimed: Units,
        /// What may be claimed in all.
        most: Units,
    },
}

impl Standing {
    /// What claims can still take: the tokens, and no more than is left of the year.
    pub fn spendable(&self) -> UnitMs {
        let tokens = self.bucket.tokens.whole.min(self.flow.depth);
        self.flow.most.map_or(tokens, |most| most.min(tokens))
    }

    /// What is left of it for more claims once those that run are covered for the least time.
    pub fn spare(&self) -> UnitMs {
        let covers = self.flow.claimed.saturating_mul(u64::try_from(self.least_claim_ms).unwrap_or(0));
        self.spendable().saturating_sub(covers)
    }

    /// Whether so many units more may be claimed now. All that is claimed must then be covered for the least time by
    /// what is there already: what accrues meanwhile only makes it last longer.
    pub fn claim(&self, units: Units) -> ClaimRight {
        let claimed = self.flow.claimed.saturating_add(units);
        if claimed > self.most_units {
            return ClaimRight::BeyondBurst { claimed: self.flow.claimed, most: self.most_units };
        }
        let needs = claimed.saturating_mul(u64::try_from(self.least_claim_ms).unwrap_or(0));
        if let Some(left) = self.flow.most.filter(|left| *left < needs.max(1)) {
            return ClaimRight::YearSpent { needs, left };
        }
        let tokens = self.bucket.tokens.whole.min(self.flow.depth);
        if tokens < needs.max(1) {
            return ClaimRight::NoTokens { needs, tokens };
        }
        ClaimRight::Granted { until_ms: self.bucket.runs_dry_ms(&Flow { claimed, ..self.flow }) }
    }
}

impl fmt::Display for ClaimRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted { .. } => f.write_str("may claim now"),
            Self::NoTokens { needs, tokens } => write!(
                f,
                "the reserve has tokens for {} GPU-hours, the claim needs {}: it waits as an ordinary workload",
                gpu_hours(*tokens),
                gpu_hours(*needs)
            ),
            Self::YearSpent { needs, left } => write!(
                f,
                "{} GPU-hours are left of the reserve's entitlement of the year, the claim needs {}: it waits as an ordinary workload",
                gpu_hours(*left),
                gpu_hours(*needs)
            ),
            Self::BeyondBurst { claimed, most } => write!(
                f,
                "{} of the {} GPUs that can be claimed at once are claimed: it waits as an ordinary workload",
                gpus(*claimed),
                gpus(*most)
            ),
        }
    }
}

/// In words: hours of whole GPUs, rounded down to hundredths.
pub(super) fn gpu_hours(amount: UnitMs) -> String {
    let hundredths = amount / (UNITS_PER_GPU * 36_000);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
