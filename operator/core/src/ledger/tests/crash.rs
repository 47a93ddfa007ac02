//! What is billed is what was allocated, wherever who keeps the books stops.

use std::collections::BTreeMap;

use super::world::{Api, DAY_MS, HOUR_MS, Keeper, SEAL_AFTER_MS, Turn, below, claim, pools};
use crate::ledger::{Amount, Basis, Entry, LineKey, Month, Report, Subject, verify};
use crate::model::Class;
use crate::simulate::random::Random;

/// One random history: claims begin and end, ends are known late, the keeper sees late, stops, is replaced.
/// Returns what is stored when all is counted.
fn history(seed: u64, stop_every: usize) -> (Api, u64) {
    let mut random = Random::new(seed);
    let mut api = Api::default();
    let mut now_ms = "2027-10".parse::<Month>().unwrap().start_ms() + below(&mut random, 31 * DAY_MS);
    let mut keeper = Keeper::new(&api);
    let (mut stops, mut number) = (0, 0);
    // Claims that run, and ends that nobody knows yet: when they will be known.
    let mut running: Vec<String> = Vec::new();
    let mut unknown: Vec<(i64, Entry)> = Vec::new();
    for _ in 0..120 {
        match random.below(10) {
            0..3 => {
                let entry = claim(&mut random, number, now_ms);
                number += 1;
                running.push(entry.claim.clone());
                api.begin(entry);
            }
            3..5 if !running.is_empty() => {
                let claim = running.swap_remove(random.below(running.len()));
                let mut entry = api.claims[&claim].clone();
                // The clock of the node is not quite the operator's.
                entry.end_ms = Some(now_ms - below(&mut random, 2) * below(&mut random, 5000));
                entry.by_rule = random.below(5) == 0;
                api.truth.insert(claim, entry.clone());
                let late_ms = [0, 60_000, 8 * HOUR_MS, 70 * DAY_MS][random.below(4)];
                unknown.push((now_ms + late_ms, entry));
            }
            5 => now_ms += below(&mut random, 20 * DAY_MS),
            6 => now_ms += below(&mut random, HOUR_MS),
            7 => keeper.watch(&api, random.below(4)),
            _ => {
                let pools = pools(&mut random);
                let turn = keeper.turn(&mut api, now_ms, pools, || random.below(stop_every) == 0);
                if turn == Turn::Stopped {
                    stops += 1;
                    keeper = Keeper::new(&api);
                }
            }
        }
        unknown.retain(|(at_ms, entry)| {
            let known = *at_ms <= now_ms;
            if known {
                api.put(entry.clone());
            }
            !known
        });
    }
    for claim in running {
        let entry = Entry { end_ms: Some(now_ms), ..api.claims[&claim].clone() };
        api.truth.insert(claim, entry.clone());
        unknown.push((now_ms, entry));
    }
    now_ms += 40 * DAY_MS;
    for (_, entry) in unknown {
        api.put(entry);
    }
    for _ in 0..1000 {
        keeper.watch(&api, usize::MAX);
        let turn = keeper.turn(&mut api, now_ms, BTreeMap::new(), || random.below(stop_every) == 0);
        match turn {
            Turn::Idle if keeper.turn(&mut api, now_ms, BTreeMap::new(), || false) == Turn::Idle => {
                return (api, stops);
            }
            Turn::Stopped => {
                stops += 1;
                keeper = Keeper::new(&api);
            }
            _ => {}
        }
    }
    panic!("seed {seed}: it never comes to rest");
}

#[test]
fn what_is_billed_is_what_was_allocated() {
    let (mut schedules, mut stops, mut writes, mut credits, mut allocated) = (0, 0, 0, 0, 0_i128);
    for seed in 0..1500 {
        let (api, stopped) = history(seed, [3, 8, 1000][usize::try_from(seed % 3).unwrap()]);
        assert_eq!(api.billed(), api.allocated(), "seed {seed}");
        assert!(api.claims.is_empty(), "seed {seed}: every finalizer is off");
        let stored = api.stored();
        assert!(stored.iter().all(|report| report.sealed() || report.settled.is_empty()), "seed {seed}");
        if let Err(faults) = verify(&stored) {
            panic!("seed {seed}: {faults:#?}");
        }
        schedules += 1;
        stops += stopped;
        writes += api.writes;
        credits += u64::from(stored.iter().any(|report| report.lines.values().any(|line| line.credited > 0)));
        allocated += api.allocated().values().sum::<i128>();
    }
    println!(
        "{schedules} schedules, {writes} writes of reports, {stops} stops, {credits} with credits: \
         {allocated} unit-ms allocated, difference 0"
    );
    assert!(
        stops > 3000 && credits > 300,
        "the histories must be eventful: {stops} stops, {credits} credits"
    );
}

#[test]
fn one_that_was_replaced_and_writes_once_more_changes_nothing() {
    let mut conflicts = 0;
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let mut api = Api::default();
        let now_ms = "2026-11".parse::<Month>().unwrap().start_ms() + HOUR_MS;
        let mut old = Keeper::new(&api);
        for number in 0..12 {
            let mut entry = claim(&mut random, number, now_ms);
            api.begin(entry.clone());
            entry.end_ms = Some(now_ms + below(&mut random, DAY_MS));
            api.truth.insert(entry.claim.clone(), entry.clone());
            if random.below(2) == 0 {
                old.watch(&api, usize::MAX);
                old.turn(&mut api, now_ms, BTreeMap::new(), || random.below(6) == 0);
            }
            api.put(entry);
        }
        old.watch(&api, random.below(30));
        let mut new = Keeper::new(&api);
        for _ in 0..40 {
            let is_old = random.below(4) == 0;
            let keeper = if is_old { &mut old } else { &mut new };
            keeper.watch(&api, random.below(6));
            if keeper.turn(&mut api, now_ms + DAY_MS, BTreeMap::new(), || random.below(20) == 0)
                == Turn::Stopped
            {
                conflicts += 1;
                *keeper = Keeper::new(&api);
            }
        }
        for _ in 0..20 {
            new = Keeper::new(&api);
            new.turn(&mut api, now_ms + 60 * DAY_MS, BTreeMap::new(), || false);
        }
        assert_eq!(api.billed(), api.allocated(), "seed {seed}");
    }
    assert!(conflicts > 100, "{conflicts}");
}

#[test]
fn a_month_holds_what_was_held_in_it() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut api = Api::default();
        let mut now_ms = "2027-12".parse::<Month>().unwrap().start_ms() + below(&mut random, 20 * DAY_MS);
        let mut keeper = Keeper::new(&api);
        let mut running: Vec<String> = Vec::new();
        for number in 0..60 {
            let entry = claim(&mut random, number, now_ms);
            running.push(entry.claim.clone());
            api.begin(entry);
            if number == 59 || random.below(2) == 0 {
                let ends = if number == 59 { running.len() } else { 1 };
                for claim in running.split_off(running.len() - ends) {
                    let entry = Entry { end_ms: Some(now_ms + 1), ..api.claims[&claim].clone() };
                    api.truth.insert(claim, entry.clone());
                    api.put(entry);
                }
            }
            let step_ms = below(&mut random, 9 * DAY_MS);
            for _ in 0..12 {
                keeper.watch(&api, usize::MAX);
                keeper.turn(&mut api, now_ms + 2, BTreeMap::new(), || false);
            }
            now_ms += step_ms;
        }
        for _ in 0..40 {
            keeper.turn(&mut api, now_ms + 40 * DAY_MS, BTreeMap::new(), || false);
        }
        let mut billed = BTreeMap::new();
        for report in api.stored().iter().filter(|report| report.pool.is_none()) {
            for (key, amount) in &report.lines {
                assert_eq!(amount.credited, 0, "seed {seed}");
                let line = (report.month, report.subject.name.clone(), key.clone());
                billed.insert(line, i128::from(amount.used));
            }
        }
        let mut allocated = api.allocated_by_month();
        allocated.retain(|_, unit_ms| *unit_ms > 0);
        assert_eq!(billed, allocated, "seed {seed}");
    }
}

fn line(basis: Basis) -> LineKey {
    LineKey { profile: "gpu".into(), class: Class::Sovereign, basis, reserve: Some("east".into()) }
}

fn entry(start_ms: i64) -> Entry {
    Entry {
        claim: "uid".into(),
        tenant: "state".into(),
        class: Class::Sovereign,
        reserve: Some("east".into()),
        profile: "gpu".into(),
        units: 56,
        basis: Basis::Claimed,
        ordinary_from_ms: None,
        start_ms,
        end_ms: None,
        by_rule: false,
    }
}

#[test]
fn an_end_that_is_known_late_is_credited_in_the_open_month() {
    let november: Month = "2026-11".parse().unwrap();
    let (start_ms, end_ms) = (november.end_ms() - 1000, november.end_ms() - 400);
    let mut api = Api::default();
    let mut keeper = Keeper::new(&api);
    let mut work = |api: &mut Api, now_ms| {
        for _ in 0..6 {
            keeper.watch(api, usize::MAX);
            keeper.turn(api, now_ms, BTreeMap::new(), || false);
        }
    };
    api.begin(entry(start_ms));
    work(&mut api, november.end_ms() + SEAL_AFTER_MS - 1);
    let report = |api: &Api, month| api.reports[&(month, Subject::tenant("state"))].1.clone();
    assert!(!report(&api, november).sealed(), "its time has not come");
    work(&mut api, november.end_ms() + SEAL_AFTER_MS);
    let sealed = report(&api, november);
    assert_eq!(sealed.lines[&line(Basis::Claimed)], Amount { used: 56 * 1000, credited: 0 });
    assert_eq!((sealed.carried.contains("uid"), sealed.settled.len()), (true, 0));
    api.put(Entry { end_ms: Some(end_ms), by_rule: true, ..entry(start_ms) });
    work(&mut api, november.end_ms() + DAY_MS);
    let december = report(&api, november.next());
    assert_eq!(december.lines[&line(Basis::Claimed)], Amount { used: 0, credited: 56 * 400 });
    assert_eq!((december.ended_by_rule, api.claims.len()), (1, 0));
    assert_eq!(report(&api, november), sealed);
}

#[test]
fn what_goes_on_without_its_right_is_ordinary_from_then_on() {
    let november: Month = "2026-11".parse().unwrap();
    let start_ms = november.start_ms();
    let mut api = Api::default();
    let turned = Some(start_ms + 300);
    api.put(Entry { end_ms: Some(start_ms + 1000), ordinary_from_ms: turned, ..entry(start_ms) });
    let mut keeper = Keeper::new(&api);
    keeper.turn(&mut api, start_ms + 2000, BTreeMap::new(), || false);
    let lines = &api.reports[&(november, Subject::tenant("state"))].1.lines;
    assert_eq!(lines[&line(Basis::Claimed)].used, 56 * 300);
    assert_eq!(lines[&line(Basis::Ordinary)].used, 56 * 700);
}

#[test]
fn a_pool_is_counted_through_what_nobody_saw() {
    let october: Month = "2026-10".parse().unwrap();
    let mut api = Api::default();
    let mut keeper = Keeper::new(&api);
    let now = |units, fraction_ppm| {
        let now = crate::ledger::PoolNow { units, fraction_ppm, ..Default::default() };
        [("east".to_owned(), now)].into()
    };
    let at_ms = october.start_ms() + DAY_MS;
    keeper.turn(&mut api, at_ms, now(448, 50_000), || false);
    keeper.turn(&mut api, at_ms + DAY_MS, now(504, 100_000), || false);
    // Nobody was there for seven weeks.
    keeper = Keeper::new(&api);
    let later_ms = october.next().next().start_ms() + DAY_MS;
    for _ in 0..4 {
        keeper.turn(&mut api, later_ms, now(448, 50_000), || false);
    }
    let stored = api.stored();
    let names: Vec<(String, bool)> = stored.iter().map(|report| (report.name(), report.sealed())).collect();
    let wanted =
        [("reserve-east-2026-10", true), ("reserve-east-2026-11", true), ("reserve-east-2026-12", false)];
    assert_eq!(names, wanted.map(|(name, sealed)| (name.to_owned(), sealed)));
    let day = 86_400_000;
    let installed = |report: &Report| report.pool.as_ref().unwrap().installed.clone();
    assert_eq!(installed(&stored[0]), [(50_000, 448 * day), (100_000, 504 * 29 * day)].into());
    assert_eq!(installed(&stored[1]), [(100_000, 504 * 30 * day)].into());
    assert_eq!(stored[1].pool.as_ref().unwrap().entitlement(), 504 * 3 * day);
    assert_eq!(installed(&stored[2]), [(100_000, 504 * day)].into());
    verify(&stored).unwrap();
}
