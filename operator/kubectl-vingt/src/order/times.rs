//! Times and lengths of time as people write them. One that is not, or is
//! twice, because the clocks are changed, is refused with what to write instead.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp};

use crate::words::BadInput;

/// The time that `text` means: `2026-12-01T08:00+01:00`, `2026-12-01 08:00` in `zone`, or `+2h` from now.
pub fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, BadInput> {
    if let Some(length) = text.strip_prefix('+') {
        return after(now, length, zone);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let civil: DateTime = text.parse().map_err(|_| {
        BadInput(format!(
            "{text:?} is not a time: write for example 2026-12-01T08:00+01:00, \"2026-12-01 08:00\" (your time zone), or +2h"
        ))
    })?;
    let ambiguous = zone.to_ambiguous_zoned(civil);
    let twice = |what: &str, before, after| {
        BadInput(format!(
            "the clocks are changed then, and {text} {what}: write {civil}{before} or {civil}{after}"
        ))
    };
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => {}
        AmbiguousOffset::Gap { before, after } => return Err(twice("is left out", before, after)),
        AmbiguousOffset::Fold { before, after } => return Err(twice("is twice", before, after)),
    }
    let unusable = |error: jiff::Error| BadInput(format!("{text:?} is not a time that can be used: {error}"));
    Ok(ambiguous.unambiguous().map_err(unusable)?.timestamp())
}

/// The time that is so much later: `60h`, `2d 12h`. A day is until the same time of the next one.
pub fn after(from: Timestamp, length: &str, zone: &TimeZone) -> Result<Timestamp, BadInput> {
    let span: Span = length.parse().map_err(|_| {
        BadInput(format!("{length:?} is not a length of time: write for example 90m, 60h or 2d"))
    })?;
    if span.is_negative() || span.is_zero() {
        return Err(BadInput(format!("{length:?} is no time at all: write for example 90m, 60h or 2d")));
    }
    let until = from.to_zoned(zone.clone()).checked_add(span);
    until.map(|until| until.timestamp()).map_err(|error| BadInput(format!("{length:?} is too long: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn said(text: &str) -> Result<String, String> {
        let now = "2026-11-24T12:00:00Z".parse().unwrap();
        moment(text, now, &berlin()).map(|time| time.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_what_they_say() {
        assert_eq!(said("2026-12-01T08:00:00+01:00").unwrap(), "2026-12-01T07:00:00Z");
        assert_eq!(said("2026-12-01T08:00Z").unwrap(), "2026-12-01T08:00:00Z");
        assert_eq!(said("2026-12-01 08:00").unwrap(), "2026-12-01T07:00:00Z");
        assert_eq!(said("2027-07-01T08:00").unwrap(), "2027-07-01T06:00:00Z", "in summer");
        assert_eq!(said("2028-02-29").unwrap(), "2028-02-28T23:00:00Z", "a leap day begins");
        assert_eq!(said("+90m").unwrap(), "2026-11-24T13:30:00Z");
        for wrong in ["soon", "", "2027-02-29 08:00", "2026-12-01T25:00", "+", "+2 bananas", "+-2h"] {
            assert!(said(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_that_is_twice_or_not_at_all_is_refused_with_both() {
        let gap = "the clocks are changed then, and 2027-03-28 02:30 is left out: write 2027-03-28T02:30:00+01 or \
                   2027-03-28T02:30:00+02";
        assert_eq!(said("2027-03-28 02:30").unwrap_err(), gap);
        let fold = "the clocks are changed then, and 2026-10-25 02:30 is twice: write 2026-10-25T02:30:00+02 or \
                    2026-10-25T02:30:00+01";
        assert_eq!(said("2026-10-25 02:30").unwrap_err(), fold);
        assert_eq!(
            said("2026-10-25T02:30:00+02").unwrap(),
            "2026-10-25T00:30:00Z",
            "and then it can be used"
        );
    }

    #[test]
    fn a_day_lasts_until_the_same_time_and_hours_are_hours() {
        let from: Timestamp = "2027-03-27T11:00:00Z".parse().unwrap();
        let until = |length| after(from, length, &berlin()).unwrap().to_string();
        assert_eq!(
            until("1d"),
            "2027-03-28T10:00:00Z",
            "the day in which the clocks are changed has 23 hours"
        );
        assert_eq!(until("24h"), "2027-03-28T11:00:00Z");
        assert!(after(from, "0h", &berlin()).is_err());
        assert!(after(from, "99999y", &berlin()).is_err());
    }
}
