//! The results as tables: one line for each policy, and how each profile fared.

use std::collections::BTreeSet;

use super::outcome::{Results, Waits};
use crate::screen::{Screen, cell};
use crate::words::{count, duration, natural};

/// What the columns are.
const LEGEND: &str = "\
USED of all GPUs; FRAGMENTS: of what is free, on GPUs that are cut already; WAIT
until a job first starts, its mean and quantiles; LOST: GPU-hours of work
";

/// Both tables.
pub fn tables(results: &Results, screen: Screen) -> String {
    let nodes = count(results.nodes, "node");
    let jobs = results.policies.first().map_or(0, |played| played.wait.jobs);
    let what = format!("{} on {nodes} with {}", count(jobs, "job"), count(results.gpus, "GPU"));
    format!("{what}\n\n{}{LEGEND}\n{}", policies(results, screen), profiles(results, screen))
}

fn policies(results: &Results, screen: Screen) -> String {
    let header = ["POLICY", "USED", "FRAGMENTS", "WAIT", "P50", "P95", "STARTED", "EVICTED", "MOVED", "LOST"];
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
            cell(format!("{:.1}", played.lost_gpu_hours())),
        ]
    });
    screen.table(&header, &[1, 2, 3, 4, 5, 6, 7, 8, 9], rows)
}

/// For each profile and policy: how many started, and how long they waited.
fn profiles(results: &Results, screen: Screen) -> String {
    let names: BTreeSet<&str> =
        results.policies.iter().flat_map(|played| played.profiles.keys().map(String::as_str)).collect();
    let mut names: Vec<&str> = names.into_iter().collect();
    // By what is asked for, then by how many.
    let of = |name: &&str| {
        name.split_once(" × ")
            .map_or((name.to_string(), String::new()), |(n, of)| (of.to_owned(), n.to_owned()))
    };
    names.sort_by(|a, b| {
        let (a, b) = (of(a), of(b));
        natural(&a.0, &b.0).then_with(|| natural(&a.1, &b.1))
    });
    let several = results.policies.len() > 1;
    let rows = names.iter().flat_map(|profile| {
        results.policies.iter().enumerate().map(move |(index, played)| {
            let waits = played.profiles.get(*profile).copied().unwrap_or_default();
            row(if index == 0 { profile } else { "" }, several.then_some(played.policy), &waits)
        })
    });
    let mut header = vec!["PROFILE", "POLICY", "JOBS", "STARTED", "WAIT", "P50", "P95"];
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vingt_core::simulate::replay::{Outcome, Summary};

    use super::super::outcome::Result;
    use super::*;

    fn played(policy: &'static str, mean_ms: i64) -> Result {
        let wait = Waits { jobs: 3, started: 2, mean_ms, p50_ms: 0, p95_ms: 12_000_000 };
        let profiles = ["8 × gpu", "gpu", "2 × gpu", "10g.x", "1g.10gb"];
        Result {
            policy,
            wait,
            profiles: profiles.into_iter().map(|name| (name.to_owned(), wait)).collect::<BTreeMap<_, _>>(),
            outcome: Outcome {
                summary: Summary {
                    utilisation: 0.8912,
                    fragmentation: 0.016,
                    lost: 56 * 1_800_000,
                    moves: 4,
                    ..Summary::default()
                },
                ..Outcome::default()
            },
        }
    }

    fn results(policies: Vec<Result>) -> Results {
        Results { version: 1, nodes: 1, gpus: 8, capacity: 448, start_ms: 0, policies }
    }

    const SCREEN: Screen = Screen { width: 80, colours: false, terminal: false };

    #[test]
    fn one_policy_is_told_in_80_columns() {
        let wanted = "\
3 jobs on 1 node with 8 GPUs

POLICY      USED  FRAGMENTS  WAIT  P50    P95  STARTED  EVICTED  MOVED  LOST
best-fit  89.1 %      1.6 %   12m   0s  3h20m        2        0      4   0.5
USED of all GPUs; FRAGMENTS: of what is free, on GPUs that are cut already; WAIT
until a job first starts, its mean and quantiles; LOST: GPU-hours of work

PROFILE  JOBS  STARTED  WAIT  P50    P95
1g.10gb     3        2   12m   0s  3h20m
10g.x       3        2   12m   0s  3h20m
gpu         3        2   12m   0s  3h20m
2 × gpu     3        2   12m   0s  3h20m
8 × gpu     3        2   12m   0s  3h20m
";
        let text = tables(&results(vec![played("best-fit", 720_000)]), SCREEN);
        assert_eq!(text, wanted, "\n{text}");
    }

    #[test]
    fn several_policies_are_compared_profile_by_profile() {
        let text = tables(&results(vec![played("blocked-windows", 0), played("learned", 720_000)]), SCREEN);
        let wanted = "1g.10gb  blocked-windows     3        2    0s   0s  3h20m\n         learned             3        2   12m   0s  3h20m\n";
        assert!(text.contains(wanted), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
