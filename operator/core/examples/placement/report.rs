//! From runs to numbers with intervals.

use serde_json::{Value, json};
use vingt_core::simulate::Counts;
use vingt_core::simulate::stats::Estimate;

use crate::mixes::{SIZE, WHOLE};

/// One policy on one mix at one load: a run for each seed, in the order of the others'.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub policy: String,
    pub runs: Vec<Counts>,
}

impl Row {
    pub fn new(policy: &str) -> Self {
        Self { policy: policy.to_owned(), runs: Vec::new() }
    }

    fn samples(&self, of: impl Fn(&Counts) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }

    pub fn acceptances(&self) -> Vec<f64> {
        self.samples(by_slices)
    }

    pub fn acceptance(&self) -> f64 {
        Estimate::of(&self.acceptances()).mean
    }

    pub fn acceptance_of(&self, demand: usize) -> f64 {
        let (offered, accepted) = self.runs.iter().fold((0.0, 0.0), |(offered, accepted), run| {
            (offered + total(run, &run.offered, demand), accepted + total(run, &run.accepted, demand))
        });
        if offered > 0.0 { accepted / offered } else { f64::NAN }
    }

    pub fn moves(&self) -> f64 {
        Estimate::of(&self.samples(Counts::moves_per_accepted)).mean
    }

    fn by_count(&self) -> f64 {
        Estimate::of(&self.samples(|run| run.acceptance(&vec![1.0; run.offered.len()]))).mean
    }
}

/// Demands beyond the six are the same six again, told apart by how long they live.
fn by_slices(run: &Counts) -> f64 {
    let size: Vec<f64> = (0..run.offered.len()).map(|demand| SIZE[demand % SIZE.len()]).collect();
    run.acceptance(&size)
}

fn total(run: &Counts, of: &[u64], demand: usize) -> f64 {
    (0..run.offered.len()).filter(|other| other % SIZE.len() == demand).map(|other| of[other] as f64).sum()
}

/// The part of the gap from `best` to `top` that `row` closes, in percent, with its interval over the seeds.
pub fn gap_closed(row: &Row, best: &Row, top: &Row) -> Estimate {
    let (row, best, top) = (row.acceptances(), best.acceptances(), top.acceptances());
    let gap = Estimate::of(&top.iter().zip(&best).map(|(t, b)| t - b).collect::<Vec<_>>()).mean;
    let gain = Estimate::of(&row.iter().zip(&best).map(|(r, b)| r - b).collect::<Vec<_>>()).mean;
    // The interval of a ratio of means, from what each seed adds to it.
    let ratio = gain / gap;
    let rest: Vec<f64> =
        (0..row.len()).map(|i| (row[i] - best[i] - ratio * (top[i] - best[i])) / gap * 100.0).collect();
    Estimate { mean: 100.0 * ratio, half_width: Estimate::of(&rest).half_width }
}

/// The row with the highest acceptance.
pub fn best(rows: &[Row]) -> &Row {
    rows.iter().max_by(|a, b| a.acceptance().total_cmp(&b.acceptance())).unwrap_or(&rows[0])
}

/// Prints a row beside the best rule and the ceiling, and returns it as JSON.
pub fn print(row: &Row, best: &Row, top: &Row, best_whole: f64) -> Value {
    let gap = gap_closed(row, best, top);
    let profiles: Vec<f64> = (0..SIZE.len()).map(|demand| row.acceptance_of(demand)).collect();
    let words: Vec<String> = profiles.iter().map(|part| format!("{part:.3}")).collect();
    println!(
        "  {:<22} {:>6.1} ±{:>4.1} %  slices {:.4}  jobs {:.4}  moves {:.4}  7g {:+.3}  [{}]",
        row.policy,
        gap.mean,
        gap.half_width,
        row.acceptance(),
        row.by_count(),
        row.moves(),
        row.acceptance_of(WHOLE) - best_whole,
        words.join(" "),
    );
    json!({
        "policy": row.policy, "gap_closed_percent": gap.mean, "half_width": gap.half_width,
        "acceptance_slices": row.acceptance(), "acceptance_jobs": row.by_count(), "per_profile": profiles,
        "moves_per_accepted": row.moves(), "seeds": row.runs.len(),
    })
}

/// Writes `value` to `path`, whole or not at all.
pub fn write(path: Option<&std::path::Path>, value: &Value) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let part = path.with_extension("part");
    std::fs::write(&part, serde_json::to_vec_pretty(value)?)?;
    Ok(std::fs::rename(&part, path)?)
}
