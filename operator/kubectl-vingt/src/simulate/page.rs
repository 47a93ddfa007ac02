//! The results as one page that needs nothing else: tables and plots.

use std::fmt::Write as _;

use super::outcome::Results;
use super::plot::Plot;
use crate::html::{escape, table};
use crate::words::{count, duration};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.1em;margin:2em 0 .3em}table{border-collapse:collapse;width:100%}\
th,td{padding:.3em .6em;text-align:right;border-bottom:1px solid #e3e3e3;font-variant-numeric:tabular-nums}\
th:first-child,td:first-child{text-align:left}th{font-weight:600;color:#555}svg{max-width:100%;height:auto}";

/// The page.
pub fn page(results: &Results, plots: &[Plot]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>vingt simulation</title>\
<style>{STYLE}</style></head><body>\n<h1>vingt simulation</h1>\n"
    );
    let jobs = results.policies.first().map_or(0, |played| played.wait.jobs);
    let (nodes, gpus) = (count(results.nodes, "node"), count(results.gpus, "GPU"));
    let _ = writeln!(html, "<p>{} on {nodes} with {gpus}.</p>", count(jobs, "job"));
    let head = [
        "policy",
        "used",
        "fragments",
        "mean wait",
        "p50",
        "p95",
        "started",
        "evicted",
        "moved",
        "GPU-hours lost",
    ];
    let rows = results.policies.iter().map(|played| {
        let (summary, wait) = (&played.outcome.summary, &played.wait);
        vec![
            played.policy.to_owned(),
            format!("{:.1} %", summary.utilisation * 100.0),
            format!("{:.1} %", summary.fragmentation * 100.0),
            duration(wait.mean_ms),
            duration(wait.p50_ms),
            duration(wait.p95_ms),
            format!("{} of {}", wait.started, wait.jobs),
            summary.evictions.to_string(),
            summary.moves.to_string(),
            format!("{:.1}", played.lost_gpu_hours()),
        ]
    });
    table(&mut html, &head, rows);
    for plot in plots {
        let _ = writeln!(html, "<h2>{}</h2>\n{}", escape(plot.title), plot.svg);
    }
    html.push_str("<h2>By profile</h2>\n");
    let rows = results.policies.iter().flat_map(|played| {
        played.profiles.iter().map(|(profile, waits)| {
            vec![
                profile.clone(),
                played.policy.to_owned(),
                format!("{} of {}", waits.started, waits.jobs),
                duration(waits.mean_ms),
                duration(waits.p50_ms),
                duration(waits.p95_ms),
            ]
        })
    });
    let mut rows: Vec<Vec<String>> = rows.collect();
    rows.sort_by(|a, b| a[0].cmp(&b[0]));
    table(&mut html, &["profile", "policy", "started", "mean wait", "p50", "p95"], rows);
    html.push_str("</body></html>\n");
    html
}
