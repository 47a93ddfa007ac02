//! What to write next, so that every claim is counted exactly once, however
//! often whoever writes stops between two writes. Who writes is not here.
//!
//! A claim that was decided keeps a finalizer until it is counted. When its end
//! is known, (1) its use is added to its tenant's open report and its UID to
//! the list of what is settled, in one write; (2) the finalizer comes off; (3)
//! when the claim is seen no more, its UID is forgotten. After each of these a
//! new start finds what was done and does the rest.
//!
//! A while after a month has ended it is sealed, report by report in the order
//! of the chain: what goes on is counted up to the month's end, and listed as
//! carried; the next month counts it from there. What was not known when a
//! month was sealed is counted in the month that is open when it is: a claim
//! that was not seen before, wholly; an end before the month's, as a credit.
//!
//! What it relies on. A report is written only over the version that it was
//! made from. Whoever begins to write reads the reports first, and then the
//! claims as they are (not from a cache); from then on it knows the reports by
//! what it writes itself, and may see the claims late, but in the order in which
//! they changed. If it finds that another has written a report, it begins anew.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::summed;
use super::entry::{Entry, Overflow};
use super::month::Month;
use super::price::PricePlan;
use super::report::{ClaimCount, CrisisRecord, OrderCount, Pool, Report, Subject, SubjectKind};
use crate::model::{UnitMs, Units};

/// Months of a pool that are caught up with at a time.
const MONTHS_AT_ONCE: usize = 24;

/// The reports that are stored, as last read. Of the sealed ones, those of the last month that has any and the last
/// one of each tenant and reserve are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    reports: BTreeMap<Subject, BTreeMap<Month, Report>>,
}

/// What there is, as last seen.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// All claims that have the ledger's finalizer, each once.
    pub entries: &'a [Entry],
    /// What each tenant pays.
    pub prices: BTreeMap<String, PricePlan>,
    /// The pools of all reserves there are. A report is written when something in a pool has changed or there was a claim,
    /// an order or an eviction, and else after [`Self::pools_every_ms`].
    pub pools: BTreeMap<String, PoolNow>,
    /// How often the account of a pool is written at least.
    pub pools_every_ms: i64,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
    /// How long after its end a month is sealed, so that the ends of claims are known by then.
    pub seal_after_ms: i64,
}

/// What is in a reserve's pool from now on, and what was counted of it since it was last written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolNow {
    /// Units installed.
    pub units: Units,
    /// The fraction in force, in millionths.
    pub fraction_ppm: u32,
    /// The crisis in force.
    pub crisis: Option<CrisisRecord>,
    /// What happened since a report of the pool was last among the writes.
    pub counts: PoolCounts,
}

/// What happened in a pool since its report was last written: how the promise was kept, and what it cost the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Unit-milliseconds that were out for announced maintenance.
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
}

impl PoolCounts {
    /// Whether there was nothing in it but time that passed.
    fn is_quiet(&self) -> bool {
        (self.claims, self.orders, self.evictions) == (ClaimCount::default(), OrderCount::default(), 0)
    }

    /// Adds it; what is counted as held or not is never longer than the month's part that has passed.
    fn add_to(&self, pool: &mut Pool, month: Month) {
        let passed_ms = u64::try_from(pool.as_of_ms.saturating_sub(month.start_ms())).unwrap_or(0);
        let left_ms = passed_ms.saturating_sub(pool.held_ms).saturating_sub(pool.not_held_ms);
        let not_held_ms = self.not_held_ms.min(left_ms);
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        add(&mut pool.maintenance, self.maintenance);
        add(&mut pool.held_ms, self.held_ms.min(left_ms - not_held_ms));
        add(&mut pool.not_held_ms, not_held_ms);
        add(&mut pool.claims.made, self.claims.made);
        add(&mut pool.claims.late, self.claims.late);
        pool.claims.slowest_ms = pool.claims.slowest_ms.max(self.claims.slowest_ms);
        add(&mut pool.orders.accepted, self.orders.accepted);
        add(&mut pool.orders.countered, self.orders.countered);
        add(&mut pool.orders.refused, self.orders.refused);
        add(&mut pool.orders.late, self.orders.late);
        add(&mut pool.evictions, self.evictions);
        add(&mut pool.lost, self.lost);
    }
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Reports to write, in this order; after one that cannot be written, none of the rest.
    pub writes: Vec<Report>,
    /// Claims that are counted in what is stored: their finalizer comes off.
    pub release: BTreeSet<String>,
}

impl Books {
    /// These reports.
    pub fn new(reports: impl IntoIterator<Item = Report>) -> Self {
        let mut books = Self::default();
        reports.into_iter().for_each(|report| books.wrote(report));
        books
    }

    /// A report was written.
    pub fn wrote(&mut self, report: Report) {
        self.reports.entry(report.subject.clone()).or_default().insert(report.month, report);
    }

    /// The reports, by whom they are about.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.reports.values().flat_map(BTreeMap::values)
    }

    /// What to do next; nothing, if everything is done. The same again until it is done.
    pub fn next(&self, facts: &Facts<'_>) -> Result<Actions, Overflow> {
        let mut tenants: BTreeMap<Subject, Vec<&Entry>> = BTreeMap::new();
        for entry in facts.entries {
            tenants.entry(Subject::tenant(&entry.tenant)).or_default().push(entry);
        }
        // Who has nothing any more may still have UIDs to forget.
        for subject in self.reports.keys().filter(|subject| subject.kind == SubjectKind::Tenant) {
            tenants.entry(subject.clone()).or_default();
        }
        let mut release = BTreeSet::new();
        for (subject, entries) in &tenants {
            let lists = self.open(subject).into_iter().chain(self.last_sealed(subject, None));
            let settled: Vec<&BTreeSet<String>> = lists.map(|report| &report.settled).collect();
            let counted =
                entries.iter().filter(|entry| settled.iter().any(|list| list.contains(&entry.claim)));
            release.extend(counted.map(|entry| entry.claim.clone()));
        }
        let mut draft = Draft { books: self, head: self.head(), changed: BTreeMap::new() };
        for (name, pool) in &facts.pools {
            draft.pool(&Subject::reserve(name), pool, facts)?;
        }
        if let Some(month) = self.open_month(&tenants) {
            draft.settle(month, &tenants, &facts.prices)?;
            let began =
                draft.changed.keys().any(|(of, subject)| *of == month && self.get(*of, subject).is_none());
            // Whatever is to be in the month must be stored before the first of it is sealed.
            if facts.now_ms >= month.end_ms().saturating_add(facts.seal_after_ms.max(0)) && !began {
                draft.seal(month, &tenants, facts.now_ms)?;
            }
        }
        Ok(Actions { writes: draft.writes(), release })
    }

    fn get(&self, month: Month, subject: &Subject) -> Option<&Report> {
        self.reports.get(subject)?.get(&month)
    }

    /// The first open report of it.
    fn open(&self, subject: &Subject) -> Option<&Report> {
        self.reports.get(subject)?.values().find(|report| !report.sealed())
    }

    /// The last sealed report of it, if a month is given only of those before.
    fn last_sealed(&self, subject: &Subject, before: Option<Month>) -> Option<&Report> {
        let mut reports = self.reports.get(subject)?.values().rev();
        reports.find(|report| report.sealed() && before.is_none_or(|month| report.month < month))
    }

    /// The end of the chain.
    fn head(&self) -> Option<&Report> {
        let sealed = self.reports.keys().filter_map(|subject| self.last_sealed(subject, None));
        sealed.max_by_key(|report| report.place())
    }

    /// The month that is sealed next: the one that the chain is in, if not all of it is sealed; else the first after
    /// it in which there is something.
    fn open_month(&self, tenants: &BTreeMap<Subject, Vec<&Entry>>) -> Option<Month> {
        let open =
            self.reports.keys().filter_map(|subject| self.open(subject)).map(|report| report.month).min();
        let without = tenants.iter().filter(|(subject, _)| self.open(subject).is_none());
        let to_count = without.flat_map(|(subject, entries)| {
            let last = self.last_sealed(subject, None);
            entries.iter().filter_map(move |entry| counted_from_ms(entry, last))
        });
        let first = open.into_iter().chain(to_count.min().map(Month::of)).min()?;
        Some(match self.head() {
            Some(head) if open == Some(head.month) => head.month,
            Some(head) => head.month.next().max(first),
            None => first,
        })
    }
}

/// From when on a claim is still to be counted; none if it is counted wholly.
fn counted_from_ms(entry: &Entry, last: Option<&Report>) -> Option<i64> {
    match last {
        Some(last) if last.settled.contains(&entry.claim) => None,
        Some(last) if last.carried.contains(&entry.claim) => Some(last.month.end_ms()),
        _ => Some(entry.start_ms),
    }
}

/// Counts in a tenant's report the claims that have ended, and, if the month is at its end, those that go on.
fn count(
    report: &mut Report,
    last: Option<&Report>,
    entries: &[&Entry],
    at_end: bool,
) -> Result<(), Overflow> {
    let end_ms = report.month.end_ms();
    let there: BTreeSet<&str> = entries.iter().map(|entry| entry.claim.as_str()).collect();
    report.settled.retain(|claim| there.contains(claim.as_str()));
    for entry in entries {
        if report.settled.contains(&entry.claim) {
            continue;
        }
        let Some(from_ms) = counted_from_ms(entry, last) else {
            // It is still there, so that it must not be forgotten with the month.
            if at_end {
                report.settled.insert(entry.claim.clone());
            }
            continue;
        };
        match entry.end_ms() {
            Some(ended_ms) if ended_ms <= end_ms => {
                entry.count(&mut report.lines, from_ms, ended_ms)?;
                report.settled.insert(entry.claim.clone());
                report.ended_by_rule += u64::from(entry.by_rule);
            }
            _ if at_end && entry.start_ms < end_ms && report.carried.insert(entry.claim.clone()) => {
                entry.count(&mut report.lines, from_ms, end_ms)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is stored, with what is to be written.
struct Draft<'a> {
    books: &'a Books,
    head: Option<&'a Report>,
    changed: BTreeMap<(Month, Subject), Report>,
}

impl Draft<'_> {
    fn get(&self, month: Month, subject: &Subject) -> Option<&Report> {
        self.changed.get(&(month, subject.clone())).or_else(|| self.books.get(month, subject))
    }

    fn put(&mut self, report: Report) {
        let report = report.stamped();
        if self.get(report.month, &report.subject) != Some(&report) {
            self.changed.insert((report.month, report.subject.clone()), report);
        }
    }

    /// The month that something is counted in for `subject`, while `month` is the one that is open.
    fn month_of(&self, subject: &Subject, month: Month) -> Month {
        match self.head {
            // The chain has passed it.
            Some(head) if (month, subject) <= head.place() => head.month.next(),
            _ => month,
        }
    }

    /// In the order of the chain: who is sealed has its predecessor stored by then.
    fn writes(self) -> Vec<Report> {
        self.changed.into_values().collect()
    }

    /// Brings the account of a pool up to now, if it is time.
    fn pool(&mut self, subject: &Subject, now: &PoolNow, facts: &Facts<'_>) -> Result<(), Overflow> {
        let now_ms = facts.now_ms;
        let this_month = Month::of(now_ms);
        let begin = |month: Month, pool: &Pool, at_ms: i64| {
            let month = self.month_of(subject, month);
            opened(subject, month, pool.going_on(at_ms.max(month.start_ms())))
        };
        let last = self.books.reports.get(subject).and_then(|reports| reports.values().next_back());
        let mut report = match last {
            Some(last) if last.sealed() => {
                begin(last.month.next(), last.pool.as_ref().unwrap_or(&Pool::default()), 0)
            }
            Some(last) => last.clone(),
            None => begin(this_month, &Pool::default(), now_ms),
        };
        for _ in 0..MONTHS_AT_ONCE {
            if report.month >= this_month {
                break;
            }
            let Some(pool) = report.pool.as_mut() else { return Ok(()) };
            pool.advance(report.month.end_ms())?;
            let next = opened(subject, report.month.next(), pool.going_on(report.month.end_ms()));
            self.put(report);
            report = next;
        }
        let is_new = self.get(report.month, subject).is_none();
        let Some(pool) = report.pool.as_mut().filter(|_| report.month <= this_month) else {
            // The clock went back behind what is written.
            return Ok(());
        };
        let known = now.crisis.as_ref().is_none_or(|crisis| pool.crises.contains(crisis));
        let same = (pool.units, pool.fraction_ppm) == (now.units, now.fraction_ppm) && known;
        if same
            && now.counts.is_quiet()
            && !is_new
            && now_ms < pool.as_of_ms.saturating_add(facts.pools_every_ms)
        {
            return Ok(());
        }
        pool.advance(now_ms.min(report.month.end_ms()))?;
        if report.month == this_month {
            (pool.units, pool.fraction_ppm) = (now.units, now.fraction_ppm);
            now.counts.add_to(pool, this_month);
            if let Some(crisis) = &now.crisis {
                pool.crises.retain(|other| other.from_ms != crisis.from_ms);
                pool.crises.push(crisis.clone());
            }
        }
        self.put(report);
        Ok(())
    }

    /// Counts what has ended, and begins the reports that will be needed.
    fn settle(
        &mut self,
        month: Month,
        tenants: &BTreeMap<Subject, Vec<&Entry>>,
        prices: &BTreeMap<String, PricePlan>,
    ) -> Result<(), Overflow> {
        for (subject, entries) in tenants {
            // Who has an open report goes on with it, even if an earlier month turns out to be open still.
            let month = match self.books.open(subject) {
                Some(open) => open.month,
                None => self.month_of(subject, month),
            };
            let last = self.books.last_sealed(subject, Some(month));
            let begun =
                |entry: &&&Entry| entry.start_ms < month.end_ms() && counted_from_ms(entry, last).is_some();
            let mut report = match self.books.get(month, subject) {
                Some(report) => report.clone(),
                None if entries.iter().any(|entry| begun(&entry)) => Report::open(subject.clone(), month),
                None => continue,
            };
            for name in entries.iter().filter(begun).filter_map(|entry| entry.reserve.as_ref()) {
                self.begin_reserve(&Subject::reserve(name), month);
            }
            if let Some(price) = prices.get(&subject.name) {
                report.price = Some(price.clone());
            }
            count(&mut report, last, entries, false)?;
            self.put(report);
        }
        Ok(())
    }

    /// Lines of a reserve need its report, even if nothing else is known of it.
    fn begin_reserve(&mut self, subject: &Subject, month: Month) {
        if self.get(month, subject).is_none() {
            let before = month.previous().and_then(|month| self.get(month, subject)?.pool.as_ref());
            let pool =
                before.map_or_else(|| Pool::since(month.start_ms()), |pool| pool.going_on(month.start_ms()));
            self.put(opened(subject, month, pool));
        }
    }

    /// Seals all of a month that is open still.
    fn seal(
        &mut self,
        month: Month,
        tenants: &BTreeMap<Subject, Vec<&Entry>>,
        now_ms: i64,
    ) -> Result<(), Overflow> {
        let mut previous = self.head.map(|head| head.hash.clone()).unwrap_or_default();
        let all: Vec<Subject> = self.books.reports.keys().cloned().collect();
        for subject in &all {
            let Some(mut report) = self.get(month, subject).filter(|report| !report.sealed()).cloned() else {
                continue;
            };
            match subject.kind {
                SubjectKind::Tenant => {
                    let entries = tenants.get(subject).map_or(&[][..], Vec::as_slice);
                    count(&mut report, self.books.last_sealed(subject, Some(month)), entries, true)?;
                }
                SubjectKind::Reserve => {
                    if let Some(pool) = report.pool.as_mut() {
                        pool.advance(month.end_ms())?;
                    }
                    let of_tenants = all.iter().filter(|other| other.kind == SubjectKind::Tenant);
                    let of_tenants = of_tenants.filter_map(|other| self.get(month, other));
                    report.lines = summed(of_tenants, subject)?;
                }
            }
            report.sealed_ms = Some(now_ms);
            report.previous.clone_from(&previous);
            let report = report.stamped();
            previous.clone_from(&report.hash);
            self.put(report);
        }
        Ok(())
    }
}

fn opened(subject: &Subject, month: Month, pool: Pool) -> Report {
    Report { pool: Some(pool), ..Report::open(subject.clone(), month) }
}
