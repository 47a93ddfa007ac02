//! `kubectl vingt attest`: whether the usage reports are as they were written,
//! from them alone, and what they say of a year.

mod input;
mod page;
mod plot;
mod text;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;
use vingt_core::ledger::{Fault, Report, Statement, Verified, verify};

pub use input::Reports;
pub use text::class_word;

use crate::api::{ConnectArgs, online};
use crate::screen::Screen;
use crate::words::{BadInput, count};

/// Faults that are listed.
const LISTED: usize = 50;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub struct AttestArgs {
    /// The year [default: that of the last report]
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i32).range(1970..=9999))]
    year: Option<i32>,
    #[command(flatten)]
    from: From,
    /// With the months that are not sealed yet: not final, and no hash stands for them
    #[arg(long, conflicts_with = "head")]
    so_far: bool,
    /// Print the hash that stands for all sealed reports, for somebody else to keep, and nothing else
    #[arg(long, conflicts_with_all = ["year", "output"])]
    head: bool,
    /// A hash that was kept: fail unless a report has it
    #[arg(long, value_name = "HASH")]
    witness: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// Where the reports are.
#[derive(Clone, Debug, clap::Args)]
pub struct From {
    /// Read the reports from what `kubectl get usagereports -o json` printed [default: the cluster]
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl From {
    /// Reads them.
    pub fn reports(&self, connect: &ConnectArgs) -> anyhow::Result<Reports> {
        match &self.file {
            Some(path) => Ok(input::read(path)?),
            None => online(connect, async |cluster| input::fetch(&cluster).await),
        }
    }
}

/// A way to print a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For reading in a terminal.
    #[default]
    Text,
    /// For programs.
    Json,
    /// One page that needs nothing else.
    Html,
}

/// Runs the command.
pub fn run(args: &AttestArgs, connect: &ConnectArgs, screen: Screen) -> anyhow::Result<()> {
    let read = args.from.reports(connect)?;
    let verified = match verified(&read) {
        Ok(verified) => verified,
        Err(faults) => {
            if args.output == Output::Json {
                let faults: Vec<_> = faults
                    .iter()
                    .map(|fault| json!({"report": fault.report, "field": fault.field, "why": fault.why}))
                    .collect();
                println!("{:#}", json!({"verified": false, "faults": faults}));
            }
            return Err(refuted(&faults));
        }
    };
    if let Some(hash) = &args.witness {
        eprintln!("{}", witnessed(&verified, hash)?);
    }
    let last =
        if args.so_far { verified.open().last().copied().or(verified.head()) } else { verified.head() };
    let Some(last) = last else {
        let but = if args.so_far { "and no report is open" } else { "--so-far tells of the open reports" };
        return Err(anyhow!("no month is sealed yet, so there is nothing to attest; {but}"));
    };
    if args.head {
        println!("{} {}", last.hash, last.name());
        return Ok(());
    }
    let year = args.year.unwrap_or(last.month.year());
    let statement = if args.so_far { verified.statement_so_far(year) } else { verified.statement(year) };
    if statement.reports == 0 {
        let what = if args.so_far { "there is no report of it" } else { "no month of it is sealed" };
        return Err(BadInput(format!("--year {year}: {what}")).into());
    }
    let notes = notes(&verified, &statement);
    match args.output {
        Output::Text => print!("{}", text::text(&statement, &notes, screen)),
        Output::Json => {
            let attested = Attested { verified: true, notes: &notes, statement: &statement };
            println!("{}", serde_json::to_string_pretty(&attested)?);
        }
        Output::Html => print!("{}", page::page(&statement, &notes)?),
    }
    Ok(())
}

/// The reports, if nothing is wrong with any.
pub fn verified(read: &Reports) -> Result<Verified<'_>, Vec<Fault>> {
    match verify(&read.reports) {
        Ok(verified) if read.faults.is_empty() => Ok(verified),
        Ok(_) => Err(read.faults.clone()),
        Err(faults) => Err(read.faults.iter().cloned().chain(faults).collect()),
    }
}

/// What is wrong, as an error.
pub fn refuted(faults: &[Fault]) -> anyhow::Error {
    let mut names: Vec<&str> = faults.iter().map(|fault| fault.report.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut text = format!("the reports do not hold: something is wrong in {}", names.join(", "));
    for fault in faults.iter().take(LISTED) {
        text.push_str("\n  ");
        text.push_str(&fault.to_string());
    }
    if faults.len() > LISTED {
        let _ = write!(text, "\n  and {} more", faults.len() - LISTED);
    }
    anyhow!(text)
}

/// What a hash that was kept stands for. The error says that it is of another chain.
fn witnessed(verified: &Verified<'_>, hash: &str) -> anyhow::Result<String> {
    let is_it = |report: &&&Report| report.hash.eq_ignore_ascii_case(hash.trim());
    let Some(report) = verified.sealed().iter().find(is_it) else {
        return Err(anyhow!(
            "no sealed report has the hash {hash}: the chain is not the one that was witnessed"
        ));
    };
    Ok(format!("witnessed: {} has this hash, and with it all that is before it", report.name()))
}

/// What a reader must know of the reports besides the statement.
fn notes(verified: &Verified<'_>, statement: &Statement) -> Vec<String> {
    let mut notes = Vec::new();
    if !verified.anchor().is_empty() {
        let first = verified.sealed().first().map(|first| first.name()).unwrap_or_default();
        notes.push(format!(
            "The chain begins with {first}; what was before it is not here, and has the hash {}.",
            verified.anchor()
        ));
    }
    let missing = (1..=12).filter(|month| !statement.months.iter().any(|of| of.number() == *month)).count();
    if statement.open > 0 {
        notes.push(format!(
            "{} of these are open: they are not final, in no chain, and without what still runs.",
            statement.open
        ));
    } else if missing > 0 {
        let is = if missing == 1 { "is" } else { "are" };
        notes.push(format!(
            "{} of {} {is} not sealed, and not in this.",
            count(missing, "month"),
            statement.year
        ));
    }
    let by_rule: u64 = statement.tenants.values().map(|tenant| tenant.ended_by_rule).sum();
    if by_rule > 0 {
        let claims = count(usize::try_from(by_rule).unwrap_or(usize::MAX), "claim");
        notes.push(format!(
            "{claims} ended by the rule for nodes that do not come back, not by what an agent recorded."
        ));
    }
    notes
}

/// What is printed for programs.
#[derive(Serialize)]
struct Attested<'a> {
    verified: bool,
    notes: &'a [String],
    statement: &'a Statement,
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use vingt_core::ledger::{
        Amount, Basis, Books, ClaimCount, CrisisRecord, Derivation, Entry, Facts, LineKey, Month, OrderCount,
        PoolCounts, PoolNow, Subject, SubjectKind,
    };
    use vingt_core::model::Class;

    use super::*;

    const DAY_MS: i64 = 86_400_000;

    /// The reports of the first quarter of 2026, and the open ones after it.
    pub fn sealed() -> Vec<Report> {
        let january: Month = "2026-01".parse().unwrap();
        let mut books = Books::default();
        let entry = |claim: &str, tenant: &str, class, basis, day: i64, days: i64| Entry {
            claim: claim.into(),
            tenant: tenant.into(),
            class,
            reserve: Some("national".into()),
            profile: "gpu".into(),
            units: 56,
            basis,
            ordinary_from_ms: None,
            start_ms: january.start_ms() + day * DAY_MS,
            end_ms: Some(january.start_ms() + (day + days) * DAY_MS),
            by_rule: claim == "c",
        };
        let all = [
            entry("a", "research", Class::Standard, Basis::Ordinary, 0, 60),
            entry("b", "defence", Class::Security, Basis::Claimed, 10, 2),
            entry("c", "mill", Class::Sme, Basis::Ordered, 35, 3),
            entry("d", "defence", Class::Security, Basis::Claimed, 40, 1),
        ];
        for day in 0..92 {
            let now_ms = january.start_ms() + day * DAY_MS;
            let counts = PoolCounts {
                held_ms: if day == 0 { 0 } else { 86_400_000 },
                claims: ClaimCount { made: u64::from(day % 40 == 10), late: 0, slowest_ms: 41_000 },
                orders: OrderCount { accepted: u64::from(day == 30), ..OrderCount::default() },
                evictions: u64::from(day % 40 == 10) * 2,
                lost: u64::from(day % 40 == 10) * 56 * 3_600_000,
                ..PoolCounts::default()
            };
            let crisis = (day == 40).then(|| CrisisRecord {
                from_ms: now_ms,
                until_ms: now_ms + 2 * DAY_MS,
                fraction_ppm: 100_000,
                reason: "flood <in> the south".into(),
            });
            let fraction_ppm = if (40..42).contains(&day) { 100_000 } else { 50_000 };
            let now = PoolNow { units: 448, fraction_ppm, crisis, counts };
            let entries: Vec<Entry> = all.iter().filter(|entry| entry.start_ms <= now_ms).cloned().collect();
            let known = entries
                .into_iter()
                .map(|entry| Entry { end_ms: entry.end_ms.filter(|end_ms| *end_ms <= now_ms), ..entry });
            let entries: Vec<Entry> = known.collect();
            let prices = ["research", "defence", "mill"].map(|name| {
                let plan = Derivation::default().plan("EUR");
                (name.to_owned(), plan)
            });
            for turn in 0..4 {
                let pools = if turn == 0 {
                    BTreeMap::from([("national".to_owned(), now.clone())])
                } else {
                    BTreeMap::new()
                };
                let facts = Facts {
                    entries: &entries,
                    prices: prices.clone().into(),
                    pools,
                    pools_every_ms: 0,
                    now_ms,
                    seal_after_ms: 0,
                };
                for report in books.next(&facts).unwrap().writes {
                    books.wrote(report);
                }
            }
        }
        books.reports().cloned().collect()
    }

    #[test]
    fn faults_are_told_with_their_reports() {
        let mut reports = sealed();
        let index = reports.iter().position(|report| report.name() == "mill-2026-02").unwrap();
        reports[index].ended_by_rule = 7;
        let read = Reports { reports, faults: Vec::new() };
        let error = refuted(&verified(&read).unwrap_err()).to_string();
        let wanted = "the reports do not hold: something is wrong in mill-2026-02\n  mill-2026-02: hash: it is not \
                      the hash of what the report says: something in it was changed";
        assert_eq!(error, wanted);
    }

    #[test]
    fn what_a_reader_must_know_is_noted() {
        let read = Reports { reports: sealed(), faults: Vec::new() };
        let whole = verified(&read).unwrap();
        let wanted = [
            "9 months of 2026 are not sealed, and not in this.",
            "1 claim ended by the rule for nodes that do not come back, not by what an agent recorded.",
        ];
        assert_eq!(notes(&whole, &whole.statement(2026)), wanted);
        let later: Vec<Report> =
            read.reports.iter().filter(|report| report.month.to_string() != "2026-01").cloned().collect();
        let later = Reports { reports: later, faults: Vec::new() };
        let part = verified(&later).unwrap();
        let first = &notes(&part, &part.statement(2026))[0];
        assert!(
            first.starts_with("The chain begins with defence-2026-02; what was before it is not here"),
            "{first}"
        );
    }

    #[test]
    fn what_is_open_is_told_when_it_is_asked_for() {
        let mut reports = sealed();
        // As it is before the first month ends: nothing is sealed, and the reserve's report has no lines.
        reports.retain(|report| !report.sealed());
        let month = reports[0].month;
        let key = LineKey {
            class: Class::Security,
            basis: Basis::Claimed,
            profile: "gpu".into(),
            reserve: Some("national".into()),
        };
        let subject = Subject { kind: SubjectKind::Tenant, name: "defence".into() };
        let lines = [(key, Amount { used: 56 * 7_200_000, credited: 0 })].into();
        let report = Report { subject, lines, pool: None, ..reports[0].clone() };
        reports.push(report.stamped());
        let read = Reports { reports, faults: Vec::new() };
        let verified = verified(&read).unwrap();
        let (final_ones, so_far) = (verified.statement(2026), verified.statement_so_far(2026));
        assert_eq!((final_ones.reports, final_ones.open), (0, 0));
        assert_eq!((so_far.reports, so_far.open), (read.reports.len(), read.reports.len()));
        let reserve = &so_far.reserves["national"];
        assert_eq!((reserve.total.claimed, so_far.tenants["defence"].sovereign), (403_200_000, 403_200_000));
        assert_eq!(reserve.months[&month].claimed, 403_200_000);
        let note = format!(
            "{} of these are open: they are not final, in no chain, and without what still runs.",
            so_far.open
        );
        assert_eq!(notes(&verified, &so_far), [note]);
        let text = text::text(&so_far, &[], Screen { width: 80, colours: false, terminal: false });
        assert!(!text.contains("head"), "{text}");
    }

    #[test]
    fn a_witness_has_the_hash_of_one_of_them() {
        let read = Reports { reports: sealed(), faults: Vec::new() };
        let verified = verified(&read).unwrap();
        let head = verified.head().unwrap().hash.clone();
        assert!(witnessed(&verified, &format!("{}\n", head.to_uppercase())).is_ok());
        assert!(witnessed(&verified, &head[1..]).is_err());
    }
}
