//! Keeps the sovereign reserves: their accounts, their status, and the answers
//! to orders, each within a cycle. What is planned with them is not here.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use vingt_core::ledger::{Entry, PoolCounts, PoolNow, Report};
use vingt_core::model::{ReservedShape, Snapshot, UnitMs};
use vingt_core::reserve::lent;
use vingt_crds::{OrderState, SovereignOrder, SovereignOrderStatus, SovereignReserve, names};

use super::super::Engine;
use super::super::api::Target;
use super::super::pods::one;
use super::Uses;
use super::claims::Claiming;
use crate::reserves::booking::{self, Wish};
use crate::reserves::pools::{Installed, Pool, Pools};
use crate::reserves::state::{State, holdings, terms};
use crate::reserves::status::status;
use crate::snapshot::layout::Layout;
use crate::tenants::Tenancy;
use crate::world::{Claim, Key, World};

/// How old what is written of an account may be, in milliseconds.
const WRITE_EVERY_MS: i64 = 60_000;

/// What is remembered of the reserves.
#[derive(Debug, Default)]
pub(in crate::engine) struct Reserves {
    installed: Installed,
    pools: Pools,
    states: BTreeMap<String, State>,
    /// For whom others were asked to leave, until it runs.
    pub(super) claiming: BTreeMap<String, Claiming>,
}

impl Reserves {
    /// The reserve in whose pool a node is.
    pub(in crate::engine) fn of_node(&self, node: &str) -> Option<&str> {
        self.pools.reserve_of(node)
    }

    /// The pools as they are now.
    pub(in crate::engine) fn look(&mut self, world: &World, layout: &Layout, now_ms: i64) -> Pools {
        self.installed.look(world, layout, now_ms);
        self.pools = Pools::of(world, &self.installed, now_ms);
        self.pools.clone()
    }

    /// What of the declared shapes can be claimed at once now: more in a crisis.
    pub(in crate::engine) fn claimable(
        &self,
        pool: &Pool,
        declared: Vec<ReservedShape>,
        now_ms: i64,
    ) -> Vec<ReservedShape> {
        match self.states.get(pool.name()).and_then(|state| state.in_crisis(now_ms)) {
            Some(crisis) => crisis.shapes(terms(&pool.reserve), &declared),
            None => declared,
        }
    }

    /// Takes in what is lent, and what of the instant claims does not fit now, by reserve, in words.
    pub(in crate::engine) fn proved(
        &mut self,
        snapshot: &Snapshot,
        missing: &BTreeMap<String, String>,
        now_ms: i64,
    ) {
        for reserve in &snapshot.reserves {
            if let Some(state) = self.states.get_mut(&reserve.name) {
                state.lent = lent(snapshot, reserve, now_ms);
            }
        }
        for (name, state) in &mut self.states {
            state.missing = Some(missing.get(name).cloned().unwrap_or_default());
        }
    }

    /// What may still be taken from others, by reserve.
    pub(in crate::engine) fn spare(&self, reserve: &str) -> UnitMs {
        let pool = self.pools.get(reserve);
        pool.zip(self.states.get(reserve)).map_or(0, |(pool, state)| state.spare(pool))
    }

    /// What is counted of a reserve until it is in a report.
    pub(super) fn counts(&mut self, reserve: &str) -> Option<&mut PoolCounts> {
        self.states.get_mut(reserve).map(|state| &mut state.counts)
    }

    /// How soon an instant claim is to run.
    pub(super) fn within_ms(&self, reserve: &str) -> u64 {
        let seconds = self.pools.get(reserve).map(|pool| pool.reserve.spec.instant_claim.within_seconds);
        seconds.map_or(u64::MAX, |seconds| u64::from(seconds) * 1000)
    }

    /// What the monthly reports are told.
    pub(super) fn for_reports(&self, now_ms: i64) -> BTreeMap<String, PoolNow> {
        let told = self.pools.pools.iter().filter_map(|pool| {
            Some((pool.name().to_owned(), self.states.get(pool.name())?.for_report(pool, now_ms)))
        });
        told.collect()
    }

    /// Reports are about to be written: what was counted is in them.
    pub(super) fn reported(&mut self, reports: &[Report]) {
        for report in reports.iter().filter(|report| report.pool.is_some()) {
            if let Some(state) = self.states.get_mut(&report.subject.name) {
                state.counts = PoolCounts::default();
            }
        }
    }

    /// Whether the account of a reserve is stored up to the end of a use that was drawn from it.
    pub(super) fn stored(&self, entry: &Entry) -> bool {
        let Some(end_ms) = entry.end_ms() else { return true };
        let pool = entry.reserve.as_ref().and_then(|reserve| self.pools.get(reserve));
        // Of a reserve that is no more there is no account.
        let Some(pool) = pool else { return true };
        let account = pool.reserve.status.as_ref().and_then(|status| status.account.as_ref());
        account.is_some_and(|account| account.bucket.as_of_ms >= end_ms)
    }
}

impl Engine {
    /// Brings the accounts up to date and tells of them.
    pub(super) fn keep_reserves(&mut self, tenancy: &Tenancy, uses: &Uses, now_ms: i64) {
        let pools = self.accounts.reserves.look(&self.world, &self.layout, now_ms);
        self.accounts.reserves.states.retain(|name, _| pools.get(name).is_some());
        let orders: Vec<(Key, Arc<SovereignOrder>)> =
            self.world.orders.iter().map(|(key, order)| (key.clone(), order.clone())).collect();
        let wishes: Vec<Wish<'_>> = orders
            .iter()
            .map(|(key, order)| {
                let tenant = tenancy.tenant(&key.namespace);
                Wish { key: key.clone(), order, tenant: tenant.map(|tenant| (tenant, self.class_of(tenant))) }
            })
            .collect();
        let mut told = booking::Told::new();
        for wish in wishes.iter().filter(|wish| pools.get(&wish.order.spec.reserve).is_none()) {
            told.extend(
                booking::without_reserve(wish.order, now_ms).map(|status| (wish.key.clone(), status)),
            );
        }
        if let Some(at_ms) = booking::next_change_ms(&wishes, now_ms) {
            self.look_again_at_ms(at_ms);
        }
        for pool in &pools.pools {
            let name = pool.name().to_owned();
            let mut state =
                self.accounts.reserves.states.remove(&name).unwrap_or_else(|| State::of(pool, now_ms));
            state.declare(&pool.reserve, now_ms);
            let held = holdings(&name, &uses.entries);
            let holdings: Vec<_> = held.iter().map(|(_, holding)| holding.clone()).collect();
            for (at, ended_ms) in state.advance(pool, &holdings, now_ms) {
                if let Some(entry) = held.get(at).and_then(|(at, _)| uses.entries.get(*at)) {
                    self.end_right(&entry.claim, uses, ended_ms);
                }
            }
            let of_it: Vec<Wish<'_>> =
                wishes.iter().filter(|wish| wish.order.spec.reserve == name).cloned().collect();
            // While answers are being written, who is booked is not known for sure.
            let writing = of_it.iter().any(|wish| self.busy.contains(&order_object(&wish.key)));
            if !writing {
                told.extend(booking::answer(pool, &mut state, &of_it, &self.layout, now_ms));
            }
            let new = status(pool, &state, &uses.entries, &of_it, now_ms);
            let waits = uses.entries.iter().any(|entry| {
                entry.reserve.as_deref() == Some(&name) && !self.accounts.reserves.stored(entry)
            });
            self.tell_reserve(&pool.reserve, &new, waits, now_ms);
            self.accounts.reserves.states.insert(name, state);
        }
        for (key, status) in told {
            self.tell_order(&key, &status);
        }
    }

    /// A claim that has nothing left goes on as an ordinary one.
    fn end_right(&mut self, name: &str, uses: &Uses, ended_ms: i64) {
        let Some((key, claim)) = uses.claims.get(name) else { return };
        let object = format!("ResourceClaim/{key}");
        let Ok(record) = &claim.decision else { return };
        if claim.unaccounted() || record.account.ordinary_from.is_some() || !self.free(&object) {
            return;
        }
        let mut record = record.clone();
        record.account.ordinary_from = Timestamp::from_millisecond(ended_ms).ok();
        tracing::info!(claim = %key, "nothing is left of the reserve: it goes on as an ordinary one");
        let patch = json!({"metadata": {
            "uid": claim.uid,
            "resourceVersion": claim.version,
            "annotations": {names::DECISION: record.to_json()},
        }});
        let target = Target::object::<ResourceClaim>(key);
        self.start(object, |writer| async move { one(writer.merge::<Claim>(&target, &patch).await) });
    }

    fn tell_reserve(
        &mut self,
        reserve: &SovereignReserve,
        new: &vingt_crds::SovereignReserveStatus,
        waits: bool,
        now_ms: i64,
    ) {
        let old = reserve.status.clone().unwrap_or_default();
        let written_ms = old.account.as_ref().map_or(0, |account| account.bucket.as_of_ms);
        let said = |status: &vingt_crds::SovereignReserveStatus| {
            (
                status.conditions.clone(),
                status.claimed_now.clone(),
                status.lent.clone(),
                status.next_order.clone(),
                status.installed_gpus,
            )
        };
        let due = written_ms.saturating_add(WRITE_EVERY_MS) <= now_ms;
        let changed = said(&old) != said(new) || old.observed_generation != new.observed_generation;
        let name = reserve.metadata.name.clone().unwrap_or_default();
        let object = format!("SovereignReserve/{name}");
        if !(due || waits || changed) || !self.free(&object) {
            return;
        }
        let body = json!({
            "apiVersion": "vingt.dev/v1alpha1", "kind": "SovereignReserve",
            "metadata": {"name": name, "uid": reserve.metadata.uid, "resourceVersion": reserve.metadata.resource_version},
            "status": new,
        });
        let target = Target::status::<SovereignReserve>(&Key::new("", &name));
        self.start(
            object,
            |writer| async move { one(writer.apply::<SovereignReserve>(&target, &body).await) },
        );
    }

    fn tell_order(&mut self, key: &Key, status: &SovereignOrderStatus) {
        let object = order_object(key);
        let Some(order) = self.world.orders.get(key).cloned() else { return };
        if !self.free(&object) {
            return;
        }
        tracing::info!(order = %key, state = ?status.state, reason = %status.reason, "answered");
        if let Some(state) = self.accounts.reserves.states.get_mut(&order.spec.reserve) {
            let counts = &mut state.counts.orders;
            match status.state {
                Some(OrderState::Accepted) => counts.accepted += 1,
                Some(OrderState::Countered) => counts.countered += 1,
                Some(OrderState::Refused) => counts.refused += 1,
                Some(OrderState::Active | OrderState::Ended) | None => {}
            }
        }
        let body = json!({
            "apiVersion": "vingt.dev/v1alpha1", "kind": "SovereignOrder",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": order.metadata.uid,
                "resourceVersion": order.metadata.resource_version},
            "status": status,
        });
        let target = Target::status::<SovereignOrder>(key);
        self.start(object, |writer| async move { one(writer.apply::<SovereignOrder>(&target, &body).await) });
    }
}

fn order_object(key: &Key) -> String {
    format!("SovereignOrder/{key}")
}
