//! What reports say of a year, added up: the statement that an auditor reads.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::chain::Verified;
use super::entry::{Basis, LineKey};
use super::month::Month;
use super::price;
use super::report::{Amount, ClaimCount, CrisisRecord, OrderCount, Pool, Report, SubjectKind};
use crate::model::{Class, UnitMs};

/// A year, of sealed months or with the open ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// The year.
    pub year: i32,
    /// Its months that are in it.
    pub months: BTreeSet<Month>,
    /// How many reports it is made of.
    pub reports: usize,
    /// How many of these are still added to, and in no chain yet.
    pub open: usize,
    /// The name of the last sealed report of the year; empty if there is none.
    pub head: String,
    /// Its hash.
    pub head_hash: String,
    /// Each reserve.
    pub reserves: BTreeMap<String, ReserveYear>,
    /// Each tenant.
    pub tenants: BTreeMap<String, TenantYear>,
}

/// A reserve's year.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReserveYear {
    /// All months together.
    pub total: Figures,
    /// Each month.
    pub months: BTreeMap<Month, Figures>,
    /// The crises that were in force.
    pub crises: Vec<CrisisRecord>,
}

/// What there was in a pool, what of it was delivered, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Unit-milliseconds installed.
    pub installed: u128,
    /// Unit-milliseconds out for announced maintenance.
    pub maintenance: u128,
    /// Unit-milliseconds that were the reserve's, rounded down.
    pub entitlement: u128,
    /// Taken by asking others to leave.
    pub claimed: i128,
    /// Under advance orders.
    pub ordered: i128,
    /// Claimed and ordered together, by what the tenants are.
    pub delivered: BTreeMap<Class, i128>,
    /// By everyone else, or as everyone else: what of the pool was lent.
    pub lent: i128,
    /// How long the declared shapes were deliverable, in milliseconds.
    pub held_ms: u64,
    /// How long they were not.
    pub not_held_ms: u64,
    /// Instant claims.
    pub claims: ClaimCount,
    /// Advance orders.
    pub orders: OrderCount,
    /// Workloads that were asked to leave.
    pub evictions: u64,
    /// Unit-milliseconds that these lost.
    pub lost: UnitMs,
    #[serde(skip)]
    entitled_ppm: u128,
}

impl Figures {
    fn add(&mut self, pool: &Pool) {
        self.installed += pool.installed();
        self.maintenance += u128::from(pool.maintenance);
        self.entitled_ppm += pool.entitled_ppm();
        self.entitlement = self.entitled_ppm / 1_000_000;
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        add(&mut self.held_ms, pool.held_ms);
        add(&mut self.not_held_ms, pool.not_held_ms);
        add(&mut self.claims.made, pool.claims.made);
        add(&mut self.claims.late, pool.claims.late);
        self.claims.slowest_ms = self.claims.slowest_ms.max(pool.claims.slowest_ms);
        add(&mut self.orders.accepted, pool.orders.accepted);
        add(&mut self.orders.countered, pool.orders.countered);
        add(&mut self.orders.refused, pool.orders.refused);
        add(&mut self.orders.late, pool.orders.late);
        add(&mut self.evictions, pool.evictions);
        add(&mut self.lost, pool.lost);
    }

    fn add_line(&mut self, key: &LineKey, amount: &Amount) {
        let net = i128::from(amount.net());
        match key.basis {
            Basis::Ordinary => self.lent += net,
            Basis::Claimed => self.claimed += net,
            Basis::Ordered => self.ordered += net,
        }
        if key.basis != Basis::Ordinary {
            *self.delivered.entry(key.class).or_default() += net;
        }
    }

    /// Claimed and ordered.
    pub fn delivered(&self) -> i128 {
        self.claimed + self.ordered
    }
}

/// A tenant's year.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantYear {
    /// Unit-milliseconds used.
    pub used: i128,
    /// Of these, claimed or ordered.
    pub sovereign: i128,
    /// What it owes, in millionths, by currency.
    pub cost: BTreeMap<String, i128>,
    /// How many of its claims ended by the rule for nodes that do not come back.
    pub ended_by_rule: u64,
}

impl Verified<'_> {
    /// What the sealed reports say of a year.
    pub fn statement(&self, year: i32) -> Statement {
        let mut statement = Statement { year, ..Statement::default() };
        for report in self.sealed().iter().filter(|report| report.month.year() == year) {
            statement.add(report);
            (statement.head, statement.head_hash) = (report.name(), report.hash.clone());
        }
        statement
    }

    /// The same with the reports that are still added to: uses that go on are not in it.
    pub fn statement_so_far(&self, year: i32) -> Statement {
        let mut statement = self.statement(year);
        for report in self.open().iter().filter(|report| report.month.year() == year) {
            statement.add(report);
            statement.open += 1;
            // A reserve's report has the lines of its tenants once it is sealed.
            for (key, amount) in &report.lines {
                let of_tenant = report.subject.kind == SubjectKind::Tenant;
                if let Some(reserve) = key.reserve.as_ref().filter(|_| of_tenant) {
                    statement.reserve(reserve, report.month, |figures| figures.add_line(key, amount));
                }
            }
        }
        statement
    }
}

impl Statement {
    fn add(&mut self, report: &Report) {
        self.months.insert(report.month);
        self.reports += 1;
        let name = &report.subject.name;
        match (report.subject.kind, &report.pool) {
            (SubjectKind::Reserve, Some(pool)) => {
                self.reserve(name, report.month, |figures| {
                    figures.add(pool);
                    for (key, amount) in report.lines.iter().filter(|_| report.sealed()) {
                        figures.add_line(key, amount);
                    }
                });
                let crises = &mut self.reserves.entry(name.clone()).or_default().crises;
                for crisis in &pool.crises {
                    // One that goes on is in the next month again.
                    crises.retain(|other| other.from_ms != crisis.from_ms);
                    crises.push(crisis.clone());
                }
            }
            _ => self.tenants.entry(name.clone()).or_default().add(report),
        }
    }

    /// Adds to a reserve's month, and to its year.
    fn reserve(&mut self, name: &str, month: Month, add: impl Fn(&mut Figures)) {
        let reserve = self.reserves.entry(name.to_owned()).or_default();
        add(&mut reserve.total);
        add(reserve.months.entry(month).or_default());
    }
}

impl TenantYear {
    fn add(&mut self, report: &Report) {
        for (key, amount) in &report.lines {
            self.used += i128::from(amount.net());
            if key.basis != Basis::Ordinary {
                self.sovereign += i128::from(amount.net());
            }
        }
        self.ended_by_rule = self.ended_by_rule.saturating_add(report.ended_by_rule);
        if let Some(bill) = price::bill(report) {
            *self.cost.entry(bill.price.currency).or_default() += bill.total;
        }
    }
}
