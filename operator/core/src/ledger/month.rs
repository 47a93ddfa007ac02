//! Months of the calendar in UTC, as the ledger divides time: exact, with leap
//! days, without leap seconds (Unix time has none). Local time is not known here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Days before a month of a year that begins in March.
fn days_before(from_march: i64) -> i64 {
    (153 * from_march + 2) / 5
}

/// A month, UTC, of the years 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month {
    year: i32,
    month: u8,
}

impl Month {
    /// The month, if there is one: `month` counts from 1.
    pub fn new(year: i32, month: u8) -> Option<Self> {
        ((1970..=9999).contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month })
    }

    /// The month that a time lies in; times outside 1970 to 9999 count to the first or the last month.
    pub fn of(at_ms: i64) -> Self {
        // The civil calendar in eras of 400 years that begin in March, so that leap days come last.
        let days = at_ms.div_euclid(DAY_MS) + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let years = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * years + years / 4 - years / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = years + era * 400 + i64::from(month <= 2);
        match (i32::try_from(year), u8::try_from(month)) {
            (Ok(year @ 1970..=9999), Ok(month)) => Self { year, month },
            _ if at_ms < 0 => Self { year: 1970, month: 1 },
            _ => Self { year: 9999, month: 12 },
        }
    }

    /// Its year.
    pub fn year(self) -> i32 {
        self.year
    }

    /// Which of the year's it is, from 1.
    pub fn number(self) -> u8 {
        self.month
    }

    /// Its first millisecond, since 1970.
    pub fn start_ms(self) -> i64 {
        let (year, month) = (i64::from(self.year), i64::from(self.month));
        let (year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + days_before(from_march);
        (days - 719_468) * DAY_MS
    }

    /// The first millisecond after it.
    pub fn end_ms(self) -> i64 {
        self.next().start_ms()
    }

    /// The month after it.
    #[must_use]
    pub fn next(self) -> Self {
        if self.month == 12 {
            Self { year: self.year + 1, month: 1 }
        } else {
            Self { month: self.month + 1, ..self }
        }
    }

    /// The month before it; none before 1970.
    pub fn previous(self) -> Option<Self> {
        if self.month == 1 {
            Self::new(self.year - 1, 12)
        } else {
            Some(Self { month: self.month - 1, ..self })
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// What is not a month; holds the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a month: write for example 2026-11")]
pub struct NotAMonth(pub String);

impl FromStr for Month {
    type Err = NotAMonth;

    fn from_str(text: &str) -> Result<Self, NotAMonth> {
        let refused = || NotAMonth(text.to_owned());
        let (year, month) = text.split_once('-').ok_or_else(refused)?;
        let digits =
            |text: &str, number: usize| text.len() == number && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(refused());
        }
        let (year, month) = (year.parse().map_err(|_| refused())?, month.parse().map_err(|_| refused())?);
        Self::new(year, month).ok_or_else(refused)
    }
}

impl TryFrom<String> for Month {
    type Error = NotAMonth;

    fn try_from(text: String) -> Result<Self, NotAMonth> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

/// A stretch of time in months: each with its part, in order; nothing of what does not last.
pub fn split(start_ms: i64, end_ms: i64) -> Vec<(Month, i64, i64)> {
    let mut parts = Vec::new();
    let (mut at_ms, mut month) = (start_ms, Month::of(start_ms));
    let last = Month::of(end_ms);
    while at_ms < end_ms {
        let until_ms = if month >= last { end_ms } else { month.end_ms().min(end_ms) };
        parts.push((month, at_ms, until_ms));
        (at_ms, month) = (until_ms, month.next());
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn month(text: &str) -> Month {
        text.parse().unwrap()
    }

    #[test]
    fn months_begin_where_the_calendar_says() {
        for (text, start_ms) in [
            ("1970-01", 0),
            ("1972-03", 68_256_000_000),
            ("2000-03", 951_868_800_000),
            ("2024-02", 1_706_745_600_000),
            ("2026-11", 1_793_491_200_000),
            ("2100-03", 4_107_542_400_000),
            ("9999-12", 253_399_622_400_000),
        ] {
            assert_eq!(month(text).start_ms(), start_ms, "{text}");
            assert_eq!(Month::of(start_ms), month(text), "{text}");
            assert_eq!(Month::of(start_ms - 1), month(text).previous().unwrap_or(month(text)), "{text}");
        }
    }

    #[test]
    fn years_have_their_leap_days() {
        let days = |text: &str| (month(text).end_ms() - month(text).start_ms()) / DAY_MS;
        assert_eq!(["2024-02", "2026-02", "2000-02", "2100-02", "2026-12"].map(days), [29, 28, 29, 28, 31]);
        let year: i64 = (1..=12).map(|m| days(&format!("2028-{m:02}"))).sum();
        assert_eq!(year, 366);
    }

    #[test]
    fn what_is_not_a_month_is_refused() {
        for text in
            ["2026-13", "2026-00", "2026-1", "26-01", "2026/01", "+026-01", "1969-12", "", "2026-01-01"]
        {
            assert_eq!(text.parse::<Month>(), Err(NotAMonth(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn every_time_lies_in_its_month(at_ms in 0..253_402_300_800_000_i64) {
            let month = Month::of(at_ms);
            prop_assert!(month.start_ms() <= at_ms && at_ms < month.end_ms(), "{month}");
            prop_assert_eq!(month.to_string().parse(), Ok(month));
        }

        #[test]
        fn parts_are_the_whole_and_lie_in_their_months(
            start_ms in 0..4_000_000_000_000_i64, length_ms in 0..40_000_000_000_i64
        ) {
            let parts = split(start_ms, start_ms + length_ms);
            prop_assert_eq!(parts.iter().map(|(_, from, until)| until - from).sum::<i64>(), length_ms);
            let mut at_ms = start_ms;
            for (month, from_ms, until_ms) in parts {
                prop_assert_eq!(from_ms, at_ms);
                prop_assert!(month.start_ms() <= from_ms && until_ms <= month.end_ms() && from_ms < until_ms);
                at_ms = until_ms;
            }
        }
    }
}
