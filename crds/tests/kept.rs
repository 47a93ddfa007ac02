//! The kinds hold whole what the core keeps: the API server drops fields that
//! a schema does not have, and a report that lacks one has another hash.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use vingt_core::ledger::{
    Amount, Basis, ClaimCount, CrisisRecord, Derivation, LineKey, Month, OrderCount, Pool, PricePlan, Report,
    Subject, Summary,
};
use vingt_core::model::{Class, UNITS_PER_GPU};
use vingt_core::reserve::{Account, Now, Terms};
use vingt_crds::{ReserveAccount, UsageReportSpec};

/// What is left of `kept` when it was read as a kind's part and written again.
fn stored<K: DeserializeOwned + Serialize>(kept: &impl Serialize) -> serde_json::Value {
    let read: K = serde_json::from_value(serde_json::to_value(kept).unwrap()).unwrap();
    serde_json::to_value(read).unwrap()
}

/// A report with everything that one can have. A field that is added has to be added here.
fn report() -> Report {
    let key = |basis, reserve: Option<&str>| LineKey {
        profile: "3g.40gb".into(),
        class: Class::Security,
        basis,
        reserve: reserve.map(Into::into),
    };
    Report {
        version: 1,
        subject: Subject::reserve("national"),
        month: "2026-11".parse::<Month>().unwrap(),
        sealed_ms: Some(1),
        lines: [
            (key(Basis::Ordinary, None), Amount { used: u64::from(u32::MAX) * 4096, credited: 0 }),
            (key(Basis::Claimed, Some("national")), Amount { used: 2, credited: 3 }),
            (key(Basis::Ordered, Some("national")), Amount { used: 0, credited: 4 }),
        ]
        .into(),
        settled: ["a".to_owned()].into(),
        carried: ["b".to_owned()].into(),
        ended_by_rule: 5,
        price: Some(PricePlan {
            currency: "EUR".into(),
            per_gpu_hour: 6,
            profiles: [("1g.10gb".to_owned(), 7)].into(),
            derivation: Some(Derivation::default()),
        }),
        pool: Some(Pool {
            as_of_ms: 8,
            units: 9,
            fraction_ppm: 10,
            installed: [(50_000, 11)].into(),
            maintenance: 12,
            held_ms: 13,
            not_held_ms: 14,
            claims: ClaimCount { made: 15, late: 16, slowest_ms: 17 },
            orders: OrderCount { accepted: 18, countered: 19, refused: 20, late: 21 },
            evictions: 22,
            lost: 23,
            crises: vec![CrisisRecord {
                from_ms: 24,
                until_ms: 25,
                fraction_ppm: 26,
                reason: "flood".into(),
            }],
        }),
        summary: Summary { gpu_hours: "27".into(), sovereign_gpu_hours: "28".into(), cost: "29 EUR".into() },
        previous: "30".into(),
        hash: "31".into(),
    }
}

#[test]
fn a_usage_report_holds_a_whole_report() {
    let report = report();
    assert_eq!(stored::<UsageReportSpec>(&report), serde_json::to_value(&report).unwrap());
    let open = Report::open(Subject::tenant("research"), report.month);
    assert_eq!(stored::<UsageReportSpec>(&open), serde_json::to_value(&open).unwrap());
}

#[test]
fn a_reserves_status_holds_a_whole_account() {
    let terms = Terms { fraction_ppm: 33_333, depth_ms: 2_592_000_000 };
    let mut account = Account::open(365, 1_795_000_000_123, terms, 7 * UNITS_PER_GPU);
    let now = Now { terms, crisis: None, installed: 7 * UNITS_PER_GPU, booked: &[] };
    account.advance(1_795_100_000_456, &now, 28, 14);
    let kept = serde_json::to_value(&account).unwrap();
    assert_eq!(kept["window"]["days"].as_object().map(serde_json::Map::len), Some(2), "{kept}");
    assert_eq!(stored::<ReserveAccount>(&account), kept);
}
