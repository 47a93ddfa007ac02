//! Keeps the ledger: what has ended is counted in a report, then its claim is
//! let go. What is counted where, and what is written next, is the core's
//! ([`vingt_core::ledger::Books`]); a crash between any two writes counts
//! nothing twice and forgets nothing.

mod claims;
mod reserves;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::resource::v1::ResourceClaim;
use tokio::time::Instant;
use vingt_core::ledger::{Actions, Books, Entry, Facts, Report};
use vingt_crds::UsageReport;

use super::api::{Failure, Target, Writer};
use super::{Engine, Written};
use crate::ledger::ends::{End, Ends};
use crate::ledger::{objects, prices, uses};
use crate::tenants::Tenancy;
use crate::world::{Claim, Key, StoredReport, World};
pub(super) use claims::Cost;
use reserves::Reserves;

/// What is written of the ledger is one thing: nothing else is written of it meanwhile.
const LEDGER: &str = "Ledger/books";
/// How often the books are looked at: while claims wait for it, and else.
const SOON: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(5);
/// How long after its end a month is sealed: ends that are told later become credits.
const SEAL_AFTER_MS: i64 = 3_600_000;
/// How often the account of a pool is written.
const POOLS_EVERY_MS: i64 = 300_000;
/// Uses of a tenant that are counted in one write, at most: a report lists them until their claims are gone.
const COUNTED_AT_ONCE: usize = 2_000;
/// Claims that are let go between two looks, at most.
const RELEASED_AT_ONCE: usize = 1_000;
/// Of these, at a time.
const AT_ONCE: usize = 16;

/// What is remembered of the ledger.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    ends: Ends,
    /// When the books were looked at last.
    looked: Option<Instant>,
    /// The reports, and at which change of theirs that was.
    books: (u64, Books),
    /// At which changes of orders and reserves was looked.
    asked: (u64, u64),
    /// What is remembered of the reserves.
    pub(super) reserves: Reserves,
}

/// The uses of all claims that the ledger waits for.
#[derive(Default)]
pub(super) struct Uses {
    /// What they hold, or held.
    pub(super) entries: Vec<Entry>,
    /// Their claims, by the name of the use.
    pub(super) claims: BTreeMap<String, (Key, Arc<Claim>)>,
    /// Claims whose record cannot be read any more: nobody can say what they used.
    unreadable: Vec<(Key, Arc<Claim>)>,
    /// When the next of them is settled by rule, in milliseconds since 1970.
    due_ms: Option<i64>,
}

impl Engine {
    /// Counts what has ended and lets it go, if it is time to look.
    pub(super) fn keep_ledger(&mut self, tenancy: &Tenancy, now_ms: i64) {
        self.count_claims(now_ms);
        let waits = self.world.claims.iter().any(|(_, claim)| claim.unaccounted());
        let pause = if waits { SOON } else { LATER };
        // An order is answered at once.
        let asked = (self.world.orders.changes(), self.world.reserves.changes());
        let same = std::mem::replace(&mut self.accounts.asked, asked) == asked;
        let next = self.accounts.looked.filter(|_| same).map(|looked| looked + pause);
        if let Some(next) = next.filter(|next| *next > Instant::now()) {
            self.look_again_at(next);
            return;
        }
        self.accounts.looked = Some(Instant::now());
        let uses = uses(&mut self.accounts.ends, &self.world, now_ms);
        self.metrics.unaccounted.set(count(uses.claims.values().filter(|(_, c)| c.unaccounted()).count()));
        if let Some(due_ms) = uses.due_ms {
            self.look_again_at_ms(due_ms);
        }
        self.enter_old_claims();
        self.keep_reserves(tenancy, &uses, now_ms);
        if !self.free(LEDGER) {
            return;
        }
        let actions = match self.next_of_books(&uses.entries, now_ms) {
            Ok(actions) => actions,
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be kept");
                return;
            }
        };
        // What is drawn from a reserve must be in its account, too.
        let stored = uses.entries.iter().filter(|entry| self.accounts.reserves.stored(entry));
        let stored: BTreeSet<&String> = stored.map(|entry| &entry.claim).collect();
        let released = actions.release.iter().filter(|name| stored.contains(name));
        let released = released.filter_map(|name| uses.claims.get(name));
        // Only what is over is let go: nothing else can have been counted wholly.
        let released = released.filter(|(_, claim)| claim.unaccounted()).cloned();
        let mut released: Vec<_> = released.take(RELEASED_AT_ONCE).collect();
        released.extend(uses.unreadable);
        if actions.writes.is_empty() && released.is_empty() {
            return;
        }
        if !released.is_empty() {
            self.metrics.accounted.inc_by(released.len() as u64);
        }
        self.accounts.reserves.reported(&actions.writes);
        let stored = actions.writes.into_iter().map(|report| {
            let stored = self.world.reports.get(&objects::key(&report)).cloned();
            (stored, report)
        });
        let stored: Vec<_> = stored.collect();
        self.start(LEDGER.to_owned(), |writer| write(writer, stored, released));
        self.look_again_at(Instant::now() + SOON);
    }

    fn next_of_books(
        &mut self,
        entries: &[Entry],
        now_ms: i64,
    ) -> Result<Actions, vingt_core::ledger::Overflow> {
        let changes = self.world.reports.changes();
        if self.accounts.books.0 != changes {
            let reports: Vec<&Report> = self.world.reports.iter().map(|(_, stored)| &stored.report).collect();
            self.accounts.books = (changes, Books::new(needed(&reports)));
        }
        let tenants = self.world.tenants.iter();
        let facts = Facts {
            entries,
            prices: tenants.map(|(key, tenant)| (key.name.clone(), prices::of_tenant(tenant))).collect(),
            pools: self.accounts.reserves.for_reports(now_ms),
            pools_every_ms: POOLS_EVERY_MS,
            now_ms,
            seal_after_ms: SEAL_AFTER_MS,
        };
        self.accounts.books.1.next(&facts)
    }

    /// Claims that were decided before there was a ledger are waited for from now on.
    fn enter_old_claims(&mut self) {
        let old = self.world.claims.iter().filter(|(_, claim)| {
            claim.decision.is_ok() && claim.allocation.is_some() && !claim.ledgered() && !claim.deleting
        });
        let old: Vec<_> = old.map(|(key, claim)| (key.clone(), objects::entered(claim))).collect();
        for (key, patch) in old {
            let object = format!("ResourceClaim/{key}");
            if self.free(&object) {
                let target = Target::object::<ResourceClaim>(&key);
                self.start(object, |writer| async move {
                    super::pods::one(writer.merge::<Claim>(&target, &patch).await)
                });
            }
        }
    }
}

/// The uses of all claims that the ledger waits for, and what is known of their ends.
fn uses(ends: &mut Ends, world: &World, now_ms: i64) -> Uses {
    let mut uses = Uses::default();
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, claim) in world.claims.iter().filter(|(_, claim)| claim.ledgered()) {
        let Ok(record) = &claim.decision else {
            if claim.unaccounted() {
                tracing::error!(claim = %key, "what it was decided cannot be read any more: it is not counted");
                uses.unreadable.push((key.clone(), claim.clone()));
            }
            continue;
        };
        let mut end = ends.look(key, claim, world, now_ms);
        if let End::Due(due_ms) = end {
            uses.due_ms = Some(uses.due_ms.map_or(due_ms, |other| other.min(due_ms)));
        }
        if matches!(end, End::Told(_) | End::ByRule(_)) {
            let counted = counted.entry(&record.tenant).or_default();
            *counted += 1;
            if *counted > COUNTED_AT_ONCE {
                end = End::Open;
            }
        }
        uses.entries.push(uses::entry(claim, record, end));
        uses.claims.insert(uses::name(claim, record), (key.clone(), claim.clone()));
    }
    ends.forget_unseen();
    uses
}

/// The reports that the books need: the open ones, of the sealed ones those of the last months.
fn needed(reports: &[&Report]) -> Vec<Report> {
    let sealed = reports.iter().filter(|report| report.sealed());
    let last_month = sealed.clone().map(|report| report.month).max();
    let mut last = BTreeMap::new();
    for report in sealed {
        let of_it = last.entry(&report.subject).or_insert(report.month);
        *of_it = report.month.max(*of_it);
    }
    let needed = |report: &&&Report| {
        !report.sealed()
            || Some(report.month) == last_month
            || last.get(&report.subject) == Some(&report.month)
    };
    reports.iter().filter(needed).map(|report| (*report).clone()).collect()
}

/// Writes reports in order, and lets claims go that are counted in what was stored before.
async fn write(
    writer: Writer,
    reports: Vec<(Option<Arc<StoredReport>>, Report)>,
    released: Vec<(Key, Arc<Claim>)>,
) -> Written {
    let mut changes = Vec::new();
    let mut result = Ok(());
    for (stored, report) in reports {
        let target = Target::object::<UsageReport>(&objects::key(&report));
        let written = match &stored {
            Some(stored) => {
                let patch = objects::changed(stored, &report);
                writer.merge::<StoredReport>(&target.clone().settled(), &patch).await
            }
            None => writer.create::<StoredReport>(&target, &objects::made(&report)).await,
        };
        match written {
            Ok(change) => changes.push(change),
            Err(failure) => {
                changes.extend(writer.reread::<StoredReport>(&target).await);
                result = Err(failure);
                break;
            }
        }
    }
    let release = |(key, claim): (Key, Arc<Claim>)| {
        let writer = &writer;
        async move {
            let target = Target::object::<ResourceClaim>(&key);
            match writer.merge::<Claim>(&target, &objects::released(&claim)).await {
                Ok(change) => Ok(change),
                Err(failure) => Err((failure, writer.reread::<Claim>(&target).await.ok())),
            }
        }
    };
    let outcomes: Vec<_> = stream::iter(released).map(release).buffer_unordered(AT_ONCE).collect().await;
    for outcome in outcomes {
        match outcome {
            Ok(change) => changes.push(change),
            Err((failure, change)) => {
                changes.extend(change);
                // One that changed meanwhile is looked at anew, and is no reason to wait.
                if failure != Failure::Stale {
                    result = Err(failure);
                }
            }
        }
    }
    (changes, result)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
