//! What tenants held of late and when they were last served: kept in their
//! status, so that another leader goes on from there.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use vingt_core::Usage;
use vingt_core::model::{Admission, Plan, Snapshot, Tenant, Units};
use vingt_crds::{RecentUse, TenantStatus};

use super::Engine;
use crate::world::Key;

/// How old what is written of use may be, in milliseconds.
const WRITE_EVERY_MS: i64 = 60_000;

/// What is known of a tenant's past.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    usage: Usage,
    /// What it held when the usage was last brought up to date.
    held: Units,
    at_ms: i64,
    last_admitted_ms: i64,
}

impl Past {
    fn of(status: Option<&TenantStatus>, held: Units, now_ms: i64) -> Self {
        let recent = status.and_then(|status| status.recent_use.as_ref());
        let at_ms = recent.map_or(now_ms, |recent| recent.at.0.as_millisecond()).min(now_ms);
        let last = status.and_then(|status| status.last_admitted.as_ref());
        Self {
            usage: Usage::at(at_ms, recent.map_or(0, |recent| recent.unit_ms)),
            // What it held while nobody looked is not known; what it holds now is the best guess.
            held,
            at_ms,
            last_admitted_ms: last.map_or(0, |last| last.0.as_millisecond()),
        }
    }

    /// What the status says of it: the use as it was written, unless that is old.
    pub(super) fn tell(&self, status: &mut TenantStatus, now: Timestamp) {
        let written = status.recent_use.as_ref().map(|recent| recent.at.0.as_millisecond());
        let old = written.is_none_or(|at_ms| now.as_millisecond().saturating_sub(at_ms) >= WRITE_EVERY_MS);
        let unit_ms = self.usage.recent();
        if old && (unit_ms > 0 || status.recent_use.as_ref().is_some_and(|recent| recent.unit_ms > 0)) {
            let at = Timestamp::from_millisecond(self.at_ms).unwrap_or(now);
            status.recent_use = Some(RecentUse { unit_ms, at: Time(at) });
        }
        if self.last_admitted_ms > 0 {
            // Whole seconds are written; a fraction would never compare equal again.
            let last = Timestamp::from_second(self.last_admitted_ms.div_euclid(1000)).ok().map(Time);
            status.last_admitted = last.or(status.last_admitted.take());
        }
    }
}

impl Engine {
    /// Brings the past of the tenants up to date and tells the core.
    pub(super) fn recall_past(
        &mut self,
        tenants: &mut BTreeMap<String, Tenant>,
        half_life_ms: i64,
        now_ms: i64,
    ) {
        self.past.retain(|name, _| tenants.contains_key(name));
        for (name, tenant) in tenants {
            let status =
                self.world.tenants.get(&Key::new("", name)).and_then(|object| object.status.as_ref());
            let past = self.past.entry(name.clone()).or_insert_with(|| Past::of(status, tenant.used, now_ms));
            past.usage.advance(now_ms, past.held, half_life_ms);
            past.at_ms = past.at_ms.max(now_ms);
            past.held = tenant.used;
            tenant.recent = past.usage.recent();
            tenant.last_admitted_ms = past.last_admitted_ms;
        }
    }

    /// Remembers who was served in its turn.
    pub(super) fn remember_served(&mut self, snapshot: &Snapshot, plan: &Plan, now_ms: i64) {
        let in_turn = |admission: &&Admission| !plan.out_of_turn.contains(&admission.workload);
        for admission in plan.admissions.iter().filter(in_turn) {
            if let Some(past) = self.past.get_mut(&snapshot.waiting[admission.workload].tenant) {
                past.last_admitted_ms = now_ms;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn another_leader_goes_on_from_what_is_written() {
        let mut past = Past::of(None, 56, 0);
        past.usage.advance(DAY_MS, past.held, DAY_MS);
        past.at_ms = DAY_MS;
        past.last_admitted_ms = 7_900;
        let mut status = TenantStatus::default();
        past.tell(&mut status, at(DAY_MS));
        assert_eq!(status.last_admitted, Some(Time(at(7_000))));
        let written = status.clone();
        past.tell(&mut status, at(DAY_MS + WRITE_EVERY_MS - 1));
        assert_eq!(status, written, "not all the time");
        let next = Past::of(Some(&status), 56, DAY_MS);
        assert_eq!((next.usage.recent(), next.last_admitted_ms), (past.usage.recent(), 7_000));
        let mut later = Past::of(Some(&status), 0, 2 * DAY_MS);
        later.usage.advance(2 * DAY_MS, later.held, DAY_MS);
        assert!(later.usage.recent().abs_diff(past.usage.recent() / 2) <= 1, "it has aged while nobody led");
    }
}
