//! The status of a reserve: its balance, who draws on it, and the account that
//! all of it is reckoned from. Whether its shapes fit is the planner's word.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use vingt_core::gpus;
use vingt_core::ledger::{Basis, Entry, gpu_hours};
use vingt_core::model::Units;
use vingt_crds::{
    Borrower, ConditionType, CrisisInForce, Fraction, NextOrder, OrderState, ReserveHolder, ReserveLent,
    ReserveProof, ReserveTokens, ReserveYear, SovereignReserveStatus, set_condition,
};

use super::booking::Wish;
use super::pools::Pool;
use super::state::{State, terms, write};
use crate::tenants::class_said;

/// Holders that are told, at the most.
const HOLDERS: usize = 1000;
/// Borrowers that are told, at the most; the last stands for all that are not.
const BORROWERS: usize = 50;

/// What a reserve's status says now. What others write in it stays.
pub fn status(
    pool: &Pool,
    state: &State,
    entries: &[Entry],
    orders: &[Wish<'_>],
    now_ms: i64,
) -> SovereignReserveStatus {
    let reserve = &pool.reserve;
    let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    let mut status = reserve.status.clone().unwrap_or_default();
    status.installed_gpus = pool.gpus;
    status.year = Some(year(pool, state));
    status.tokens = Some(tokens(pool, state));
    status.claimed_now = holders(pool.name(), entries);
    status.lent = Some(lent(&state.lent));
    status.next_order = next_order(orders, now_ms);
    let crisis = state.in_crisis(now_ms);
    status.crisis = crisis.and_then(|crisis| {
        let fraction = Fraction(reserve.spec.crisis.as_ref()?.fraction.0.clone());
        let (since, until) = (time(crisis.from_ms), time(crisis.until_ms));
        Some(CrisisInForce { reason: crisis.reason.clone(), since, until, fraction })
    });
    status.proof = state.missing.as_ref().map(|missing| ReserveProof {
        holds: missing.is_empty(),
        as_of: Time(now),
        missing: missing.clone(),
    });
    status.account = write(&state.account);
    status.observed_generation = reserve.metadata.generation;
    let generation = reserve.metadata.generation;
    let mut set = |of, is, reason: &str, words: &str| {
        set_condition(&mut status.conditions, of, is, reason, words, generation, now);
    };
    let shared: Vec<&str> = pool.shared.iter().take(5).map(String::as_str).collect();
    if !shared.is_empty() {
        let words = format!(
            "{} nodes are in the pool of another reserve that was made before, and are not in this one: {}",
            pool.shared.len(),
            shared.join(", ")
        );
        set(ConditionType::Ready, false, "PoolOverlaps", &words);
    } else if pool.gpus + pool.out == 0 {
        set(ConditionType::Ready, false, "PoolEmpty", "no node that it selects has a GPU");
    } else {
        let words = format!("{} GPUs on {} nodes are its pool", pool.gpus, pool.nodes.len());
        set(ConditionType::Ready, true, "Ready", &words);
    }
    match state.missing.as_deref() {
        None => {}
        Some("") => {
            set(ConditionType::Deliverable, true, "Proved", "the instant claim fits if all left that can");
        }
        Some(missing) => set(ConditionType::Deliverable, false, "DoesNotFit", missing),
    }
    match crisis {
        Some(crisis) => set(ConditionType::Crisis, true, "Declared", &crisis.reason),
        None => set(ConditionType::Crisis, false, "None", "no crisis is in force"),
    }
    status
}

fn time(ms: i64) -> Time {
    Time(Timestamp::from_millisecond(ms).unwrap_or_default())
}

fn year(pool: &Pool, state: &State) -> ReserveYear {
    let window = &state.account.window;
    let sum = |of: fn(&vingt_core::reserve::Day) -> u64| -> u64 {
        window.days().fold(0, |all, (_, day)| all.saturating_add(of(day)))
    };
    let (claimed, ordered) = (sum(|day| day.claimed), sum(|day| day.ordered));
    let entitled = window.entitled(terms(&pool.reserve).rate(pool.units()));
    let as_of_ms = window.as_of_ms();
    let hours = |unit_ms: u64| gpu_hours(i128::from(unit_ms));
    ReserveYear {
        from: time(as_of_ms.saturating_sub(window.length_ms())),
        as_of: time(as_of_ms),
        installed_unit_ms: sum(|day| day.installed),
        entitled_unit_ms: entitled,
        claimed_unit_ms: claimed,
        ordered_unit_ms: ordered,
        summary: format!("{} of {}", hours(claimed.saturating_add(ordered)), hours(entitled)),
    }
}

fn tokens(pool: &Pool, state: &State) -> ReserveTokens {
    let standing = state.standing(pool, Units::MAX);
    let dry_ms = Some(state.claimed).filter(|claimed| *claimed > 0);
    let dry_ms = dry_ms.and_then(|_| standing.bucket.runs_dry_ms(&standing.flow));
    ReserveTokens {
        unit_ms: standing.spendable(),
        depth_unit_ms: standing.flow.depth,
        as_of: time(state.account.as_of_ms()),
        gpu_hours: gpu_hours(i128::from(standing.spendable())),
        runs_dry_at: dry_ms.map(time),
    }
}

fn holders(reserve: &str, entries: &[Entry]) -> Vec<ReserveHolder> {
    let mut held: BTreeMap<(&str, vingt_core::model::Class, Basis), Units> = BTreeMap::new();
    let open = entries.iter().filter(|entry| {
        let drawn = entry.basis != Basis::Ordinary && entry.ordinary_from_ms.is_none();
        drawn && entry.end_ms.is_none() && entry.reserve.as_deref() == Some(reserve)
    });
    for entry in open {
        *held.entry((&entry.tenant, entry.class, entry.basis)).or_default() += entry.units;
    }
    let told = held.into_iter().map(|((tenant, of, basis), units)| ReserveHolder {
        tenant: tenant.to_owned(),
        class: class_said(of),
        basis: match basis {
            Basis::Ordinary => vingt_crds::Basis::Ordinary,
            Basis::Claimed => vingt_crds::Basis::Claimed,
            Basis::Ordered => vingt_crds::Basis::Ordered,
        },
        units,
        gpus: gpus(units),
    });
    told.take(HOLDERS).collect()
}

fn lent(to: &BTreeMap<String, Units>) -> ReserveLent {
    let units: Units = to.values().sum();
    let mut to: Vec<Borrower> =
        to.iter().map(|(tenant, units)| Borrower { tenant: tenant.clone(), units: *units }).collect();
    to.sort_by_key(|borrower| std::cmp::Reverse(borrower.units));
    if to.len() > BORROWERS {
        let others = to.drain(BORROWERS - 1..).map(|borrower| borrower.units).sum();
        to.push(Borrower { tenant: "others".to_owned(), units: others });
    }
    ReserveLent { gpus: gpus(units), units, to }
}

fn next_order(orders: &[Wish<'_>], now_ms: i64) -> Option<NextOrder> {
    let accepted = orders.iter().filter(|wish| {
        let state = wish.order.status.as_ref().and_then(|status| status.state);
        state == Some(OrderState::Accepted) && wish.order.spec.from.0.as_millisecond() > now_ms
    });
    let next = accepted.min_by_key(|wish| (wish.order.spec.from.0, wish.key.clone()))?;
    Some(NextOrder {
        namespace: next.key.namespace.clone(),
        name: next.key.name.clone(),
        from: next.order.spec.from.clone(),
    })
}
