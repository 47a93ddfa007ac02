//! The results as tables: one line for each policy, and how each profile fared.

use std::collections::BTreeSet;

use super::outcome::{Results, Waits};
use crate::screen::{Screen, cell};
use crate::words::{count, duration, natural};

/// Both tables.
pub fn tables(results: &Results, screen: Screen) -> String {
    let nodes = count(results.nodes, "node");
    let jobs = results.policies.first().map_or(0, |played| played.wait.jobs);
    let what = format!("{} on {nodes} with {}", count(jobs, "job"), count(results.gpus, "GPU"));
    format!("{what}\n\n{}\n{}", policies(results, screen), profiles(results, screen))
}

fn policies(results: &Results, screen: Screen) -> String {
    let header =
        ["POLICY", "USED", "FRAGMENTS", "WAIT mean", "p50", "p95", "STARTED", "EVICTED", "MOVED", "LOST"];
    let rows = results.policies.iter().map(|played| {
        let (summary, wait) = (&played.outcome.summary, &played.wait);
        vec![
            cell(played.policy),
            cell(percent(summary.utilisation)),
            cell(percent(summary.fragmentation)),
            cell(duration(wait.mean_ms)),
            cell(duration(wait.p50_ms)),
            cell(duration(wait.p95_ms)),
            cell(wait.started.to_string()),
            cell(summary.evictions.to_string()),
            cell(summary.moves.to_string()),
            cell(format!("{:.1} h", played.lost_gpu_hours())),
        ]
    });
    screen.table(&header, &[1, 2, 3, 4, 5, 6, 7, 8, 9], rows)
}

/// For each profile and policy: how many started, and how long they waited.
fn profiles(results: &Results, screen: Screen) -> String {
    let names: BTreeSet<&str> =
        results.policies.iter().flat_map(|played| played.profiles.keys().map(String::as_str)).collect();
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_by(|a, b| natural(a, b));
    let several = results.policies.len() > 1;
    let rows = names.iter().flat_map(|profile| {
        results.policies.iter().enumerate().map(move |(index, played)| {
            let waits = played.profiles.get(*profile).copied().unwrap_or_default();
            row(if index == 0 { profile } else { "" }, several.then_some(played.policy), &waits)
        })
    });
    let mut header = vec!["PROFILE", "POLICY", "JOBS", "STARTED", "WAIT mean", "p50", "p95"];
    let mut right = vec![2, 3, 4, 5, 6];
    if !several {
        header.remove(1);
        right.remove(4);
        right.insert(0, 1);
    }
    screen.table(&header, &right, rows)
}

fn row(profile: &str, policy: Option<&str>, waits: &Waits) -> Vec<comfy_table::Cell> {
    let mut row = vec![cell(profile)];
    row.extend(policy.map(cell));
    row.push(cell(waits.jobs.to_string()));
    row.push(cell(waits.started.to_string()));
    row.extend([waits.mean_ms, waits.p50_ms, waits.p95_ms].map(|ms| cell(duration(ms))));
    row
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
