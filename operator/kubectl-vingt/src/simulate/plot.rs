//! The results over time as SVG: one line for each policy. What is plotted is
//! the mean of equal stretches of time, so that lines can be read.

use anyhow::anyhow;
use plotters::prelude::*;

use super::outcome::{Result as Played, Results};

/// Stretches of time: of what goes on, and of events, of which there are fewer.
const STRETCHES: usize = 200;
const STRETCHES_OF_EVENTS: usize = 50;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (860, 300);

/// Where the lines begin, and how much room they have, in pixels.
const LEFT: i32 = 68;
const ROOM: usize = 780;

/// Colours of the lines, told apart by those who do not see all colours, too (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A picture.
pub struct Plot {
    /// Name of its file, without the ending.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// The SVG.
    pub svg: String,
}

/// What is plotted of a policy: times and values.
type Value = Box<dyn Fn(&Played) -> Vec<(i64, f64)>>;

/// All pictures.
pub fn all(results: &Results) -> anyhow::Result<Vec<Plot>> {
    let end_ms = results.policies.iter().map(|played| last_ms(played, results.start_ms)).max().unwrap_or(0);
    let capacity = real(results.capacity.max(1));
    let points = |value: fn(&vingt_core::simulate::replay::Point, f64) -> f64| -> Value {
        Box::new(move |played| {
            played.outcome.points.iter().map(|point| (point.at_ms, value(point, capacity))).collect()
        })
    };
    let fragments: fn(&vingt_core::simulate::replay::Point, f64) -> f64 =
        |point, _| if point.free == 0 { 0.0 } else { 100.0 * real(point.fragments) / real(point.free) };
    let waits: Value = Box::new(|played| {
        let waits = played
            .outcome
            .jobs
            .iter()
            .filter_map(|job| Some((job.queued_ms, real_ms(job.first_wait_ms()?) / 60_000.0)));
        let mut waits: Vec<(i64, f64)> = waits.collect();
        waits.sort_by_key(|(queued_ms, _)| *queued_ms);
        waits
    });
    let wanted: [(&str, &str, &str, bool, Value); 4] = [
        (
            "utilisation",
            "Utilisation",
            "% of all GPUs held",
            true,
            points(|point, capacity| 100.0 * real(point.used) / capacity),
        ),
        ("waiting-time", "Waiting time of jobs, by when they were queued", "minutes", false, waits),
        ("waiting-jobs", "Jobs that wait", "jobs", true, points(|point, _| real(point.waiting as u64))),
        ("fragmentation", "Fragmentation", "% of what is free, on GPUs cut already", true, points(fragments)),
    ];
    let mut plots = Vec::new();
    for (name, title, unit, held, value) in wanted {
        let lines = results
            .policies
            .iter()
            .map(|played| (played.policy, stretches(&value(played), results.start_ms, end_ms, held)));
        let svg = draw(unit, &lines.collect::<Vec<_>>(), end_ms - results.start_ms)
            .map_err(|error| anyhow!("cannot draw {name}: {error}"))?;
        plots.push(Plot { name, title, svg });
    }
    Ok(plots)
}

type Line = Vec<(f64, f64)>;

fn last_ms(played: &Played, start_ms: i64) -> i64 {
    let last = played.outcome.points.last().map_or(start_ms, |point| point.at_ms);
    last.max(start_ms + 1)
}

/// The mean of each stretch of time, in milliseconds from the start. What is `held` lasts until it changes;
/// else each value is an event of its own, and a stretch without one is left out.
fn stretches(values: &[(i64, f64)], start_ms: i64, end_ms: i64, held: bool) -> Line {
    let number = if held { STRETCHES } else { STRETCHES_OF_EVENTS };
    let mut sums = vec![(0.0, 0.0); number];
    let length = (real_ms(end_ms - start_ms) / real(number as u64)).max(f64::MIN_POSITIVE);
    let mut add = |from_ms: f64, to_ms: f64, value: f64| {
        let mut at = from_ms.max(0.0);
        while at < to_ms {
            let index = floor(at / length).min(number - 1);
            let next =
                if index + 1 == number { to_ms } else { to_ms.min((real(index as u64) + 1.0) * length) };
            let next = if next > at { next } else { to_ms };
            sums[index].0 += value * (next - at);
            sums[index].1 += next - at;
            at = next;
        }
    };
    for (index, (at_ms, value)) in values.iter().enumerate() {
        let from = real_ms(at_ms - start_ms);
        let until = values.get(index + 1).map_or(end_ms, |next| next.0);
        let to = if held { real_ms(until - start_ms) } else { from.max(0.0) + length * 1e-6 };
        add(from, to, *value);
    }
    let middle = |index: usize| (real(index as u64) + 0.5) * length;
    let filled = sums.iter().enumerate().filter(|(_, (_, weight))| *weight > 0.0);
    filled.map(|(index, (sum, weight))| (middle(index), sum / weight)).collect()
}

type Failure = Box<dyn std::error::Error>;

fn draw(unit: &str, lines: &[(&str, Line)], span_ms: i64) -> Result<String, Failure> {
    let (time_unit, unit_ms) = if span_ms <= 2 * 3_600_000 {
        ("minutes", 60_000.0)
    } else if span_ms <= 4 * 86_400_000 {
        ("hours", 3_600_000.0)
    } else {
        ("days", 86_400_000.0)
    };
    let top = lines.iter().flat_map(|(_, line)| line).map(|(_, value)| *value).fold(0.0, f64::max);
    let top = if top > 0.0 { top * 1.05 } else { 1.0 };
    let share = unit.starts_with('%');
    let top = if share { top.min(100.0) } else { top };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        // Above, where no line is.
        let apart = (ROOM / lines.len().max(1)).min(150);
        for ((x, (name, _)), colour) in (LEFT..).step_by(apart).zip(lines).zip(COLOURS) {
            root.draw(&PathElement::new(vec![(x, 16), (x + 18, 16)], colour.stroke_width(3)))?;
            root.draw(&Text::new(*name, (x + 24, 10), ("sans-serif", 14)))?;
        }
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .margin_top(30)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..real_ms(span_ms) / unit_ms, 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(120, 120, 120))
            .label_style(("sans-serif", 14))
            .x_label_formatter(&number)
            .y_label_formatter(&number)
            .y_labels(6)
            .x_desc(time_unit)
            .y_desc(unit)
            .draw()?;
        for ((_, line), colour) in lines.iter().zip(COLOURS) {
            let scaled = line.iter().map(|(at, value)| (at / unit_ms, *value));
            chart.draw_series(LineSeries::new(scaled, colour.stroke_width(2)))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// A number on an axis, without digits that say nothing.
#[allow(clippy::trivially_copy_pass_by_ref)] // as the library asks for it
fn number(value: &f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[allow(clippy::cast_precision_loss)] // for a picture
fn real(number: u64) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss)] // for a picture
fn real_ms(ms: i64) -> f64 {
    ms as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative
fn floor(number: f64) -> usize {
    number.max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_lasts_until_it_changes() {
        let line = stretches(&[(0, 10.0), (1000, 30.0)], 0, 2000, true);
        assert_eq!(line.len(), STRETCHES);
        let (first, last) = (line[0].1, line[STRETCHES - 1].1);
        assert!((first - 10.0).abs() < 1e-9 && (last - 30.0).abs() < 1e-9, "{first} {last}");
        assert!((line[0].0 - 5.0).abs() < 1e-9, "the middle of the first stretch: {:?}", line[0]);
    }

    #[test]
    fn events_are_averaged_where_they_are() {
        let line = stretches(&[(100, 2.0), (101, 4.0), (1900, 9.0)], 0, 2000, false);
        let [(_, first), (_, second)] = line[..] else { panic!("two stretches: {line:?}") };
        assert!((first - 3.0).abs() < 1e-6 && (second - 9.0).abs() < 1e-6, "{line:?}");
    }

    #[test]
    fn a_picture_has_a_line_for_each_policy() {
        let line = vec![(0.0, 1.0), (1000.0, 2.0)];
        let svg = draw("jobs", &[("best-fit", line.clone()), ("learned", line)], 2000).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for word in ["best-fit", "learned", "minutes", "jobs", "#0072B2", "#D55E00"] {
            assert!(svg.contains(word), "no {word}: {svg}");
        }
    }
}
