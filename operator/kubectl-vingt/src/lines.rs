//! Text as labelled lines of at most the screen's width, and times of day in
//! it. What is said is not decided here.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::screen::Screen;
use crate::words::wrap;

/// Columns before the text.
const INDENT: usize = 13;

/// Lines, each under a label.
#[derive(Debug)]
pub struct Lines {
    /// What was said.
    pub text: String,
    screen: Screen,
}

impl Lines {
    /// Lines below a first one.
    pub fn new(first: &str, screen: Screen) -> Self {
        Self { text: format!("{first}\n"), screen }
    }

    /// Says something under a label; nothing if there is nothing to say.
    pub fn say(&mut self, label: &str, said: &str) {
        let mut label = label;
        for line in wrap(said, usize::from(self.screen.width).saturating_sub(INDENT).max(20)) {
            self.text.push_str(&self.screen.dim(&format!("  {label:<11}")));
            self.text.push_str(&line);
            self.text.push('\n');
            label = "";
        }
    }
}

/// A time of day; with the date if it is another day, with the year if that is another.
pub fn clock(time: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (time, now) = (time.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let format = match () {
        () if time.date() == now.date() => "%H:%M",
        () if time.year() == now.year() => "%b %-d %H:%M",
        () => "%b %-d %Y %H:%M",
    };
    time.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_fits_under_its_label() {
        let screen = Screen { width: 34, colours: false, terminal: false };
        let mut lines = Lines::new("first", screen);
        lines.say("label", "one two three four five");
        lines.say("nothing", "");
        assert_eq!(lines.text, "first\n  label      one two three four\n             five\n");
    }

    #[test]
    fn a_time_says_as_much_as_is_needed() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let said = |time: &str| clock(at(time), at("2026-11-24T12:00:00Z"), &zone);
        assert_eq!(said("2026-11-24T22:30:00Z"), "23:30");
        assert_eq!(said("2026-11-24T23:30:00Z"), "Nov 25 00:30");
        assert_eq!(said("2026-12-31T23:30:00Z"), "Jan 1 2027 00:30");
    }
}
