//! The bytes, the hash, and what verification finds in reports that hang
//! together wrongly.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tamper::year;
use super::world::price;
use crate::ledger::{
    Amount, Basis, ClaimCount, CrisisRecord, Derivation, Fault, LineKey, OrderCount, Pool, PricePlan, Report,
    Subject, Summary, canonical, hash, verify,
};
use crate::model::Class;

/// Reads canonical bytes again, without looking at how they are written.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn text(&mut self) -> String {
        let colon = self.0.iter().position(|byte| *byte == b':').unwrap();
        let length: usize = std::str::from_utf8(&self.0[..colon]).unwrap().parse().unwrap();
        let (value, rest) = self.0[colon + 1..].split_at(length);
        assert_eq!(rest[0], b',');
        self.0 = &rest[1..];
        String::from_utf8(value.to_vec()).unwrap()
    }

    fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(&mut self) -> T {
        self.text().parse().unwrap()
    }

    fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.text() == "1").then(|| read(self))
    }

    fn each<T>(&mut self, mut read: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.number::<usize>()).map(|_| read(self)).collect()
    }

    fn word<T: serde::de::DeserializeOwned>(&mut self) -> T {
        serde_json::from_value(self.text().into()).unwrap()
    }

    fn report(&mut self) -> Report {
        let version = self.text().strip_prefix("vingt.dev/usage-report/").unwrap().parse().unwrap();
        let subject = Subject { kind: self.word(), name: self.text() };
        let mut report = Report { version, ..Report::open(subject, self.number()) };
        report.sealed_ms = self.maybe(Self::number);
        let line = |from: &mut Self| {
            let (profile, class, basis) = (from.text(), from.word(), from.word());
            let key = LineKey { profile, class, basis, reserve: from.maybe(Self::text) };
            (key, Amount { used: from.number(), credited: from.number() })
        };
        report.lines = self.each(line).into_iter().collect();
        report.settled = self.each(Self::text).into_iter().collect();
        report.carried = self.each(Self::text).into_iter().collect();
        report.ended_by_rule = self.number();
        report.price = self.maybe(|from| PricePlan {
            currency: from.text(),
            per_gpu_hour: from.number(),
            profiles: from.each(|from| (from.text(), from.number())).into_iter().collect(),
            derivation: from.maybe(|from| Derivation {
                purchase: from.number(),
                life_hours: from.number(),
                power_watts: from.number(),
                overhead_percent: from.number(),
                energy_per_kwh: from.number(),
            }),
        });
        report.pool = self.maybe(|from| Pool {
            as_of_ms: from.number(),
            units: from.number(),
            fraction_ppm: from.number(),
            installed: from.each(|from| (from.number(), from.number())).into_iter().collect(),
            maintenance: from.number(),
            held_ms: from.number(),
            not_held_ms: from.number(),
            claims: ClaimCount { made: from.number(), late: from.number(), slowest_ms: from.number() },
            orders: OrderCount {
                accepted: from.number(),
                countered: from.number(),
                refused: from.number(),
                late: from.number(),
            },
            evictions: from.number(),
            lost: from.number(),
            crises: from.each(|from| CrisisRecord {
                from_ms: from.number(),
                until_ms: from.number(),
                fraction_ppm: from.number(),
                reason: from.text(),
            }),
        });
        report.previous = self.text();
        report
    }
}

fn text() -> impl Strategy<Value = String> {
    // Whatever could be mistaken for something of the encoding.
    "[a-c0-2:,é ]{0,6}"
}

fn line() -> impl Strategy<Value = (LineKey, Amount)> {
    let class = prop::sample::select(vec![Class::Standard, Class::Sme, Class::Sovereign, Class::Security]);
    let basis = prop::sample::select(vec![Basis::Ordinary, Basis::Claimed, Basis::Ordered]);
    (text(), class, basis, prop::option::of(text()), any::<u64>(), 0..3_u64).prop_map(
        |(profile, class, basis, reserve, used, credited)| {
            (LineKey { profile, class, basis, reserve }, Amount { used, credited })
        },
    )
}

fn pool() -> impl Strategy<Value = Pool> {
    let crisis = (any::<i64>(), any::<i64>(), any::<u32>(), text()).prop_map(
        |(from_ms, until_ms, fraction_ppm, reason)| CrisisRecord { from_ms, until_ms, fraction_ppm, reason },
    );
    let amounts = prop::collection::vec(any::<u64>(), 13);
    let installed = prop::collection::btree_map(any::<u32>(), any::<u64>(), 0..3);
    (any::<i64>(), any::<u32>(), installed, amounts, prop::collection::vec(crisis, 0..3)).prop_map(
        |(as_of_ms, fraction_ppm, installed, n, crises)| Pool {
            as_of_ms,
            units: n[0],
            fraction_ppm,
            installed,
            maintenance: n[1],
            held_ms: n[2],
            not_held_ms: n[3],
            claims: ClaimCount { made: n[4], late: n[5], slowest_ms: n[6] },
            orders: OrderCount { accepted: n[7], countered: n[8], refused: n[9], late: n[10] },
            evictions: n[11],
            lost: n[12],
            crises,
        },
    )
}

fn plan() -> impl Strategy<Value = PricePlan> {
    let profiles = prop::collection::btree_map(text(), any::<u64>(), 0..3);
    let from = (any::<u64>(), any::<[u32; 3]>(), any::<u64>()).prop_map(|(purchase, n, energy_per_kwh)| {
        Derivation { purchase, life_hours: n[0], power_watts: n[1], overhead_percent: n[2], energy_per_kwh }
    });
    (text(), any::<u64>(), profiles, prop::option::of(from)).prop_map(
        |(currency, per_gpu_hour, profiles, derivation)| PricePlan {
            currency,
            per_gpu_hour,
            profiles,
            derivation,
        },
    )
}

fn report() -> impl Strategy<Value = Report> {
    let lists = (prop::collection::btree_set(text(), 0..3), prop::collection::btree_set(text(), 0..3));
    let lines = prop::collection::btree_map(text(), line(), 0..3);
    let rest =
        (prop::option::of(any::<i64>()), any::<u64>(), prop::option::of(plan()), prop::option::of(pool()));
    (any::<bool>(), text(), lines, lists, rest, text()).prop_map(
        |(is_tenant, name, lines, (settled, carried), (sealed_ms, ended_by_rule, price, pool), previous)| {
            let subject = if is_tenant { Subject::tenant(name) } else { Subject::reserve(name) };
            let lines: BTreeMap<LineKey, Amount> = lines.into_values().collect();
            let report = Report::open(subject, "2026-11".parse().unwrap());
            Report { sealed_ms, lines, settled, carried, ended_by_rule, price, pool, previous, ..report }
        },
    )
}

proptest! {
    #[test]
    fn what_the_bytes_say_can_be_said_in_one_way_only(report in report()) {
        let bytes = canonical(&report);
        let mut reader = Reader(&bytes);
        let read = reader.report();
        prop_assert!(reader.0.is_empty());
        prop_assert_eq!(canonical(&read), bytes);
        let plain = |report: Report| Report { summary: Summary::default(), hash: String::new(), ..report };
        prop_assert_eq!(plain(read), plain(report));
    }

    #[test]
    fn what_is_written_as_json_is_read_again(report in report()) {
        let text = serde_json::to_string(&report).unwrap();
        prop_assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}

/// A report in which nothing is missing.
fn full() -> Report {
    let key = LineKey {
        profile: "3g.40gb".into(),
        class: Class::Sovereign,
        basis: Basis::Claimed,
        reserve: Some("national".into()),
    };
    Report {
        sealed_ms: Some(1_796_083_200_000),
        lines: [(key, Amount { used: 1000, credited: 7 })].into(),
        settled: BTreeSet::from(["a".to_owned()]),
        carried: BTreeSet::from(["b".to_owned(), "c".to_owned()]),
        ended_by_rule: 1,
        price: Some(price()),
        previous: "00".into(),
        ..Report::open(Subject::tenant("research"), "2026-11".parse().unwrap())
    }
}

#[test]
fn the_bytes_are_these() {
    let wanted = "24:vingt.dev/usage-report/1,6:tenant,8:research,7:2026-11,1:1,13:1796083200000,1:1,\
                  7:3g.40gb,9:sovereign,7:claimed,1:1,8:national,4:1000,1:7,1:1,1:a,1:2,1:b,1:c,1:1,1:1,3:EUR,\
                  7:1187664,1:0,1:1,11:37500000000,5:43800,4:1275,2:30,6:200000,1:0,2:00,";
    assert_eq!(String::from_utf8(canonical(&full())).unwrap(), wanted, "another encoding is another version");
    assert_eq!(hash(&full()), "f452ba9eb3c33b9b54cbd26562d39272853e75dfa56ce2ce80a21b750d70dd82");
}

/// What verification says of reports after something was done to them.
fn faults(mut change: impl FnMut(&mut Vec<Report>)) -> Vec<String> {
    let mut reports = year();
    change(&mut reports);
    verify(&reports).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// Hashes a report anew, as somebody would who knows how.
fn again(report: &mut Report) {
    *report = report.clone().stamped();
}

fn at(reports: &[Report], name: &str) -> usize {
    reports.iter().position(|report| report.name() == name).unwrap()
}

#[test]
fn one_that_is_missing_is_missed() {
    let found = faults(|reports| {
        reports.remove(at(reports, "mill-2026-06"));
    });
    let wanted = "research-2026-06: previous: it is not the hash of defence-2026-06, which is before it here: one \
                  of the two was changed, or one between them is missing";
    assert_eq!(found[0], wanted, "{found:#?}");
}

#[test]
fn one_that_is_changed_and_hashed_anew_does_not_fit_the_chain() {
    let found = faults(|reports| {
        let index = at(reports, "mill-2026-06");
        reports[index].ended_by_rule += 1;
        again(&mut reports[index]);
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("research-2026-06: previous: it is not the hash of mill-2026-06,"),
        "{found:#?}"
    );
}

/// Changes a report and makes the chain whole again from there on.
fn rewritten(name: &str, change: impl Fn(&mut Report)) -> Vec<String> {
    faults(|reports| {
        change(reports.iter_mut().find(|report| report.name() == name).unwrap());
        reports.sort_by(|a, b| a.place().cmp(&b.place()));
        let mut previous = String::new();
        for report in reports.iter_mut().filter(|report| report.sealed()) {
            report.previous = previous;
            again(report);
            previous = report.hash.clone();
        }
    })
}

#[test]
fn even_if_the_whole_chain_is_rewritten_the_sums_must_be_right() {
    assert_eq!(rewritten("mill-2026-06", |_| ()), Vec::<String>::new());
    let found = rewritten("mill-2026-06", |report| {
        report.lines.values_mut().next().unwrap().used += 1;
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("reserve-national-2026-06: lines: "), "{found:#?}");
    let found = rewritten("reserve-national-2026-06", |report| report.lines.clear());
    assert!(found.iter().all(|fault| fault.starts_with("reserve-national-2026-06: lines: ")), "{found:#?}");
    assert!(found.len() > 1, "{found:#?}");
    let found = rewritten("reserve-national-2026-06", |report| report.subject.name = "other".into());
    assert!(
        found
            .iter()
            .any(|fault| fault.starts_with("mill-2026-06: lines: there is no report of reserve national")),
        "{found:#?}"
    );
}

#[test]
fn each_thing_that_cannot_be_is_named_with_its_field() {
    type Change = fn(&mut Report);
    let cases: [(&str, &str, Change); 13] = [
        ("mill-2026-06", "version", |report| report.version = 2),
        ("mill-2026-06", "subject.name", |report| report.subject.name.clear()),
        ("mill-2026-06", "sealedMs", |report| report.sealed_ms = Some(5)),
        ("mill-2026-06", "price.perGPUHourMicros", |report| report.price.as_mut().unwrap().per_gpu_hour += 1),
        ("mill-2026-06", "pool", |report| report.pool = Some(Pool::default())),
        ("mill-2026-06", "carried", |report| {
            report.carried.insert("x".into());
            report.settled.insert("x".into());
        }),
        ("reserve-national-2026-06", "pool", |report| report.pool = None),
        ("reserve-national-2026-06", "subject.kind", |report| report.price = Some(price())),
        ("reserve-national-2026-06", "pool.asOfMs", |report| report.pool.as_mut().unwrap().as_of_ms -= 1),
        ("reserve-national-2026-06", "pool.heldMs", |report| {
            report.pool.as_mut().unwrap().held_ms = u64::MAX;
        }),
        ("reserve-national-2026-06", "pool.claims.late", |report| {
            report.pool.as_mut().unwrap().claims.late = 9999;
        }),
        ("reserve-national-2026-06", "pool.installed", |report| {
            report.pool.as_mut().unwrap().installed.insert(1_000_001, 1);
        }),
        ("reserve-national-2026-06", "pool.crises", |report| {
            report.pool.as_mut().unwrap().crises.push(CrisisRecord::default());
        }),
    ];
    for (name, field, change) in cases {
        let found = rewritten(name, change);
        let named = if field == "subject.name" { "-2026-06" } else { name };
        let wanted = format!("{named}: {field}: ");
        assert!(found.iter().any(|fault| fault.starts_with(&wanted)), "{wanted}\n{found:#?}");
    }
}

#[test]
fn the_summary_must_follow() {
    let mut reports = year();
    reports[3].summary.cost = "0.00 EUR".into();
    let found = verify(&reports).unwrap_err();
    let [Fault { report, field, .. }] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((report, field.as_str()), (&reports[3].name(), "summary.cost"));
}

#[test]
fn two_reports_of_the_same_and_open_ones_in_between_are_found() {
    let found = faults(|reports| reports.push(reports[5].clone()));
    assert!(found.iter().any(|fault| fault.contains("subject: there are two reports of it")), "{found:#?}");
    let found = faults(|reports| {
        let open = Report::open(Subject::tenant("late"), "2026-06".parse().unwrap());
        reports.push(open);
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("late-2026-06: sealedMs: it is open, while "), "{found:#?}");
}
