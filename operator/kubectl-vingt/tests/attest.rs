//! `attest` and `bill` as users start them, with reports from a file.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use vingt_core::ledger::{Basis, Books, Derivation, Entry, Facts, Month, PoolNow, Report};
use vingt_core::model::Class;

const HOUR_MS: i64 = 3_600_000;

/// The reports of a year in which one tenant claimed a GPU for some hours each month, as kubectl prints them.
fn year() -> Vec<Report> {
    let mut books = Books::default();
    let mut month: Month = "2026-01".parse().unwrap();
    for number in 0..13 {
        let start_ms = month.start_ms();
        let claim = Entry {
            claim: format!("uid-{number}"),
            tenant: "defence".into(),
            class: Class::Security,
            reserve: Some("national".into()),
            profile: "gpu".into(),
            units: 56,
            basis: Basis::Claimed,
            ordinary_from_ms: None,
            start_ms,
            end_ms: Some(start_ms + (number + 1) * HOUR_MS),
            by_rule: false,
        };
        let pool = PoolNow { units: 448, fraction_ppm: 50_000, ..PoolNow::default() };
        for now_ms in [start_ms, start_ms + 24 * HOUR_MS, start_ms + 25 * HOUR_MS] {
            let entries = [claim.clone()];
            let facts = Facts {
                entries: &entries[..usize::from(now_ms == start_ms + 24 * HOUR_MS)],
                prices: [("defence".to_owned(), Derivation::default().plan("EUR"))].into(),
                pools: [("national".to_owned(), pool.clone())].into(),
                now_ms,
                ..Facts::default()
            };
            for report in books.next(&facts).unwrap().writes {
                books.wrote(report);
            }
        }
        month = month.next();
    }
    books.reports().cloned().collect()
}

fn write(at: &Path, reports: &[Report]) {
    let item =
        |report: &Report| json!({"kind": "UsageReport", "metadata": {"name": report.name()}, "spec": report});
    let items: Vec<Value> = reports.iter().map(item).collect();
    std::fs::write(at.join("reports.json"), json!({"kind": "List", "items": items}).to_string()).unwrap();
}

/// Exit code, standard output, standard error.
fn vingt(at: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-vingt"));
    command.args(args).args(["-f", "reports.json"]).current_dir(at).env_remove("KUBECONFIG").env("HOME", at);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_year_is_attested_from_its_reports_alone() {
    let at = tempfile::tempdir().unwrap();
    let reports = year();
    write(at.path(), &reports);
    let (code, text, errors) = vingt(at.path(), &["attest", "--year", "2026"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    assert!(text.starts_with("2026, from 24 reports: every hash and every sum is right\n"), "{text}");
    // 1 + 2 + … + 12 hours of one of 8 GPUs.
    assert!(text.contains("78.0 GPU-hours, 0.11 % of what was installed"), "{text}");
    let (code, text, _) = vingt(at.path(), &["attest", "--year", "2026", "-o", "json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["verified"]), (Some(0), &Value::Bool(true)));
    let total = &json["statement"]["reserves"]["national"]["total"];
    assert_eq!(total["claimed"], 78 * 56 * HOUR_MS);
    assert_eq!(total["entitlement"], 8760 * 448 * HOUR_MS / 20);
    let (code, html, _) = vingt(at.path(), &["attest", "--year", "2026", "-o", "html"]);
    assert_eq!((code, html.matches("<svg").count()), (Some(0), 2));
    assert!(!html.contains("src=") && !html.contains("href="), "it needs nothing else");
}

#[test]
fn whoever_changed_something_is_found_out() {
    let at = tempfile::tempdir().unwrap();
    let mut reports = year();
    let june = reports.iter().position(|report| report.name() == "defence-2026-06").unwrap();
    for line in reports[june].lines.values_mut() {
        line.used -= 1;
    }
    write(at.path(), &reports);
    for args in [&["attest"][..], &["attest", "--head"], &["bill"], &["attest", "-o", "html"]] {
        let (code, text, errors) = vingt(at.path(), args);
        assert_eq!((code, text.as_str()), (Some(1), ""), "{args:?}");
        assert!(
            errors.starts_with("error: the reports do not hold: something is wrong in defence-2026-06"),
            "{errors}"
        );
        assert!(errors.contains("\n  defence-2026-06: hash: "), "{errors}");
        assert!(errors.contains("\n  reserve-national-2026-06: lines: claimed gpu"), "{errors}");
    }
    let (code, text, _) = vingt(at.path(), &["attest", "-o", "json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["faults"][0]["report"]), (Some(1), &"defence-2026-06".into()));
    std::fs::write(at.path().join("reports.json"), "{").unwrap();
    let (code, _, errors) = vingt(at.path(), &["attest"]);
    assert_eq!(code, Some(2), "{errors}");
}

#[test]
fn a_head_that_was_kept_shows_that_the_chain_was_rewritten() {
    let at = tempfile::tempdir().unwrap();
    let mut reports = year();
    write(at.path(), &reports);
    let (_, head, _) = vingt(at.path(), &["attest", "--head"]);
    let (hash, name) = head.trim().split_once(' ').unwrap();
    assert_eq!((hash.len(), name), (64, "reserve-national-2026-12"));
    let (code, _, errors) = vingt(at.path(), &["attest", "--witness", hash]);
    assert_eq!((code, errors.contains("witnessed: reserve-national-2026-12")), (Some(0), true));
    // The owner of the cluster bills less, and makes everything fit again.
    reports.sort_by(|a, b| a.place().cmp(&b.place()));
    let (mut previous, mut used) = (String::new(), BTreeMap::new());
    for report in reports.iter_mut().filter(|report| report.sealed()) {
        if report.pool.is_some() {
            report.lines.clone_from(&used);
        }
        report.lines.values_mut().for_each(|line| line.used -= u64::from(report.pool.is_none()));
        used.clone_from(&report.lines);
        report.previous.clone_from(&previous);
        *report = report.clone().stamped();
        previous.clone_from(&report.hash);
    }
    write(at.path(), &reports);
    assert_eq!(vingt(at.path(), &["attest"]).0, Some(0), "nothing is wrong with it by itself");
    let (code, _, errors) = vingt(at.path(), &["attest", "--witness", hash]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("the chain is not the one that was witnessed"), "{errors}");
}

#[test]
fn a_bill_shows_where_its_price_is_from() {
    let at = tempfile::tempdir().unwrap();
    write(at.path(), &year());
    let (code, text, _) = vingt(at.path(), &["bill", "--tenant", "defence", "--month", "2026-12"]);
    assert_eq!(code, Some(0));
    // 12 hours at 1.187664.
    assert!(
        text.contains("total 14.25 EUR") && text.contains("together 1.187664 EUR per GPU-hour"),
        "{text}"
    );
    let (_, text, _) = vingt(at.path(), &["bill"]);
    assert_eq!((text.lines().count(), text.contains("so far")), (14, true), "{text}");
    let (code, _, errors) = vingt(at.path(), &["bill", "--tenant", "nobody"]);
    assert_eq!(
        (code, errors.as_str()),
        (Some(1), "error: there is no report of a tenant with a price for nobody\n")
    );
}

/// What the script for auditors prints, where there is a Python to run it.
fn by_script(at: &Path) -> Option<(Option<i32>, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verify_reports.py");
    let reports = std::fs::File::open(at.join("reports.json")).unwrap();
    let output = Command::new("python3").arg(script).stdin(reports).output().ok()?;
    Some((output.status.code(), String::from_utf8(output.stdout).unwrap()))
}

#[test]
fn an_auditor_can_do_without_vingt() {
    let at = tempfile::tempdir().unwrap();
    let mut reports = year();
    write(at.path(), &reports);
    let Some(said) = by_script(at.path()) else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let (_, head, _) = vingt(at.path(), &["attest", "--head"]);
    assert_eq!(said, (Some(0), format!("{}\n", head.split_once(' ').unwrap().0)));
    reports[3].ended_by_rule += 1;
    write(at.path(), &reports);
    let (code, text) = by_script(at.path()).unwrap();
    assert_eq!(
        (code, text.lines().count(), text.contains("the hash is not that of its contents")),
        (Some(1), 1, true)
    );
}
