//! Reports as a chain: each sealed one holds the hash of the one before it, by
//! month, then tenants before reserves, then by name. Whoever has the reports
//! can verify them without trusting who keeps them; that the last ones were not
//! all rewritten, or cut off, only a head that was published before can show.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

use super::encode;
use super::entry::{Basis, LineKey};
use super::report::{Amount, Report, Subject, SubjectKind};
use crate::model::Class;

/// The hash of a report as it is: SHA-256 of its canonical bytes, in hexadecimal digits.
pub fn hash(report: &Report) -> String {
    let digest = Sha256::digest(encode::canonical(report));
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Something in a report is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The name of the report.
    pub report: String,
    /// The field, as it is written in the report.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.report, self.field, self.why)
    }
}

/// Reports in which nothing is wrong.
#[derive(Clone, Debug)]
pub struct Verified<'a> {
    sealed: Vec<&'a Report>,
    open: Vec<&'a Report>,
}

impl<'a> Verified<'a> {
    /// The chain, in order.
    pub fn sealed(&self) -> &[&'a Report] {
        &self.sealed
    }

    /// Reports that are still added to.
    pub fn open(&self) -> &[&'a Report] {
        &self.open
    }

    /// The last report of the chain; its hash stands for all of them.
    pub fn head(&self) -> Option<&'a Report> {
        self.sealed.last().copied()
    }

    /// The hash that the chain goes on from; empty if it is there from its beginning.
    pub fn anchor(&self) -> &'a str {
        self.sealed.first().map_or("", |first| first.previous.as_str())
    }
}

/// Verifies reports, in any order: each by itself, the chain, and that what tenants used of a pool is what its
/// reserve reports. The error is everything that is wrong, in the order of the chain.
pub fn verify(reports: &[Report]) -> Result<Verified<'_>, Vec<Fault>> {
    let mut all: Vec<&Report> = reports.iter().collect();
    all.sort_by_key(|report| report.place());
    let mut faults = Vec::new();
    for report in &all {
        alone(report, &mut faults);
    }
    for pair in all.windows(2) {
        if pair[0].place() == pair[1].place() {
            faults.push(fault(pair[1], "subject", "there are two reports of it on this month"));
        }
    }
    let (sealed, open): (Vec<&Report>, Vec<&Report>) = all.into_iter().partition(|report| report.sealed());
    for pair in sealed.windows(2) {
        if pair[1].previous != pair[0].hash {
            let why = format!(
                "it is not the hash of {}, which is before it here: one of the two was changed, or one between \
                 them is missing",
                pair[0].name()
            );
            faults.push(fault(pair[1], "previous", why));
        }
    }
    if let Some(head) = sealed.last() {
        for report in open.iter().filter(|report| report.place() < head.place()) {
            let why = format!("it is open, while {}, which is after it, is sealed", head.name());
            faults.push(fault(report, "sealedMs", why));
        }
    }
    sums(&sealed, &mut faults);
    if faults.is_empty() { Ok(Verified { sealed, open }) } else { Err(faults) }
}

fn fault(report: &Report, field: &str, why: impl Into<String>) -> Fault {
    Fault { report: report.name(), field: field.to_owned(), why: why.into() }
}

/// What can be seen of one report without the others.
fn alone(report: &Report, faults: &mut Vec<Fault>) {
    let mut wrong = |field: &str, why: String| faults.push(fault(report, field, why));
    if report.version != encode::VERSION {
        wrong("version", format!("{} is not known, {} is", report.version, encode::VERSION));
    } else if hash(report) != report.hash {
        wrong("hash", "it is not the hash of what the report says: something in it was changed".to_owned());
    }
    let summary = report.summarised();
    for (field, said, is) in [
        ("summary.gpuHours", &report.summary.gpu_hours, &summary.gpu_hours),
        ("summary.sovereignGpuHours", &report.summary.sovereign_gpu_hours, &summary.sovereign_gpu_hours),
        ("summary.cost", &report.summary.cost, &summary.cost),
    ] {
        if said != is {
            wrong(field, format!("{said:?} is said, {is:?} follows from the lines"));
        }
    }
    let is_reserve = report.subject.kind == SubjectKind::Reserve;
    if report.subject.name.is_empty() {
        wrong("subject.name", "it is empty".to_owned());
    }
    for key in report.lines.keys() {
        let drawn = key.basis != Basis::Ordinary;
        if drawn && (key.reserve.is_none() || key.class == Class::Standard) {
            wrong("lines", format!("{} has no reserve, or a class that draws on none", described(key)));
        }
        if is_reserve && key.reserve.as_ref() != Some(&report.subject.name) {
            wrong("lines", format!("{} is not of this reserve", described(key)));
        }
    }
    if let Some(claim) = report.settled.intersection(&report.carried).next() {
        wrong("carried", format!("claim {claim} cannot be settled and carried"));
    }
    if let Some(sealed_ms) = report.sealed_ms {
        if sealed_ms < report.month.end_ms() {
            wrong("sealedMs", format!("{sealed_ms} is before the month ends"));
        }
    } else if !report.carried.is_empty() || !report.previous.is_empty() {
        let field = if report.carried.is_empty() { "previous" } else { "carried" };
        wrong(field, "only a sealed report can have it".to_owned());
    }
    if let Some(price) = &report.price
        && let Some(from) = price.derivation
        && from.per_gpu_hour() != price.per_gpu_hour
    {
        let (said, is) = (price.per_gpu_hour, from.per_gpu_hour());
        wrong("price.perGPUHourMicros", format!("{said} is said, {is} follows from the derivation"));
    }
    if is_reserve != report.pool.is_some() {
        wrong("pool", "a report has it if it is of a reserve, and else not".to_owned());
    }
    if is_reserve && (report.price.is_some() || !report.carried.is_empty() || !report.settled.is_empty()) {
        wrong("subject.kind", "a reserve has no price and no claims".to_owned());
    }
    pool(report, &mut wrong);
}

fn pool(report: &Report, wrong: &mut impl FnMut(&str, String)) {
    let Some(pool) = &report.pool else { return };
    let month = report.month;
    if report.sealed() && pool.as_of_ms != month.end_ms() {
        let (said, end) = (pool.as_of_ms, month.end_ms());
        wrong("pool.asOfMs", format!("{said} is said, the month ends at {end}"));
    }
    let length_ms = month.end_ms().abs_diff(month.start_ms());
    if pool.held_ms.saturating_add(pool.not_held_ms) > length_ms {
        wrong("pool.heldMs", "with notHeldMs it is longer than the month".to_owned());
    }
    if pool.claims.late > pool.claims.made {
        wrong("pool.claims.late", "there are more than were made".to_owned());
    }
    if pool.installed.keys().any(|ppm| *ppm > 1_000_000) {
        wrong("pool.installed", "a fraction is more than all".to_owned());
    }
    if pool.crises.iter().any(|crisis| crisis.until_ms <= crisis.from_ms || crisis.reason.is_empty()) {
        wrong("pool.crises", "one has no reason, or ends before it begins".to_owned());
    }
}

/// Whether the tenants' lines of each month are, added up, what the reserves report.
fn sums(sealed: &[&Report], faults: &mut Vec<Fault>) {
    for month in sealed.chunk_by(|a, b| a.month == b.month) {
        let is_tenant = |report: &&&Report| report.subject.kind == SubjectKind::Tenant;
        let tenants: Vec<&Report> = month.iter().filter(is_tenant).copied().collect();
        let mut used: BTreeMap<&str, BTreeMap<&LineKey, (u128, u128)>> = BTreeMap::new();
        for report in &tenants {
            for (key, amount) in &report.lines {
                let Some(reserve) = &key.reserve else { continue };
                let sum = used.entry(reserve).or_default().entry(key).or_default();
                sum.0 += u128::from(amount.used);
                sum.1 += u128::from(amount.credited);
            }
        }
        for report in month.iter().filter(|report| report.subject.kind == SubjectKind::Reserve) {
            let mut used = used.remove(report.subject.name.as_str()).unwrap_or_default();
            for (key, amount) in &report.lines {
                let said = (u128::from(amount.used), u128::from(amount.credited));
                let is = used.remove(key).unwrap_or_default();
                if said != is {
                    faults.push(fault(report, "lines", differs(key, said, is)));
                }
            }
            for (key, is) in used {
                faults.push(fault(report, "lines", differs(key, (0, 0), is)));
            }
        }
        for (reserve, _) in used {
            let names = tenants
                .iter()
                .filter(|report| report.lines.keys().any(|key| key.reserve.as_deref() == Some(reserve)));
            for report in names {
                let why = format!("there is no report of reserve {reserve} on this month, which they are of");
                faults.push(fault(report, "lines", why));
            }
        }
    }
}

fn differs(key: &LineKey, said: (u128, u128), is: (u128, u128)) -> String {
    let words = |(used, credited): (u128, u128)| match credited {
        0 => format!("{used} unit-ms"),
        _ => format!("{used} unit-ms less {credited}"),
    };
    format!("{}: {} is said, the tenants' reports come to {}", described(key), words(said), words(is))
}

fn described(key: &LineKey) -> String {
    format!("{} {} of class {}", key.basis.word(), key.profile, encode::class_word(key.class))
}

/// The lines of a reserve's report: what all tenants' reports say of it, added up.
pub(super) fn summed<'a>(
    tenants: impl IntoIterator<Item = &'a Report>,
    reserve: &Subject,
) -> Result<BTreeMap<LineKey, Amount>, super::entry::Overflow> {
    let mut lines: BTreeMap<LineKey, Amount> = BTreeMap::new();
    for report in tenants {
        for (key, amount) in
            report.lines.iter().filter(|(key, _)| key.reserve.as_ref() == Some(&reserve.name))
        {
            let line = lines.entry(key.clone()).or_default();
            *line = line.plus(*amount)?;
        }
    }
    Ok(lines)
}
