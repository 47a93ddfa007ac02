//! What was measured, beside the budgets: printed, and as JSON.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

/// Benchmark, budget in nanoseconds.
const BUDGETS: [(&str, f64); 6] = [
    ("placement/Learned/10000", 1e3),
    ("constrained/first/1250", 1e5),
    ("constrained/next/1250", 1e5),
    ("cycle/free/100000", 1e8),
    ("cycle/busy/100000", 1e8),
    ("cycle/unplaceable/10000", 1e7),
];

/// One benchmark beside another that did the same otherwise.
const BASELINES: [(&str, &str); 3] = [
    ("placement/Learned/10000", "placement/Learned/1000"),
    ("placement/Learned/10000", "placement/BestFit/10000"),
    ("placement/Learned/10000", "placement/FirstFit/10000"),
];

/// Reads the medians that were measured in this or an earlier run, prints their ratios and writes `decisions.json`.
pub fn write() -> anyhow::Result<()> {
    let target = target()?;
    let median = |name: &str| median(&target.join("criterion"), name);
    let mut rows = Vec::new();
    for (name, budget) in BUDGETS {
        if let Some(median_ns) = median(name) {
            println!(
                "{name}: {} of {}: {:.2} of the budget",
                time(median_ns),
                time(budget),
                median_ns / budget
            );
            rows.push(json!({ "name": name, "median_ns": median_ns, "budget_ns": budget, "ratio": median_ns / budget }));
        }
    }
    for (name, other) in BASELINES {
        if let (Some(median_ns), Some(other_ns)) = (median(name), median(other)) {
            println!("{name}: {:.2} of {other}, {}", median_ns / other_ns, time(other_ns));
            rows.push(json!({ "name": name, "median_ns": median_ns, "baseline": other, "baseline_ns": other_ns, "ratio": median_ns / other_ns }));
        }
    }
    let path = target.join("decisions.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&Value::Array(rows))?)
        .with_context(|| format!("writing {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

/// The benchmark is at `release/deps` in it.
fn target() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target =
        own.ancestors().nth(3).context("the benchmark was not built by cargo: no target directory")?;
    Ok(target.to_owned())
}

fn median(criterion: &Path, name: &str) -> Option<f64> {
    let text = std::fs::read(criterion.join(name).join("new/estimates.json")).ok()?;
    serde_json::from_slice::<Value>(&text).ok()?.pointer("/median/point_estimate")?.as_f64()
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}
