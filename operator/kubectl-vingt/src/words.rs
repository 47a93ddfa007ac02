//! What is said to the user in the same way everywhere: numbers, names in
//! their natural order, and input that cannot be used. No layout here.

use std::cmp::Ordering;

use vingt_core::model::{UNITS_PER_GPU, Units};

/// Something the user gave cannot be used: a flag, a trace, a snapshot. The program ends with 2 then.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// Units as GPUs: `8`, `0.5`, `18.3`.
#[allow(clippy::cast_precision_loss)] // far fewer GPUs than that
pub fn gpus(units: Units) -> String {
    if units.is_multiple_of(UNITS_PER_GPU) {
        return (units / UNITS_PER_GPU).to_string();
    }
    let gpus = format!("{:.1}", units as f64 / UNITS_PER_GPU as f64);
    // Something is held, or something is missing to a whole one, however little.
    if gpus.ends_with(".0") { format!("{:.2}", units as f64 / UNITS_PER_GPU as f64) } else { gpus }
}

/// A number of things: `1 node`, `8 nodes`.
pub fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// A length of time, short: `45s`, `12m`, `3h20m`, `5d4h`.
pub fn duration(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let rest = |number: i64, unit: &str| if number == 0 { String::new() } else { format!("{number}{unit}") };
    if days > 0 {
        format!("{days}d{}", rest(hours % 24, "h"))
    } else if hours > 0 {
        format!("{hours}h{}", rest(minutes % 60, "m"))
    } else if minutes > 0 {
        format!("{minutes}m{}", if minutes < 10 { rest(seconds % 60, "s") } else { String::new() })
    } else {
        format!("{seconds}s")
    }
}

/// `text` in lines of at most `width` columns, broken between words; a word that is longer stands alone.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Orders names as people do: `node-2` before `node-10`.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (x, y) = (piece(left), piece(right));
        let order = match (x.parse::<u64>(), y.parse::<u64>()) {
            (Ok(x), Ok(y)) => x.cmp(&y),
            _ => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
        if x.is_empty() {
            // Equal but for leading zeros.
            return a.cmp(b);
        }
        (left, right) = (&left[x.len()..], &right[y.len()..]);
    }
}

/// The digits or the other characters that `text` begins with.
fn piece(text: &str) -> &str {
    let digit = text.starts_with(|first: char| first.is_ascii_digit());
    let end = text.find(|next: char| next.is_ascii_digit() != digit);
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_whole_or_say_that_they_are_not() {
        assert_eq!([0, 56, 448, 28, 8, 57].map(gpus), ["0", "1", "8", "0.5", "0.1", "1.02"]);
    }

    #[test]
    fn times_are_short_and_lose_what_does_not_matter() {
        let said = [0, 59_999, 60_000, 61_000, 754_000, 3_600_000, 12_000_000, 90_000_000].map(duration);
        assert_eq!(said, ["0s", "59s", "1m", "1m1s", "12m", "1h", "3h20m", "1d1h"]);
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two  three-and-more four", 8), ["one two", "three-and-more", "four"]);
        assert!(wrap("", 8).is_empty());
    }

    #[test]
    fn names_are_ordered_as_people_do() {
        let mut names = ["node-10", "node-2", "a", "node-2-b", "node-02", ""];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "a", "node-02", "node-2", "node-2-b", "node-10"]);
    }
}
