//! From runs to numbers with intervals.

use serde_json::{Value, json};
use vingt_core::simulate::Counts;
use vingt_core::simulate::stats::Estimate;

use crate::mixes::{COUNTED, SIZE, WHOLE};

/// One policy on one mix at one load: a run for each seed, in the order of the others'.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its name.
    pub policy: String,
    /// Its runs.
    pub runs: Vec<Counts>,
}

impl Row {
    /// Without runs yet.
    pub fn new(policy: &str) -> Self {
        Self { policy: policy.to_owned(), runs: Vec::new() }
    }

    fn samples(&self, of: impl Fn(&Counts) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }

    fn acceptances(&self) -> Vec<f64> {
        self.samples(by_slices)
    }

    /// Accepted part of the slices that were asked for.
    pub fn acceptance(&self) -> Estimate {
        Estimate::of(&self.acceptances())
    }

    /// Accepted part of the jobs of one profile, over all runs.
    pub fn acceptance_of(&self, demand: usize) -> f64 {
        let (offered, accepted) = self.runs.iter().fold((0.0, 0.0), |(offered, accepted), run| {
            (offered + total(run, &run.offered, demand), accepted + total(run, &run.accepted, demand))
        });
        if offered > 0.0 { accepted / offered } else { f64::NAN }
    }

    fn moves(&self) -> f64 {
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

/// What the rows of one mix at one load are measured against.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// The simple rule that accepts most.
    pub best: Row,
    /// The ceiling.
    pub top: Row,
    /// What the simple rule that is best at it accepts of whole GPUs.
    pub whole: f64,
}

impl Baseline {
    /// Of the simple rules, of which the first [`COUNTED`] count, and of the ceiling.
    pub fn of(rules: &[Row], top: &Row) -> Self {
        let counted = rules.iter().take(COUNTED);
        let whole = counted.clone().map(|row| row.acceptance_of(WHOLE)).fold(0.0, f64::max);
        let by_acceptance = |a: &&Row, b: &&Row| a.acceptance().mean.total_cmp(&b.acceptance().mean);
        let best = counted.max_by(by_acceptance).cloned().unwrap_or_default();
        Self { best, top: top.clone(), whole }
    }

    /// The part of the gap from the best rule to the ceiling that `row` closes, in percent, with its interval
    /// over the seeds.
    pub fn gap_closed(&self, row: &Row) -> Estimate {
        let (row, best, top) = (row.acceptances(), self.best.acceptances(), self.top.acceptances());
        let gap = Estimate::of(&top.iter().zip(&best).map(|(t, b)| t - b).collect::<Vec<_>>()).mean;
        let gain = Estimate::of(&row.iter().zip(&best).map(|(r, b)| r - b).collect::<Vec<_>>()).mean;
        // The interval of a ratio of means, from what each seed adds to it.
        let ratio = gain / gap;
        let rest = |i: usize| (row[i] - best[i] - ratio * (top[i] - best[i])) / gap * 100.0;
        let rest: Vec<f64> = (0..row.len()).map(rest).collect();
        Estimate { mean: 100.0 * ratio, half_width: Estimate::of(&rest).half_width }
    }

    /// By how much more of the gap `row` closes than `other`, in points, for each seed.
    pub fn lead(&self, row: &Row, other: &Row) -> Vec<f64> {
        let gap = self.top.acceptance().mean - self.best.acceptance().mean;
        row.acceptances().iter().zip(other.acceptances()).map(|(a, b)| 100.0 * (a - b) / gap).collect()
    }

    /// Prints rows, and returns them as JSON.
    pub fn print<'a>(&self, rows: impl IntoIterator<Item = &'a Row>) -> Vec<Value> {
        println!(
            "  {:<26} {:>15}  {:>15} {:>7}  {:>6} {:>7}  {:>7}  accepted of 1g 1g.d 2g 3g 4g 7g",
            "policy", "gap closed, %", "slices", "/ best", "jobs", "moves", "7g-best"
        );
        rows.into_iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &Row) -> Value {
        let (gap, slices) = (self.gap_closed(row), row.acceptance());
        let ratio = slices.mean / self.best.acceptance().mean;
        let profiles: Vec<f64> = (0..SIZE.len()).map(|demand| row.acceptance_of(demand)).collect();
        let words: Vec<String> = profiles.iter().map(|part| format!("{part:.3}")).collect();
        let whole = row.acceptance_of(WHOLE) - self.whole;
        println!(
            "  {:<26} {:>7.1} ±{:>6.1}  {:.4} ±{:.4}  {ratio:>7.4}  {:.4} {:>7.4}  {whole:>+7.3}  {}",
            row.policy,
            gap.mean,
            gap.half_width,
            slices.mean,
            slices.half_width,
            row.by_count(),
            row.moves(),
            words.join(" "),
        );
        json!({
            "policy": row.policy, "seeds": row.runs.len(),
            "gap_closed_percent": gap.mean, "gap_closed_half_width": gap.half_width,
            "acceptance_slices": slices.mean, "acceptance_slices_half_width": slices.half_width,
            "ratio_to_best_rule": ratio, "acceptance_jobs": row.by_count(), "per_profile": profiles,
            "whole_gpus_over_best_rule": whole, "moves_per_accepted": row.moves(),
        })
    }
}
