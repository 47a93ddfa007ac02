//! What a year comes to.

use super::tamper::year;
use super::world::HOUR_MS;
use crate::ledger::{Basis, GPU_HOUR, Report, bill, verify};

/// What a year's reports of tenants say, by the plainest reckoning there is.
fn used(reports: &[Report], which: impl Fn(Basis) -> bool) -> i128 {
    let of_year = reports.iter().filter(|report| report.pool.is_none() && report.month.year() == 2026);
    let lines = of_year.flat_map(|report| &report.lines).filter(|(key, _)| which(key.basis));
    lines.map(|(_, amount)| i128::from(amount.used) - i128::from(amount.credited)).sum()
}

#[test]
fn a_reserve_delivered_what_the_tenants_claimed_and_ordered() {
    let reports = year();
    let statement = verify(&reports).unwrap().statement(2026);
    let national = &statement.reserves["national"];
    assert_eq!((statement.months.len(), statement.tenants.len()), (12, 4));
    assert_eq!(national.total.claimed, used(&reports, |basis| basis == Basis::Claimed));
    assert_eq!(national.total.ordered, used(&reports, |basis| basis == Basis::Ordered));
    assert_eq!(national.total.lent, used(&reports, |basis| basis == Basis::Ordinary));
    let sovereign: i128 = statement.tenants.values().map(|tenant| tenant.sovereign).sum();
    assert_eq!((national.total.delivered(), sovereign > 0), (sovereign, true));
    assert_eq!(national.total.delivered.values().sum::<i128>(), sovereign);
    assert_eq!(national.months.values().map(|month| month.claimed).sum::<i128>(), national.total.claimed);
    assert_eq!(national.crises.len(), 7, "one each time that it was looked at in May");
}

#[test]
fn the_entitlement_is_of_the_whole_year() {
    let reports = year();
    let total = &verify(&reports).unwrap().statement(2026).reserves["national"].total;
    // Eight GPUs from the first hour of the year on.
    assert_eq!(total.installed, 8 * u128::from(GPU_HOUR) * (365 * 24 - 1));
    assert_eq!(total.entitlement, total.installed / 20);
    assert!(total.held_ms > 60 * 24 * HOUR_MS.unsigned_abs());
}

#[test]
fn what_tenants_owe_is_the_sum_of_their_bills() {
    let reports = year();
    let statement = verify(&reports).unwrap().statement(2026);
    for (tenant, of_year) in &statement.tenants {
        let of_it =
            reports.iter().filter(|report| report.subject.name == *tenant && report.month.year() == 2026);
        let bills: Vec<_> = of_it.map(|report| bill(report).unwrap()).collect();
        assert!(bills.iter().all(|bill| bill.is_final));
        let lines: i128 = bills.iter().flat_map(|bill| &bill.lines).map(|line| line.cost).sum();
        assert_eq!(of_year.cost["EUR"], lines);
        assert_eq!(bills.iter().map(|bill| bill.total).sum::<i128>(), lines);
        // Each line is rounded to the nearest millionth, no more.
        let exact = of_year.used * 1_187_664 / i128::from(GPU_HOUR);
        assert!(
            (lines - exact).abs() <= 1 + bills.iter().map(|bill| bill.lines.len()).sum::<usize>() as i128 / 2
        );
    }
}

#[test]
fn a_year_without_reports_is_empty() {
    let reports = year();
    let statement = verify(&reports).unwrap().statement(2025);
    assert_eq!((statement.reports, statement.head.as_str(), statement.reserves.len()), (0, "", 0));
}
