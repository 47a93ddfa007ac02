//! A [`Story`] as text of at most the screen's width.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Expected, Story};
use crate::screen::Screen;
use crate::words::{duration, wrap};

/// Columns before the text.
const INDENT: usize = 11;

impl Story {
    /// It, as of `now`, with times in `zone`.
    pub fn tell(&self, now: Timestamp, zone: &TimeZone, screen: Screen) -> String {
        let Self { kind, namespace, name, .. } = self;
        let mut text = format!("{kind} {namespace}/{name} {}\n", self.how_it_is(now));
        let mut say = |label: &str, said: &str| {
            let mut label = label;
            for line in wrap(said, usize::from(screen.width).saturating_sub(INDENT).max(20)) {
                let label_text = format!("  {label:<9}");
                text.push_str(&screen.dim(&label_text));
                text.push_str(&line);
                text.push('\n');
                label = "";
            }
        };
        if !self.asks.is_empty() {
            let tenant =
                if self.tenant.is_empty() { String::new() } else { format!(", for tenant {}", self.tenant) };
            let priority =
                if self.priority == 0 { String::new() } else { format!(", priority {}", self.priority) };
            say("asks for", &format!("{}{tenant}{priority}", self.asks));
        }
        say("because", &self.because);
        if let Some(starts) = &self.starts {
            say("starts", &starts.tell(now, zone));
        }
        for (index, help) in self.helps.iter().enumerate() {
            say(if index == 0 { "helps" } else { "" }, help);
        }
        say("runs on", &self.nodes);
        for (index, event) in self.history.iter().enumerate() {
            say(if index == 0 { "history" } else { "" }, event);
        }
        for note in &self.notes {
            say("note", note);
        }
        text
    }

    fn how_it_is(&self, now: Timestamp) -> String {
        let since = |since: Timestamp| duration(now.as_millisecond() - since.as_millisecond());
        match (self.state.as_str(), self.waiting_since) {
            ("", _) => "was not looked at yet: is the operator running?".to_owned(),
            ("Waiting", Some(waits)) => format!("waits, for {}", since(waits)),
            ("Waiting", None) => "waits".to_owned(),
            ("Degraded", Some(waits)) => format!("runs in part, for {}", since(waits)),
            (state, _) => format!("does not wait: it is {}", state.to_lowercase()),
        }
    }
}

impl Expected {
    fn tell(&self, now: Timestamp, zone: &TimeZone) -> String {
        let at = |time: Timestamp| clock(time, now, zone);
        let left_ms = self.p50.as_millisecond() - now.as_millisecond();
        let soon = if left_ms > 0 { format!(" (in {})", duration(left_ms)) } else { String::new() };
        let late = if self.p90 < now { "; it is later than expected" } else { "" };
        let basis = if self.basis.is_empty() { String::new() } else { format!(" ({})", self.basis) };
        format!(
            "at {} as likely as not{soon}; 10 %: before {}, 90 %: before {}{late}{basis}",
            at(self.p50),
            at(self.p10),
            at(self.p90)
        )
    }
}

/// A time of day; with the date if it is another day.
fn clock(time: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (time, now) = (time.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let format = if time.date() == now.date() { "%H:%M" } else { "%b %-d %H:%M" };
    time.strftime(format).to_string()
}
