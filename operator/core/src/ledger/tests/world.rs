//! A store with versions and claims with finalizers, as an API server keeps
//! them, and a process that writes what the ledger says and may stop anywhere.

use std::collections::BTreeMap;

use crate::ledger::{
    Basis, Books, Derivation, Entry, Facts, LineKey, Month, PoolCounts, PoolNow, PricePlan, Report, Subject,
    split,
};
use crate::model::Class;
use crate::simulate::random::Random;

pub const HOUR_MS: i64 = 3_600_000;
pub const DAY_MS: i64 = 24 * HOUR_MS;
pub const SEAL_AFTER_MS: i64 = 6 * HOUR_MS;

/// Net unit-milliseconds by tenant and line.
pub type Totals = BTreeMap<(String, LineKey), i128>;

/// What is stored, and what really happened.
#[derive(Default)]
pub struct Api {
    pub reports: BTreeMap<(Month, Subject), (u64, Report)>,
    /// Claims that have the finalizer, with what is known of them.
    pub claims: BTreeMap<String, Entry>,
    /// All claims there ever were, with their true ends.
    pub truth: BTreeMap<String, Entry>,
    /// What happened to claims, in order, for those who watch: the claim as it is, or gone.
    pub events: Vec<(String, Option<Entry>)>,
    pub writes: u64,
}

impl Api {
    pub fn begin(&mut self, entry: Entry) {
        self.truth.insert(entry.claim.clone(), entry.clone());
        self.put(entry);
    }

    pub fn put(&mut self, entry: Entry) {
        self.events.push((entry.claim.clone(), Some(entry.clone())));
        self.claims.insert(entry.claim.clone(), entry);
    }

    pub fn release(&mut self, claim: &str) {
        if self.claims.remove(claim).is_some() {
            self.events.push((claim.to_owned(), None));
        }
    }

    /// Writes over `version`, 0 where there must be none; false if there is another.
    fn write(&mut self, report: &Report, version: u64) -> bool {
        let key = (report.month, report.subject.clone());
        let stored = self.reports.get(&key);
        if stored.map_or(0, |(version, _)| *version) != version {
            return false;
        }
        assert!(stored.is_none_or(|(_, stored)| !stored.sealed()), "{} was sealed", report.name());
        self.writes += 1;
        self.reports.insert(key, (version + 1, report.clone()));
        true
    }

    pub fn stored(&self) -> Vec<Report> {
        self.reports.values().map(|(_, report)| report.clone()).collect()
    }

    /// What was billed.
    pub fn billed(&self) -> Totals {
        let mut totals = Totals::new();
        for (_, report) in self.reports.values().filter(|(_, report)| report.pool.is_none()) {
            for (key, amount) in &report.lines {
                *totals.entry((report.subject.name.clone(), key.clone())).or_default() +=
                    i128::from(amount.net());
            }
        }
        totals.retain(|_, net| *net != 0);
        totals
    }

    /// What was allocated, by the plainest reckoning there is.
    pub fn allocated(&self) -> Totals {
        let mut totals = Totals::new();
        for (tenant, key, from_ms, until_ms, units) in self.truth.values().flat_map(stretches) {
            *totals.entry((tenant, key)).or_default() += i128::from(units) * i128::from(until_ms - from_ms);
        }
        totals.retain(|_, net| *net != 0);
        totals
    }

    /// The same by month.
    pub fn allocated_by_month(&self) -> BTreeMap<(Month, String, LineKey), i128> {
        let mut totals = BTreeMap::new();
        for (tenant, key, from_ms, until_ms, units) in self.truth.values().flat_map(stretches) {
            for (month, from_ms, until_ms) in split(from_ms, until_ms) {
                let ms = i128::from(until_ms - from_ms);
                *totals.entry((month, tenant.clone(), key.clone())).or_default() += i128::from(units) * ms;
            }
        }
        totals
    }
}

/// The parts of what a claim held: tenant, line, from, until, units.
fn stretches(entry: &Entry) -> Vec<(String, LineKey, i64, i64, u64)> {
    let end_ms = entry.end_ms.expect("it ended").max(entry.start_ms);
    let turn_ms = entry.ordinary_from_ms.unwrap_or(end_ms).clamp(entry.start_ms, end_ms);
    let part = |basis, from_ms, until_ms| {
        let (profile, reserve) = (entry.profile.clone(), entry.reserve.clone());
        let key = LineKey { profile, class: entry.class, basis, reserve };
        (entry.tenant.clone(), key, from_ms, until_ms, entry.units)
    };
    vec![part(entry.basis, entry.start_ms, turn_ms), part(Basis::Ordinary, turn_ms, end_ms)]
}

/// A process that keeps the books.
pub struct Keeper {
    books: Books,
    versions: BTreeMap<(Month, Subject), u64>,
    /// The claims as it has seen them, up to this event.
    seen: BTreeMap<String, Entry>,
    upto: usize,
}

/// How a turn went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There was nothing to do.
    Idle,
    /// Something was done.
    Worked,
    /// It stopped somewhere in between, or another had written.
    Stopped,
}

impl Keeper {
    /// Begins: reads the reports, then the claims as they are.
    pub fn new(api: &Api) -> Self {
        Self {
            books: Books::new(api.stored()),
            versions: api.reports.iter().map(|(key, (version, _))| (key.clone(), *version)).collect(),
            seen: api.claims.clone(),
            upto: api.events.len(),
        }
    }

    /// Sees some of what has happened since.
    pub fn watch(&mut self, api: &Api, most: usize) {
        for (claim, entry) in api.events[self.upto..].iter().take(most) {
            match entry {
                Some(entry) => self.seen.insert(claim.clone(), entry.clone()),
                None => self.seen.remove(claim),
            };
            self.upto += 1;
        }
    }

    /// Does what is to be done next. `stops` is asked before and after every write.
    pub fn turn(
        &mut self,
        api: &mut Api,
        now_ms: i64,
        pools: BTreeMap<String, PoolNow>,
        mut stops: impl FnMut() -> bool,
    ) -> Turn {
        let entries: Vec<Entry> = self.seen.values().cloned().collect();
        let prices = entries.iter().map(|entry| (entry.tenant.clone(), price())).collect();
        let facts = Facts {
            entries: &entries,
            prices,
            pools,
            pools_every_ms: HOUR_MS,
            now_ms,
            seal_after_ms: SEAL_AFTER_MS,
        };
        let actions = self.books.next(&facts).unwrap();
        if actions.writes.is_empty() && actions.release.is_empty() {
            return Turn::Idle;
        }
        for report in actions.writes {
            let version = self.versions.entry((report.month, report.subject.clone())).or_default();
            // Whether the answer is lost after a write, or nothing was written, looks the same from here.
            if stops() || !api.write(&report, *version) || stops() {
                return Turn::Stopped;
            }
            *version += 1;
            self.books.wrote(report);
        }
        for claim in actions.release {
            if stops() {
                return Turn::Stopped;
            }
            api.release(&claim);
        }
        Turn::Worked
    }
}

/// What every tenant pays.
pub fn price() -> PricePlan {
    Derivation::default().plan("EUR")
}

/// A claim that begins, of one of some tenants.
pub fn claim(random: &mut Random, number: usize, now_ms: i64) -> Entry {
    let who = random.below(4);
    let (tenant, class) = [
        ("defence", Class::Security),
        ("mill", Class::Sme),
        ("research", Class::Standard),
        ("state", Class::Sovereign),
    ][who];
    let (profile, units) =
        [("gpu", 56), ("gpu", 448), ("3g.40gb", 28), ("1g.10gb", 8), ("2g.20gb", 16)][random.below(5)];
    let reserve = [None, Some("east"), Some("west")][random.below(3)];
    let right = [Basis::Ordinary, Basis::Claimed, Basis::Ordered][random.below(3)];
    let basis = if class == Class::Standard || reserve.is_none() { Basis::Ordinary } else { right };
    let some_ms = |random: &mut Random, most_ms: i64| below(random, most_ms);
    let turns = basis != Basis::Ordinary && random.below(3) == 0;
    Entry {
        claim: format!("uid-{number:04}"),
        tenant: tenant.into(),
        class,
        reserve: reserve.map(Into::into),
        profile: profile.into(),
        units,
        basis,
        ordinary_from_ms: turns.then(|| now_ms + some_ms(random, 50 * DAY_MS)),
        start_ms: now_ms,
        end_ms: None,
        by_rule: false,
    }
}

/// A whole number below `most`.
pub fn below(random: &mut Random, most: i64) -> i64 {
    i64::try_from(random.below(usize::try_from(most.max(1)).unwrap())).unwrap()
}

/// The pools as they may be.
pub fn pools(random: &mut Random) -> BTreeMap<String, PoolNow> {
    let mut pools = BTreeMap::new();
    for name in ["east", "west"] {
        if random.below(3) > 0 {
            let counts = PoolCounts { held_ms: 60_000, evictions: 1, lost: 1000, ..PoolCounts::default() };
            let units = 56 * (8 + random.below(3) as u64);
            let now = PoolNow { units, fraction_ppm: 50_000, crisis: None, counts };
            pools.insert(name.to_owned(), now);
        }
    }
    pools
}
