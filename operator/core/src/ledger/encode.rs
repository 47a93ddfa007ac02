//! The canonical bytes of a report, which its hash is of. Version 1.
//!
//! The bytes are a sequence of *netstrings*: the length of a value in decimal
//! digits, `:`, its bytes, `,`. Numbers are written in decimal digits, without
//! leading zeros and with `-` if negative; what may be missing is `0` if it is,
//! else `1` and then the value; a list is the number of its elements, then
//! these, each field of each in order; sets and maps are in the order of the
//! bytes of their keys, lines in the order of (profile, class, basis, reserve)
//! with standard < sme < sovereign < security, ordinary < claimed < ordered,
//! and no reserve before any.
//!
//! In this order: `vingt.dev/usage-report/1`; subject kind (`tenant`,
//! `reserve`) and name; month (`2026-11`); sealed (may be missing); lines
//! (profile, class, basis, reserve (may be missing), used, credited); settled;
//! carried; ended by rule; price (may be missing: currency, per GPU-hour,
//! profiles (name, price), derivation (may be missing: purchase,
//! life, power, overhead, energy)); pool (may be missing: as of, units,
//! fraction, installed (fraction, unit-ms), maintenance,
//! held, not held, claims made, late and slowest, orders accepted, countered,
//! refused and late, evictions, lost, crises (from, until, fraction, reason));
//! previous.
//!
//! Two different reports have different bytes: each value says where it ends,
//! and whether one is there is said before it. The summary is not in it, for
//! it says nothing new: whoever verifies works it out again.

use super::report::{Pool, Report};
use crate::model::Class;

/// The version of the encoding, which a report says.
pub const VERSION: u32 = 1;

/// Netstrings, one after the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn text(&mut self, value: &str) {
        self.0.extend_from_slice(value.len().to_string().as_bytes());
        self.0.push(b':');
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b',');
    }

    fn number(&mut self, value: impl ToString + Copy) {
        self.text(&value.to_string());
    }

    fn maybe<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.text(if value.is_some() { "1" } else { "0" });
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn each<T>(&mut self, values: impl ExactSizeIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.number(values.len());
        for value in values {
            write(self, value);
        }
    }
}

/// The word for a class in reports.
pub(super) fn class_word(class: Class) -> &'static str {
    match class {
        Class::Standard => "standard",
        Class::Sme => "sme",
        Class::Sovereign => "sovereign",
        Class::Security => "security",
    }
}

/// The bytes.
pub fn canonical(report: &Report) -> Vec<u8> {
    let mut to = Bytes::default();
    to.text(&format!("vingt.dev/usage-report/{}", report.version));
    to.text(report.subject.kind.word());
    to.text(&report.subject.name);
    to.text(&report.month.to_string());
    to.maybe(report.sealed_ms.as_ref(), |to, at_ms| to.number(at_ms));
    to.each(report.lines.iter(), |to, (key, amount)| {
        to.text(&key.profile);
        to.text(class_word(key.class));
        to.text(key.basis.word());
        to.maybe(key.reserve.as_ref(), |to, name| to.text(name));
        to.number(amount.used);
        to.number(amount.credited);
    });
    to.each(report.settled.iter(), |to, claim| to.text(claim));
    to.each(report.carried.iter(), |to, claim| to.text(claim));
    to.number(report.ended_by_rule);
    to.maybe(report.price.as_ref(), |to, price| {
        to.text(&price.currency);
        to.number(price.per_gpu_hour);
        to.each(price.profiles.iter(), |to, (profile, price)| {
            to.text(profile);
            to.number(price);
        });
        to.maybe(price.derivation.as_ref(), |to, from| {
            to.number(from.purchase);
            to.number(from.life_hours);
            to.number(from.power_watts);
            to.number(from.overhead_percent);
            to.number(from.energy_per_kwh);
        });
    });
    to.maybe(report.pool.as_ref(), pool);
    to.text(&report.previous);
    to.0
}

fn pool(to: &mut Bytes, pool: &Pool) {
    to.number(pool.as_of_ms);
    to.number(pool.units);
    to.number(pool.fraction_ppm);
    to.each(pool.installed.iter(), |to, (fraction_ppm, unit_ms)| {
        to.number(fraction_ppm);
        to.number(unit_ms);
    });
    to.number(pool.maintenance);
    to.number(pool.held_ms);
    to.number(pool.not_held_ms);
    to.number(pool.claims.made);
    to.number(pool.claims.late);
    to.number(pool.claims.slowest_ms);
    to.number(pool.orders.accepted);
    to.number(pool.orders.countered);
    to.number(pool.orders.refused);
    to.number(pool.orders.late);
    to.number(pool.evictions);
    to.number(pool.lost);
    to.each(pool.crises.iter(), |to, crisis| {
        to.number(crisis.from_ms);
        to.number(crisis.until_ms);
        to.number(crisis.fraction_ppm);
        to.text(&crisis.reason);
    });
}
