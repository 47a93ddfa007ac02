//! `kubectl vingt bill`: what tenants owe, month by month, from the usage
//! reports; nothing is billed from reports that do not hold.

use std::fmt::Write as _;

use anyhow::anyhow;
use serde_json::{Value, json};
use vingt_core::ledger::{Bill, Month, bill, gpu_hours, money};

use crate::api::ConnectArgs;
use crate::attest::{self, class_word};
use crate::screen::{Screen, cell};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub struct BillArgs {
    /// Of this tenant only; with a month, line by line
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Of this month only, as 2026-11
    #[arg(long, value_name = "MONTH")]
    month: Option<Month>,
    #[command(flatten)]
    from: attest::From,
    /// `json`, for programs
    #[arg(short, long, value_parser = ["json"], value_name = "FORMAT")]
    output: Option<String>,
}

/// Runs the command.
pub fn run(args: &BillArgs, connect: &ConnectArgs, screen: Screen) -> anyhow::Result<()> {
    let read = args.from.reports(connect)?;
    let verified = attest::verified(&read).map_err(|faults| attest::refuted(&faults))?;
    let reports = verified.sealed().iter().chain(verified.open());
    let wanted = reports.filter(|report| {
        args.month.is_none_or(|month| report.month == month)
            && args.tenant.as_ref().is_none_or(|tenant| report.subject.name == *tenant)
    });
    let bills: Vec<Bill> = wanted.filter_map(|report| bill(report)).collect();
    if bills.is_empty() {
        return Err(anyhow!("there is no report of a tenant with a price {}", sought(args)));
    }
    if args.output.is_some() {
        println!("{:#}", bills.iter().map(to_json).collect::<Value>());
    } else if args.tenant.is_some() && args.month.is_some() {
        for bill in &bills {
            print!("{}", detailed(bill, screen));
        }
    } else {
        print!("{}", listed(&bills, screen));
    }
    Ok(())
}

fn sought(args: &BillArgs) -> String {
    match (&args.tenant, args.month) {
        (Some(tenant), Some(month)) => format!("for {tenant} in {month}"),
        (Some(tenant), None) => format!("for {tenant}"),
        (None, Some(month)) => format!("in {month}"),
        (None, None) => "yet".to_owned(),
    }
}

/// A line for each bill.
fn listed(bills: &[Bill], screen: Screen) -> String {
    let rows = bills.iter().map(|bill| {
        let net: i128 = bill.lines.iter().map(|line| i128::from(line.amount.net())).sum();
        vec![
            cell(&bill.tenant),
            cell(bill.month.to_string()),
            cell(gpu_hours(net)),
            cell(format!("{} {}", money(bill.total, 2), bill.price.currency)),
            cell(if bill.is_final { "final" } else { "so far" }),
        ]
    });
    screen.table(&["TENANT", "MONTH", "GPU-HOURS", "COST", ""], &[2, 3], rows)
}

/// A bill line by line, and where its price is from.
fn detailed(bill: &Bill, screen: Screen) -> String {
    let Bill { tenant, month, price, .. } = bill;
    let state = if bill.is_final { "final" } else { "so far: the month is open" };
    let mut text = format!("{tenant}, {month}, {state}\n\n");
    let rows = bill.lines.iter().map(|line| {
        vec![
            cell(&line.key.profile),
            cell(class_word(line.key.class)),
            cell(line.key.basis.word()),
            cell(line.key.reserve.as_deref().unwrap_or("-")),
            cell(gpu_hours(line.amount.net().into())),
            cell(money(line.per_gpu_hour.into(), 6)),
            cell(money(line.cost, 2)),
        ]
    });
    let header = ["PROFILE", "CLASS", "RIGHT", "POOL", "GPU-HOURS", "PER GPU-HOUR", "COST"];
    text.push_str(&screen.table(&header, &[4, 5, 6], rows));
    let _ = writeln!(text, "\ntotal {} {}", money(bill.total, 2), price.currency);
    let credited = bill.lines.iter().filter(|line| line.amount.credited > 0).count();
    if credited > 0 {
        text.push_str("with credits: earlier months were sealed before the end of some claims was known\n");
    }
    match price.derivation {
        Some(from) => {
            text.push_str("\nThe price follows from what a GPU costs:\n");
            for line in from.arithmetic(&price.currency) {
                let _ = writeln!(text, "  {line}");
            }
        }
        None => text.push_str("\nThe price is the tenant's price plan.\n"),
    }
    text
}

fn to_json(bill: &Bill) -> Value {
    let lines: Vec<Value> = bill
        .lines
        .iter()
        .map(|line| {
            json!({
                "profile": line.key.profile,
                "class": line.key.class,
                "basis": line.key.basis,
                "reserve": line.key.reserve,
                "unitMs": line.amount.used,
                "creditedUnitMs": line.amount.credited,
                "perGPUHourMicros": line.per_gpu_hour,
                "costMicros": micros(line.cost),
            })
        })
        .collect();
    json!({
        "tenant": bill.tenant,
        "month": bill.month,
        "final": bill.is_final,
        "price": bill.price,
        "lines": lines,
        "totalMicros": micros(bill.total),
    })
}

fn micros(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::tests::sealed;

    const SCREEN: Screen = Screen { width: 80, colours: false, terminal: false };

    fn bills() -> Vec<Bill> {
        sealed().iter().filter_map(bill).collect()
    }

    #[test]
    fn bills_are_listed_by_tenant_and_month() {
        let wanted = "\
TENANT    MONTH    GPU-HOURS        COST
defence   2026-01       48.0   57.01 EUR  final
defence   2026-02       24.0   28.50 EUR  final
mill      2026-02       72.0   85.51 EUR  final
research  2026-01      744.0  883.62 EUR  final
research  2026-02      672.0  798.11 EUR  final
research  2026-03       24.0   28.50 EUR  final
";
        let text = listed(&bills(), SCREEN);
        assert_eq!(text, wanted, "\n{text}");
    }

    #[test]
    fn a_bill_shows_its_arithmetic() {
        let bill =
            bills().into_iter().find(|bill| bill.tenant == "defence" && bill.month.to_string() == "2026-02");
        let wanted = "\
defence, 2026-02, final

PROFILE  CLASS     RIGHT    POOL      GPU-HOURS  PER GPU-HOUR   COST
gpu      security  claimed  national       24.0      1.187664  28.50

total 28.50 EUR

The price follows from what a GPU costs:
  purchase 37500.00 EUR / 43800 h of life = 0.856164 EUR/h
  energy 1.275 kW + 30 % for cooling and losses, at 0.200000 EUR/kWh = 0.331500 EUR/h
  together 1.187664 EUR per GPU-hour
";
        let text = detailed(&bill.unwrap(), SCREEN);
        assert_eq!(text, wanted, "\n{text}");
    }
}
