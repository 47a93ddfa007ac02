//! A [`Book`] as text: what is so now in lines, the year as bars, one for each
//! week.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vingt_core::model::Units;
use vingt_crds::{SovereignReserveStatus, TenantClass};

use super::book::{Book, Week, Year};
use crate::lines::{Lines, clock};
use crate::screen::Screen;
use crate::words;

/// Rows of the bars.
const ROWS: u64 = 8;

/// Columns of the gauge of tokens.
const GAUGE: u64 = 20;

/// Columns before the bars.
const MARGIN: usize = 11;

/// Colours of what was claimed and of what was ordered.
const CLAIMED: usize = 0;
const ORDERED: usize = 5;

/// A reserve, as of `now`, with times in `zone`.
pub fn book(book: &Book, now: Timestamp, zone: &TimeZone, screen: Screen) -> String {
    let Book { name, spec, status, year } = book;
    let classes: Vec<&str> = spec.classes.iter().copied().map(TenantClass::as_str).collect();
    let first = format!(
        "{name}: {} of {} over {} days, for {}",
        spec.fraction,
        words::count(usize::try_from(status.installed_gpus).unwrap_or(usize::MAX), "GPU"),
        spec.window_days,
        classes.join(", ")
    );
    let mut lines = Lines::new(&first, screen);
    let at = |time: Timestamp| clock(time, now, zone);
    match &status.proof {
        Some(proof) if proof.holds => {
            lines.say(
                "now",
                &format!(
                    "the instant claim is deliverable within {} s (proved at {})",
                    spec.instant_claim.within_seconds,
                    at(proof.as_of.0)
                ),
            );
        }
        Some(proof) => lines.say(
            "now",
            &format!(
                "the instant claim is NOT deliverable (since the proof of {}): {}",
                at(proof.as_of.0),
                proof.missing
            ),
        ),
        None if status.observed_generation.is_none() => {
            lines.say("now", "not looked at yet: is the operator running?");
        }
        None => {}
    }
    let mut label = "claim now";
    for shape in &status.claimable {
        let free = if shape.free >= shape.now {
            "all free".to_owned()
        } else {
            format!("{} free, else others leave", shape.free)
        };
        let free = if shape.now == 0 { String::new() } else { format!(" ({free})") };
        let claimed = if shape.claimed == 0 { String::new() } else { format!("; {} claimed", shape.claimed) };
        lines.say(label, &format!("{} of {}{free}{claimed}", shape.now, shape.shape));
        label = "";
    }
    if let Some(tokens) = &status.tokens {
        let dry = tokens
            .runs_dry_at
            .as_ref()
            .map(|dry| format!("; spent by {} if what is claimed runs on", at(dry.0)));
        lines.say(
            "tokens",
            &format!(
                "{} {} of {} GPU-hours{}",
                gauge(tokens.unit_ms, tokens.depth_unit_ms),
                gpu_hours(tokens.unit_ms),
                gpu_hours(tokens.depth_unit_ms),
                dry.unwrap_or_default()
            ),
        );
    }
    if let Some(year) = &status.year {
        let delivered = year.claimed_unit_ms.saturating_add(year.ordered_unit_ms);
        lines.say(
            "year",
            &format!(
                "{} of {} GPU-hours delivered{}: {} claimed, {} ordered",
                gpu_hours(delivered),
                gpu_hours(year.entitled_unit_ms),
                share(delivered, year.entitled_unit_ms),
                gpu_hours(year.claimed_unit_ms),
                gpu_hours(year.ordered_unit_ms)
            ),
        );
    }
    held(status, &mut lines);
    if let Some(next) = &status.next_order {
        lines.say("next order", &format!("{}/{} at {}", next.namespace, next.name, at(next.from.0)));
    }
    if let Some(crisis) = &status.crisis {
        lines.say("crisis", &format!("{} until {}: {}", crisis.fraction, at(crisis.until.0), crisis.reason));
    }
    for condition in &status.conditions {
        if condition.type_ == "Ready" && condition.status != "True" {
            lines.say("not ready", &condition.message);
        }
    }
    let mut text = lines.text;
    if let Some(year) = year {
        text.push('\n');
        bars(year, screen, &mut text);
    }
    text
}

/// Who holds and who borrows.
fn held(status: &SovereignReserveStatus, lines: &mut Lines) {
    let mut label = "held by";
    for holder in &status.claimed_now {
        let (class, basis) = (holder.class.as_str(), holder.basis.as_str());
        lines
            .say(label, &format!("{} ({class}): {} GPUs, {basis}", holder.tenant, words::gpus(holder.units)));
        label = "";
    }
    if let Some(lent) = status.lent.as_ref().filter(|lent| lent.units > 0) {
        let to: Vec<String> =
            lent.to.iter().map(|to| format!("{} {}", to.tenant, words::gpus(to.units))).collect();
        let to = if to.is_empty() { String::new() } else { format!(": {}", to.join(", ")) };
        lines.say("lent", &format!("{} GPUs{to}", words::gpus(lent.units)));
    }
}

/// Unit-milliseconds as GPU-hours.
fn gpu_hours(unit_ms: u64) -> String {
    vingt_core::ledger::gpu_hours(unit_ms.into())
}

/// A part of a whole as a bar.
fn gauge(part: Units, whole: Units) -> String {
    let full = part.saturating_mul(GAUGE).checked_div(whole).unwrap_or(0).min(GAUGE);
    let full = usize::try_from(full).unwrap_or(0);
    format!("{}{}", "█".repeat(full), "░".repeat(usize::try_from(GAUGE).unwrap_or(0) - full))
}

/// A part of a whole in per cent.
fn share(part: u64, whole: u64) -> String {
    let percent = u128::from(part) * 100;
    percent.checked_div(whole.into()).map(|percent| format!(" ({percent} %)")).unwrap_or_default()
}

/// The weeks as bars, with what there is a right to as a line.
fn bars(year: &Year, screen: Screen, text: &mut String) {
    let room = usize::from(screen.width).saturating_sub(MARGIN).max(20);
    let weeks = &year.weeks[year.weeks.len().saturating_sub(room)..];
    let top = weeks.iter().map(|week| week.entitled.max(week.claimed.saturating_add(week.ordered))).max();
    let top = top.unwrap_or(0).max(1);
    text.push_str("GPU-hours of each week\n");
    // How many rows an amount fills; what is there at all fills one.
    let rows = |amount: u64| {
        let rows = u128::from(amount) * u128::from(ROWS) * 2 / u128::from(top);
        let rows = u64::try_from(rows.div_ceil(2)).unwrap_or(ROWS);
        if amount > 0 { rows.max(1) } else { 0 }
    };
    for row in (1..=ROWS).rev() {
        let label = if row == ROWS { gpu_hours(top) } else { String::new() };
        let line: String = weeks.iter().map(|week| block(week, row, rows, screen)).collect();
        let _ = writeln!(text, "{}", format!("{label:>9} {line}").trim_end());
    }
    let _ = writeln!(text, "{:9} {}", "", months(weeks).trim_end());
    let (claimed, ordered) = (screen.paint(CLAIMED, "█"), screen.paint(ORDERED, "▓"));
    let (to_come, booked) = (screen.paint(CLAIMED, "░"), screen.paint(ORDERED, "▒"));
    let _ = writeln!(
        text,
        "{claimed} claimed  {ordered} ordered  {booked} booked  {to_come} as in the last 28 days  ─ entitled"
    );
    let then = format!(
        "in 13 weeks, if it goes on like this: {} of {} GPU-hours of the year delivered{}",
        gpu_hours(year.delivered_then),
        gpu_hours(year.entitled_then),
        share(year.delivered_then, year.entitled_then)
    );
    for line in words::wrap(&then, usize::from(screen.width)) {
        let _ = writeln!(text, "{line}");
    }
}

/// What a row of a week's bar shows.
fn block(week: &Week, row: u64, rows: impl Fn(u64) -> u64, screen: Screen) -> String {
    let claimed = rows(week.claimed);
    let all = rows(week.claimed.saturating_add(week.ordered)).max(claimed);
    match (week.to_come, row) {
        (false, row) if row <= claimed => screen.paint(CLAIMED, "█"),
        (true, row) if row <= claimed => screen.paint(CLAIMED, "░"),
        (false, row) if row <= all => screen.paint(ORDERED, "▓"),
        (true, row) if row <= all => screen.paint(ORDERED, "▒"),
        (_, row) if week.entitled > 0 && row == rows(week.entitled) => "─".to_owned(),
        _ => " ".to_owned(),
    }
}

/// The names of the months under the weeks in which they begin.
fn months(weeks: &[Week]) -> String {
    let mut line: Vec<char> = vec![' '; weeks.len() + 3];
    let mut free = 0;
    for (index, week) in weeks.iter().enumerate() {
        if week.from.day() <= 7 && index >= free {
            for (offset, letter) in week.from.strftime("%b").to_string().chars().enumerate() {
                if let Some(at) = line.get_mut(index + offset) {
                    *at = letter;
                }
            }
            free = index + 4;
        }
    }
    line.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::book::tests::reserve;
    use super::*;

    const SCREEN: Screen = Screen { width: 80, colours: false, terminal: false };

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_reserve_is_told_in_lines_and_bars() {
        let told = book(&Book::of(&reserve(now()), &[], now()), now(), &TimeZone::UTC, SCREEN);
        let (lines, drawn) = told.split_once("\n\n").unwrap();
        assert_eq!(
            lines,
            "\
national: 5% of 64 GPUs over 365 days, for sme, sovereign, security
  now        the instant claim is deliverable within 60 s (proved at 12:00)
  claim now  1 of 1 × GPU (all free)
             1 of 2 × 3g.40gb (0 free, else others leave); 1 claimed
  tokens     ██████████░░░░░░░░░░ 1152.0 of 2304.0 GPU-hours
  year       672.0 of 24000.0 GPU-hours delivered (2 %): 672.0 claimed, 0.0
             ordered
  held by    civil (sovereign): 0.5 GPUs, claimed
  lent       3.5 GPUs: research 2, serving 1.5"
        );
        let rows: Vec<&str> = drawn.lines().collect();
        assert_eq!(rows[0], "GPU-hours of each week");
        assert!(rows[1].starts_with("    537.6 ") && rows[1].contains("─────"), "{drawn}");
        assert!(rows[8].contains('█') && rows[8].contains('░'), "{drawn}");
        assert_eq!(rows.len(), 1 + 8 + 1 + 3, "{drawn}");
        assert!(rows.iter().all(|row| row.chars().count() <= 80), "{drawn}");
        assert!(rows[9].trim_start().starts_with("Dec  Jan Feb") && rows[9].ends_with("Jan Feb"), "{drawn}");
    }

    #[test]
    fn a_reserve_that_cannot_deliver_says_what_is_missing() {
        let mut reserve = reserve(now());
        let status = reserve.status.as_mut().unwrap();
        let proof = status.proof.as_mut().unwrap();
        (proof.holds, proof.missing) = (false, "1 × GPU does not fit".to_owned());
        let told = book(&Book::of(&reserve, &[], now()), now(), &TimeZone::UTC, SCREEN);
        assert!(told.contains("is NOT deliverable") && told.contains("× GPU does not fit"), "{told}");
    }

    #[test]
    fn bars_fit_a_narrow_screen_and_show_the_latest() {
        let narrow = Screen { width: 40, ..SCREEN };
        let told = book(&Book::of(&reserve(now()), &[], now()), now(), &TimeZone::UTC, narrow);
        let drawn = told.split_once("GPU-hours of each week\n").unwrap().1;
        let bars: Vec<&str> = drawn.lines().take(8).collect();
        assert!(bars.iter().all(|row| row.chars().count() <= 40), "{drawn}");
        assert!(bars[7].ends_with('░'), "{drawn}");
    }
}
