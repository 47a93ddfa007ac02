//! A reserve's year as SVG: entitlement and use as they grew, and what each
//! month's GPU-hours were used for.

use anyhow::anyhow;
use plotters::prelude::*;
use vingt_core::ledger::{Figures, GPU_HOUR, Month, ReserveYear};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (860, 300);

/// Where the words above the picture begin, and how far they are apart, in pixels.
const LEFT: i32 = 68;
const APART: usize = 170;

/// Told apart by those who do not see all colours, too (Okabe and Ito).
const ENTITLED: RGBColor = RGBColor(120, 120, 120);
const CLAIMED: RGBColor = RGBColor(213, 94, 0);
const ORDERED: RGBColor = RGBColor(0, 114, 178);
const LENT: RGBColor = RGBColor(170, 205, 190);

/// A picture.
pub struct Plot {
    /// What it shows.
    pub title: &'static str,
    /// The SVG.
    pub svg: String,
}

type Failure = Box<dyn std::error::Error>;

/// Both pictures.
pub fn all(year: i32, reserve: &ReserveYear) -> anyhow::Result<Vec<Plot>> {
    let drawn = |svg: Result<String, Failure>| svg.map_err(|error| anyhow!("cannot draw the year: {error}"));
    Ok(vec![
        Plot { title: "Entitled to and delivered since January", svg: drawn(grown(year, reserve))? },
        Plot { title: "What was installed, by what it was used for", svg: drawn(used(year, reserve))? },
    ])
}

/// The months of a year, with what is known of them.
fn months(year: i32, reserve: &ReserveYear) -> impl Iterator<Item = (f64, Option<&Figures>)> {
    let of = move |number| Month::new(year, number).and_then(|month| reserve.months.get(&month));
    (1..=12).map(move |number| (f64::from(number) - 1.0, of(number)))
}

/// Entitlement and delivery, each the sum from the year's beginning to the end of a month.
fn grown(year: i32, reserve: &ReserveYear) -> Result<String, Failure> {
    let mut lines: [Vec<(f64, f64)>; 2] = [vec![(0.0, 0.0)], vec![(0.0, 0.0)]];
    let (mut entitled, mut delivered) = (0.0, 0.0);
    for (start, figures) in months(year, reserve) {
        let Some(figures) = figures else { continue };
        entitled += hours(i128::try_from(figures.entitlement).unwrap_or(i128::MAX));
        delivered += hours(figures.delivered());
        lines[0].push((start + 1.0, entitled));
        lines[1].push((start + 1.0, delivered));
    }
    let top = entitled.max(delivered);
    picture("GPU-hours", top, &[("entitled to", ENTITLED), ("delivered", CLAIMED)], |chart| {
        for (line, colour) in lines.into_iter().zip([ENTITLED, CLAIMED]) {
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        }
        Ok(())
    })
}

/// Each month as a bar: claimed, ordered, lent; what is above is idle.
fn used(year: i32, reserve: &ReserveYear) -> Result<String, Failure> {
    let words = [("claimed", CLAIMED), ("ordered", ORDERED), ("lent", LENT)];
    picture("% of what was installed", 100.0, &words, |chart| {
        for (start, figures) in months(year, reserve) {
            let Some(figures) = figures else { continue };
            let installed =
                hours(i128::try_from(figures.installed).unwrap_or(i128::MAX)).max(f64::MIN_POSITIVE);
            let mut from = 0.0;
            for (unit_ms, (_, colour)) in
                [figures.claimed, figures.ordered, figures.lent].into_iter().zip(words)
            {
                let to = from + 100.0 * hours(unit_ms.max(0)) / installed;
                let bar =
                    Rectangle::new([(start + 0.1, from), (start + 0.9, to.min(100.0))], colour.filled());
                chart.draw_series([bar])?;
                from = to;
            }
        }
        Ok(())
    })
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn picture(
    unit: &str,
    top: f64,
    words: &[(&str, RGBColor)],
    draw: impl FnOnce(&mut Chart<'_, '_>) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let top = if top > 0.0 { top } else { 1.0 };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        for (x, (word, colour)) in (LEFT..).step_by(APART).zip(words) {
            root.draw(&PathElement::new(vec![(x, 16), (x + 18, 16)], colour.stroke_width(5)))?;
            root.draw(&Text::new(*word, (x + 24, 10), ("sans-serif", 14)))?;
        }
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .margin_top(30)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..12.0, 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(120, 120, 120))
            .label_style(("sans-serif", 14))
            .x_labels(12)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_labels(6)
            .x_desc("months")
            .y_desc(unit)
            .draw()?;
        draw(&mut chart)?;
        root.present()?;
    }
    Ok(svg)
}

#[allow(clippy::cast_precision_loss)] // for a picture
fn hours(unit_ms: i128) -> f64 {
    unit_ms as f64 / GPU_HOUR as f64
}
