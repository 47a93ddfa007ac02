//! What is kept of a month: one report for each tenant, one for each reserve.
//! What makes them a chain is in [`super::chain`], when they are written in
//! [`super::books`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::entry::{Basis, LineKey, Overflow};
use super::month::Month;
use super::price::{PricePlan, money};
use super::{encode, listed};
use crate::model::{UNITS_PER_GPU, UnitMs, Units};

/// Unit-milliseconds of one GPU-hour.
pub const GPU_HOUR: UnitMs = UNITS_PER_GPU * 3_600_000;

/// Millionths.
const PPM: u128 = 1_000_000;

/// Whom a report is about. Tenants come before reserves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Its name.
    pub name: String,
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A tenant: what it used.
    Tenant,
    /// A reserve: what was installed in its pool, and what all used of it.
    Reserve,
}

impl SubjectKind {
    /// The word for it in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Reserve => "reserve",
        }
    }
}

impl Subject {
    /// The tenant of this name.
    pub fn tenant(name: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Tenant, name: name.into() }
    }

    /// The reserve of this name.
    pub fn reserve(name: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Reserve, name: name.into() }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)
    }
}

/// What a line comes to. Used less credited is what counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Unit-milliseconds held.
    pub used: UnitMs,
    /// Unit-milliseconds that an earlier month counted too much: it was sealed before the end was known.
    pub credited: UnitMs,
}

impl Amount {
    /// Used less credited.
    pub fn net(self) -> i64 {
        i64::try_from(self.used).unwrap_or(i64::MAX).saturating_sub_unsigned(self.credited)
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Result<Self, Overflow> {
        Ok(Self {
            used: self.used.checked_add(other.used).ok_or(Overflow)?,
            credited: self.credited.checked_add(other.credited).ok_or(Overflow)?,
        })
    }
}

/// The report of a tenant or of a reserve on a month. Open, it is added to; sealed, it never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// The version of the bytes that the hash is of; [`encode::VERSION`].
    pub version: u32,
    /// Whom it is about.
    pub subject: Subject,
    /// The month.
    pub month: Month,
    /// When it was sealed, in milliseconds since 1970; missing while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_ms: Option<i64>,
    /// What was used; of a reserve, what all tenants together used in its pool.
    #[serde(default, with = "listed::lines")]
    pub lines: BTreeMap<LineKey, Amount>,
    /// UIDs of claims that ended and are counted wholly, and may still have their finalizer.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub settled: BTreeSet<String>,
    /// UIDs of claims that are counted up to the end of the month, and go on in the next.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub carried: BTreeSet<String>,
    /// How many of the claims counted ended by the rule for nodes that do not come back.
    #[serde(default)]
    pub ended_by_rule: u64,
    /// What the tenant pays; of a tenant only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<PricePlan>,
    /// The pool's account; of a reserve only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// The same in short, for people.
    #[serde(default)]
    pub summary: Summary,
    /// The hash of the report before it in the chain; empty in the first, and while it is open.
    #[serde(default)]
    pub previous: String,
    /// SHA-256 of its canonical bytes, in lower-case hexadecimal digits.
    #[serde(default)]
    pub hash: String,
}

/// A report in words, worked out of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Summary {
    /// GPU-hours, with one digit.
    pub gpu_hours: String,
    /// Of these, claimed or ordered.
    pub sovereign_gpu_hours: String,
    /// What they cost, with the currency; empty without a price.
    pub cost: String,
}

/// What there was in a reserve's pool, and how its promise was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// Up to when the amounts are counted, in milliseconds since 1970.
    pub as_of_ms: i64,
    /// Units installed since then, whether healthy or not, without what is out for announced maintenance.
    pub units: Units,
    /// The fraction in force since then, in millionths.
    pub fraction_ppm: u32,
    /// Unit-milliseconds installed, by the fraction that was in force.
    #[serde(with = "listed::installed")]
    pub installed: BTreeMap<u32, UnitMs>,
    /// Unit-milliseconds that are not in it: out for announced maintenance.
    pub maintenance: UnitMs,
    /// How long the declared shapes were deliverable, in milliseconds.
    pub held_ms: u64,
    /// How long they were not.
    pub not_held_ms: u64,
    /// Instant claims.
    pub claims: ClaimCount,
    /// Advance orders.
    pub orders: OrderCount,
    /// Workloads that were asked to leave for claims and orders.
    pub evictions: u64,
    /// What these lost, in unit-milliseconds: what they did since their last checkpoints, of servers their restart.
    pub lost: UnitMs,
    /// The crises that were in force in the month.
    pub crises: Vec<CrisisRecord>,
}

/// How instant claims were served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimCount {
    /// Valid ones.
    pub made: u64,
    /// Of these, started later than promised, or never.
    pub late: u64,
    /// How long the slowest took to start.
    pub slowest_ms: u64,
}

/// How advance orders were served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderCount {
    /// Accepted.
    pub accepted: u64,
    /// Answered with the earliest start.
    pub countered: u64,
    /// Refused.
    pub refused: u64,
    /// Of those that began, begun later than accepted.
    pub late: u64,
}

/// A crisis that was declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CrisisRecord {
    /// Since when it was in force, in milliseconds since 1970.
    pub from_ms: i64,
    /// Until when, at the latest.
    pub until_ms: i64,
    /// The fraction it set, in millionths.
    pub fraction_ppm: u32,
    /// Why.
    pub reason: String,
}

impl Pool {
    /// The account of a pool from a time on; nothing is installed in it.
    pub fn since(as_of_ms: i64) -> Self {
        Self { as_of_ms, ..Self::default() }
    }

    /// The account of the same pool from a time on, as it was last.
    #[must_use]
    pub fn going_on(&self, as_of_ms: i64) -> Self {
        Self { as_of_ms, units: self.units, fraction_ppm: self.fraction_ppm, ..Self::default() }
    }

    /// Counts what was installed up to `until_ms`; a time that is not later changes nothing.
    pub fn advance(&mut self, until_ms: i64) -> Result<(), Overflow> {
        let ms = u64::try_from(until_ms.saturating_sub(self.as_of_ms)).unwrap_or(0);
        if ms > 0 {
            let installed = self.installed.get(&self.fraction_ppm).copied().unwrap_or(0);
            let installed = add(installed, self.units, ms)?;
            if installed > 0 {
                self.installed.insert(self.fraction_ppm, installed);
            }
            self.as_of_ms = until_ms;
        }
        Ok(())
    }

    /// Unit-milliseconds installed.
    pub fn installed(&self) -> u128 {
        self.installed.values().map(|unit_ms| u128::from(*unit_ms)).sum()
    }

    /// The entitlement times a million: exact, so that months can be added.
    pub fn entitled_ppm(&self) -> u128 {
        self.installed.iter().map(|(ppm, unit_ms)| u128::from(*ppm) * u128::from(*unit_ms)).sum()
    }

    /// Unit-milliseconds that are the reserve's, rounded down.
    pub fn entitlement(&self) -> UnitMs {
        UnitMs::try_from(self.entitled_ppm() / PPM).unwrap_or(UnitMs::MAX)
    }
}

fn add(to: UnitMs, units: Units, ms: u64) -> Result<UnitMs, Overflow> {
    units.checked_mul(ms).and_then(|unit_ms| to.checked_add(unit_ms)).ok_or(Overflow)
}

impl Report {
    /// An open report with nothing in it.
    pub fn open(subject: Subject, month: Month) -> Self {
        Self {
            version: encode::VERSION,
            subject,
            month,
            sealed_ms: None,
            lines: BTreeMap::new(),
            settled: BTreeSet::new(),
            carried: BTreeSet::new(),
            ended_by_rule: 0,
            price: None,
            pool: None,
            summary: Summary::default(),
            previous: String::new(),
            hash: String::new(),
        }
        .stamped()
    }

    /// The name of its object: `research-2026-11`, `reserve-national-2026-11`.
    pub fn name(&self) -> String {
        match self.subject.kind {
            SubjectKind::Tenant => format!("{}-{}", self.subject.name, self.month),
            SubjectKind::Reserve => format!("reserve-{}-{}", self.subject.name, self.month),
        }
    }

    /// Its place in the chain: by month, then tenants before reserves, then by name.
    pub fn place(&self) -> (Month, &Subject) {
        (self.month, &self.subject)
    }

    /// Whether it is sealed.
    pub fn sealed(&self) -> bool {
        self.sealed_ms.is_some()
    }

    /// With the summary and the hash of what is in it now.
    #[must_use]
    pub fn stamped(mut self) -> Self {
        self.summary = self.summarised();
        self.hash = super::chain::hash(&self);
        self
    }

    /// What the summary must say.
    pub fn summarised(&self) -> Summary {
        let all: i128 = self.lines.values().map(|amount| i128::from(amount.net())).sum();
        let sovereign = self.lines.iter().filter(|(key, _)| key.basis != Basis::Ordinary);
        let sovereign: i128 = sovereign.map(|(_, amount)| i128::from(amount.net())).sum();
        let cost = self
            .price
            .as_ref()
            .map(|price| format!("{} {}", money(super::price::total(price, &self.lines), 2), price.currency));
        Summary {
            gpu_hours: gpu_hours(all),
            sovereign_gpu_hours: gpu_hours(sovereign),
            cost: cost.unwrap_or_default(),
        }
    }
}

/// Unit-milliseconds as GPU-hours with one digit, rounded to the nearest; with four where it is less than a tenth.
pub fn gpu_hours(unit_ms: i128) -> String {
    let rounded = |parts: i128| (unit_ms.abs() * parts + i128::from(GPU_HOUR) / 2) / i128::from(GPU_HOUR);
    let small = unit_ms.abs() * 10 < i128::from(GPU_HOUR) && rounded(10_000) > 0;
    let (parts, digits) = if small { (10_000, 4) } else { (10, 1) };
    let all = rounded(parts);
    let sign = if unit_ms < 0 && all > 0 { "-" } else { "" };
    format!("{sign}{}.{:0digits$}", all / parts, all % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_amounts_are_told_with_more_digits() {
        let hour = i128::from(GPU_HOUR);
        let told =
            [0, hour / 30_000, hour / 10_000, hour / 300, hour / 10, hour * 5 / 4, -hour / 300, -hour * 3]
                .map(gpu_hours);
        assert_eq!(told, ["0.0", "0.0", "0.0001", "0.0033", "0.1", "1.3", "-0.0033", "-3.0"]);
    }
}
