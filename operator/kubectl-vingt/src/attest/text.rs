//! A statement for reading in a terminal, and the words for its figures.

use std::fmt::Write as _;

use vingt_core::ledger::{Figures, ReserveYear, Statement, gpu_hours, money};
use vingt_core::model::Class;

use crate::lines::Lines;
use crate::screen::{Screen, cell};
use crate::words::{duration, wrap};

/// The statement.
pub fn text(statement: &Statement, notes: &[String], screen: Screen) -> String {
    let mut text = format!(
        "{}, from {} reports: every hash and every sum is right\n",
        statement.year, statement.reports
    );
    if !statement.head.is_empty() {
        let _ = writeln!(text, "head  {}\n      {}", statement.head, statement.head_hash);
    }
    for note in notes {
        for line in wrap(note, usize::from(screen.width)) {
            let _ = writeln!(text, "{line}");
        }
    }
    for (name, year) in &statement.reserves {
        let mut lines = Lines::new(&format!("\nreserve {name}"), screen);
        for (what, words) in figures(year) {
            lines.say(what, &words);
        }
        text.push_str(&lines.text);
        text.push('\n');
        text.push_str(&months(year, screen));
    }
    text.push('\n');
    text.push_str(&tenants(statement, screen));
    text
}

fn months(year: &ReserveYear, screen: Screen) -> String {
    let header = ["MONTH", "INSTALLED", "ENTITLED", "CLAIMED", "ORDERED", "LENT", "EVICTED", "LATE"];
    let rows = year.months.iter().map(|(month, of)| {
        vec![
            cell(month.to_string()),
            cell(hours(of.installed)),
            cell(hours(of.entitlement)),
            cell(gpu_hours(of.claimed)),
            cell(gpu_hours(of.ordered)),
            cell(gpu_hours(of.lent)),
            cell(of.evictions.to_string()),
            cell(of.claims.late.to_string()),
        ]
    });
    screen.table(&header, &[1, 2, 3, 4, 5, 6, 7], rows)
}

fn tenants(statement: &Statement, screen: Screen) -> String {
    let rows = statement.tenants.iter().map(|(name, of)| {
        vec![cell(name), cell(gpu_hours(of.used)), cell(gpu_hours(of.sovereign)), cell(costs(&of.cost))]
    });
    screen.table(&["TENANT", "GPU-HOURS", "SOVEREIGN", "COST"], &[1, 2, 3], rows)
}

/// Money in each currency.
pub fn costs(cost: &std::collections::BTreeMap<String, i128>) -> String {
    let each = cost.iter().map(|(currency, micros)| format!("{} {currency}", money(*micros, 2)));
    let all: Vec<String> = each.collect();
    if all.is_empty() { "no price".to_owned() } else { all.join(", ") }
}

/// Unit-milliseconds as GPU-hours.
pub fn hours(unit_ms: u128) -> String {
    gpu_hours(i128::try_from(unit_ms).unwrap_or(i128::MAX))
}

/// What is said of a reserve's year: what about, and in words.
pub fn figures(year: &ReserveYear) -> Vec<(&'static str, String)> {
    let total = &year.total;
    let installed = i128::try_from(total.installed).unwrap_or(i128::MAX);
    let entitlement = i128::try_from(total.entitlement).unwrap_or(i128::MAX);
    let delivered = total.delivered();
    let mut said = vec![
        ("installed", format!("{} GPU-hours{}", hours(total.installed), maintenance(total))),
        (
            "entitled",
            format!(
                "{} GPU-hours, {} of what was installed",
                hours(total.entitlement),
                share(entitlement, installed)
            ),
        ),
        (
            "delivered",
            format!(
                "{} GPU-hours, {} of what was installed, {} of the entitlement",
                gpu_hours(delivered),
                share(delivered, installed),
                share(delivered, entitlement)
            ),
        ),
        (
            "of these",
            format!(
                "{} taken by preemption, {} under orders",
                gpu_hours(total.claimed),
                gpu_hours(total.ordered)
            ),
        ),
    ];
    if !total.delivered.is_empty() {
        let to = total
            .delivered
            .iter()
            .rev()
            .map(|(class, unit_ms)| format!("{} {}", gpu_hours(*unit_ms), class_word(*class)));
        said.push(("to", to.collect::<Vec<_>>().join(", ")));
    }
    let left = (entitlement - delivered).max(0);
    said.push(("not used", format!("{} GPU-hours of the entitlement", gpu_hours(left))));
    said.push((
        "lent",
        format!("{} GPU-hours of the pool were used by ordinary work", gpu_hours(total.lent)),
    ));
    said.push(("on time", on_time(total)));
    said.push(("orders", orders(total)));
    said.push(("available", available(total)));
    said.push((
        "evictions",
        format!("{}, which lost {} GPU-hours of work", total.evictions, gpu_hours(total.lost.into())),
    ));
    for crisis in &year.crises {
        let time =
            |ms: i64| jiff::Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default();
        let fraction = share(crisis.fraction_ppm.into(), 1_000_000);
        said.push((
            "crisis",
            format!("{} to {}: {fraction}: {}", time(crisis.from_ms), time(crisis.until_ms), crisis.reason),
        ));
    }
    said
}

fn maintenance(total: &Figures) -> String {
    match total.maintenance {
        0 => String::new(),
        out => format!("; {} more were out for announced maintenance", hours(out)),
    }
}

fn on_time(total: &Figures) -> String {
    let claims = total.claims;
    if claims.made == 0 {
        return "no instant claim was made".to_owned();
    }
    let in_time = claims.made.saturating_sub(claims.late);
    let slowest = duration(i64::try_from(claims.slowest_ms).unwrap_or(i64::MAX));
    format!("{in_time} of {} instant claims; the slowest took {slowest}", claims.made)
}

fn orders(total: &Figures) -> String {
    let orders = total.orders;
    format!(
        "{} accepted, {} countered, {} refused; {} began late",
        orders.accepted, orders.countered, orders.refused, orders.late
    )
}

fn available(total: &Figures) -> String {
    let observed = u128::from(total.held_ms) + u128::from(total.not_held_ms);
    if observed == 0 {
        return "nobody looked".to_owned();
    }
    let share = share(total.held_ms.into(), i128::try_from(observed).unwrap_or(i128::MAX));
    let not = duration(i64::try_from(total.not_held_ms).unwrap_or(i64::MAX));
    let looked = duration(i64::try_from(observed).unwrap_or(i64::MAX));
    format!("{share} of the time that it was looked at ({looked}); not for {not}")
}

/// A part of a whole, in percent with two digits; what is not all is never said to be.
pub fn share(part: i128, whole: i128) -> String {
    if whole <= 0 {
        return "0 %".to_owned();
    }
    let hundredths = (part.saturating_mul(10_000).saturating_add(whole / 2)).div_euclid(whole);
    let hundredths = if part < whole { hundredths.min(9_999) } else { hundredths };
    let sign = if hundredths < 0 { "-" } else { "" };
    let hundredths = hundredths.abs();
    format!("{sign}{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// The word for a class.
pub fn class_word(class: Class) -> &'static str {
    match class {
        Class::Standard => "standard",
        Class::Sme => "sme",
        Class::Sovereign => "sovereign",
        Class::Security => "security",
    }
}

#[cfg(test)]
mod tests {
    use vingt_core::ledger::verify;

    use super::super::tests::sealed;
    use super::*;

    #[test]
    fn a_year_is_told_in_80_columns() {
        let reports = sealed();
        let verified = verify(&reports).unwrap();
        let statement = verified.statement(2026);
        let screen = Screen { width: 80, colours: false, terminal: false };
        let text = text(&statement, &["A note.".to_owned()], screen);
        let hash = &verified.head().unwrap().hash;
        let wanted = format!(
            "\
2026, from 9 reports: every hash and every sum is right
head  reserve-national-2026-03
      {hash}
A note.

reserve national
  installed  17280.0 GPU-hours
  entitled   883.2 GPU-hours, 5.11 % of what was installed
  delivered  144.0 GPU-hours, 0.83 % of what was installed, 16.30 % of the
             entitlement
  of these   72.0 taken by preemption, 72.0 under orders
  to         72.0 security, 72.0 sme
  not used   739.2 GPU-hours of the entitlement
  lent       1440.0 GPU-hours of the pool were used by ordinary work
  on time    2 of 2 instant claims; the slowest took 41s
  orders     1 accepted, 0 countered, 0 refused; 0 began late
  available  100.00 % of the time that it was looked at (87d); not for 0s
  evictions  4, which lost 2.0 GPU-hours of work
  crisis     2026-02-10T00:00:00Z to 2026-02-12T00:00:00Z: 10.00 %: flood <in>
             the south

MONTH    INSTALLED  ENTITLED  CLAIMED  ORDERED   LENT  EVICTED  LATE
2026-01     5952.0     297.6     48.0      0.0  744.0        2     0
2026-02     5376.0     288.0     24.0     72.0  672.0        2     0
2026-03     5952.0     297.6      0.0      0.0   24.0        0     0

TENANT    GPU-HOURS  SOVEREIGN         COST
defence        72.0       72.0    85.51 EUR
mill           72.0       72.0    85.51 EUR
research     1440.0        0.0  1710.24 EUR
"
        );
        assert_eq!(text, wanted, "\n{text}");
    }

    #[test]
    fn shares_are_never_more_than_they_are() {
        assert_eq!(share(9_999_999, 10_000_000), "99.99 %");
        assert_eq!(
            [share(5, 100), share(0, 3), share(1, 0), share(-1, 100)],
            ["5.00 %", "0.00 %", "0 %", "-1.00 %"]
        );
    }
}
