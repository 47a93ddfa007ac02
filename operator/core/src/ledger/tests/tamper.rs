//! Whoever changes anything in a report is found, and the report is named; what
//! is not found says the same as before.

use std::collections::BTreeMap;

use serde_json::Value;

use super::world::{Api, DAY_MS, HOUR_MS, Keeper, claim};
use crate::ledger::{CrisisRecord, Entry, Month, PoolCounts, PoolNow, Report, verify};
use crate::simulate::random::Random;

/// The reports of 2026, as they come of a year of claims, and the open ones after it.
pub fn year() -> Vec<Report> {
    let mut random = Random::new(20);
    let mut api = Api::default();
    let mut keeper = Keeper::new(&api);
    let mut running: Vec<String> = Vec::new();
    let january: Month = "2026-01".parse().unwrap();
    let end_ms = "2027-01".parse::<Month>().unwrap().start_ms() + 12 * DAY_MS;
    let mut now_ms = january.start_ms() + HOUR_MS;
    let mut number = 0;
    while now_ms < end_ms {
        for _ in 0..6 {
            let mut entry = claim(&mut random, number, now_ms);
            entry.reserve = Some("national".to_owned());
            number += 1;
            running.push(entry.claim.clone());
            api.begin(entry);
        }
        while running.len() > 6 {
            let claim = running.swap_remove(random.below(running.len()));
            let by_rule = random.below(9) == 0;
            api.put(Entry { end_ms: Some(now_ms), by_rule, ..api.claims[&claim].clone() });
        }
        let crisis = (Month::of(now_ms).to_string() == "2026-05").then(|| CrisisRecord {
            from_ms: now_ms,
            until_ms: now_ms + DAY_MS,
            fraction_ppm: 100_000,
            reason: "fuel".into(),
        });
        let counts =
            PoolCounts { held_ms: DAY_MS.unsigned_abs(), evictions: 2, lost: 7, ..PoolCounts::default() };
        let now = PoolNow { units: 448, fraction_ppm: 50_000, crisis, counts };
        for _ in 0..6 {
            keeper.watch(&api, usize::MAX);
            keeper.turn(&mut api, now_ms, BTreeMap::from([("national".to_owned(), now.clone())]), || false);
        }
        now_ms += 5 * DAY_MS;
    }
    api.stored()
}

/// Whether a changed report is found out; `text` is what became of the report at `index`.
fn found(reports: &mut [Report], index: usize, text: &[u8], what: &str) -> bool {
    let Ok(changed) = serde_json::from_slice::<Report>(text) else { return true };
    if changed == reports[index] {
        return false;
    }
    let names = [reports[index].name(), changed.name()];
    let before = std::mem::replace(&mut reports[index], changed);
    let faults = verify(reports).expect_err(what);
    assert!(faults.iter().any(|fault| names.contains(&fault.report)), "{what}: {names:?}\n{faults:#?}");
    reports[index] = before;
    true
}

#[test]
fn any_other_byte_is_found_or_means_the_same() {
    let mut random = Random::new(1);
    let mut reports = year();
    assert!(verify(&reports).is_ok());
    let (mut tried, mut same) = (0, 0);
    for index in 0..reports.len() {
        let text = serde_json::to_vec(&reports[index]).unwrap();
        for at in 0..text.len() {
            let flipped = text[at] ^ (1 << random.below(8));
            let other = b"0123456789abcdef,:{}[]\" .-eE+\\"[random.below(30)];
            for byte in [flipped, other].into_iter().filter(|byte| *byte != text[at]) {
                let mut text = text.clone();
                text[at] = byte;
                let what = format!("{}, byte {at} is {:?}", reports[index].name(), byte as char);
                same += usize::from(!found(&mut reports, index, &text, &what));
                tried += 1;
            }
        }
    }
    println!(
        "{tried} bytes changed in {} reports: {same} mean the same, all others are found",
        reports.len()
    );
    assert!(tried > 50_000 && same < tried / 1000, "{tried} {same}");
}

/// Every way to change one thing in a value: its leaves, and what lists and objects hold.
fn changes(value: &Value) -> Vec<Value> {
    let mut all = vec![Value::Null, Value::Bool(true), "x".into(), 7.into(), Value::Array(vec![])];
    match value {
        Value::Number(number) => {
            let number = number.as_i64().unwrap();
            all.extend([number + 1, number - 1, 0, -number].map(Value::from));
            all.push(number.to_string().into());
        }
        Value::String(text) => {
            let shorter = text.chars().skip(1).collect::<String>();
            all.extend([format!("{text} "), shorter, text.to_uppercase(), String::new()].map(Value::from));
        }
        Value::Array(list) => {
            for index in 0..list.len() {
                let mut without = list.clone();
                let one = without.remove(index);
                all.push(without.into());
                let mut twice = list.clone();
                twice.push(one);
                all.push(twice.into());
                for change in changes(&list[index]) {
                    let mut other = list.clone();
                    other[index] = change;
                    all.push(other.into());
                }
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let mut without = fields.clone();
                without.remove(name);
                all.push(without.clone().into());
                without.insert(format!("{name}X"), field.clone());
                all.push(without.into());
                for change in changes(field) {
                    let mut other = fields.clone();
                    other.insert(name.clone(), change);
                    all.push(other.into());
                }
            }
            let mut more = fields.clone();
            more.insert("extra".into(), 1.into());
            all.push(more.into());
        }
        Value::Null | Value::Bool(_) => {}
    }
    all.retain(|other| other != value);
    all
}

#[test]
fn any_other_field_is_found() {
    let mut reports = year();
    let (mut tried, mut same) = (0, 0);
    for index in 0..reports.len() {
        let value = serde_json::to_value(&reports[index]).unwrap();
        for change in changes(&value) {
            let text = serde_json::to_vec(&change).unwrap();
            let what = format!("{}: {change}", reports[index].name());
            tried += 1;
            same += usize::from(!found(&mut reports, index, &text, &what));
        }
    }
    // A claim that is listed twice is listed; what is missing is empty.
    println!(
        "{tried} fields changed in {} reports: {same} mean the same, all others are found",
        reports.len()
    );
    assert!(tried > 5000 && same < tried / 20, "{tried} {same}");
}
