//! The same years under other rules: what lending gains over a share that is
//! set aside, and what it costs others that claims are served.

use crate::policy::Scorer;
use crate::queue::plan_with;
use crate::simulate::replay::ReplayError;
use crate::simulate::stats::Estimate;

use super::apart::plan_apart;
use super::engine::Engine;
use super::newest::plan_newest_first;
use super::outcome::Year;
use super::{Keeping, Setup, Victims};

/// What came of the same years, drawn from several seeds, under several rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Lent, and the fewest losses: what vingt does. A year for each seed.
    pub lent: Vec<Year>,
    /// Set aside.
    pub set_aside: Vec<Year>,
    /// Not kept at all.
    pub not_kept: Vec<Year>,
    /// Lent, and who started last leaves.
    pub newest_first: Vec<Year>,
}

/// Plays a year.
pub fn play(setup: &Setup) -> Result<Year, ReplayError> {
    let engine = Engine::new(setup)?;
    let scorer = Scorer::new(engine.snapshot());
    match setup.victims {
        Victims::LeastLost if setup.keeping == Keeping::SetAside => {
            engine.play(|snapshot, now_ms| plan_apart(snapshot, &scorer, now_ms))
        }
        Victims::LeastLost => engine.play(|snapshot, now_ms| plan_with(snapshot, &scorer, now_ms)),
        Victims::NewestFirst => engine.play(|snapshot, now_ms| plan_newest_first(snapshot, &scorer, now_ms)),
    }
}

/// Plays the year of `setup` for each seed under each of the rules; `told` hears of each year that is over.
pub fn compare(
    setup: &Setup,
    seeds: std::ops::Range<u64>,
    mut told: impl FnMut(&Setup, &Year),
) -> Result<Comparison, ReplayError> {
    let mut comparison = Comparison::default();
    for seed in seeds {
        for (keeping, victims) in [
            (Keeping::Lent, Victims::LeastLost),
            (Keeping::SetAside, Victims::LeastLost),
            (Keeping::Nothing, Victims::LeastLost),
            (Keeping::Lent, Victims::NewestFirst),
        ] {
            let setup = Setup { seed, keeping, victims, ..setup.clone() };
            let year = play(&setup)?;
            told(&setup, &year);
            let years = match (keeping, victims) {
                (Keeping::SetAside, _) => &mut comparison.set_aside,
                (Keeping::Nothing, _) => &mut comparison.not_kept,
                (Keeping::Lent, Victims::LeastLost) => &mut comparison.lent,
                (Keeping::Lent, Victims::NewestFirst) => &mut comparison.newest_first,
            };
            years.push(year);
        }
    }
    Ok(comparison)
}

impl Comparison {
    /// By how much lending raises utilisation over setting aside, in parts of the cluster.
    pub fn gain(&self) -> Estimate {
        paired(&self.lent, &self.set_aside, |lent, aside| {
            lent.summary.utilisation() - aside.summary.utilisation()
        })
    }

    /// By how much utilisation differs from where nothing is kept, in parts of the cluster.
    pub fn gain_over_nothing(&self) -> Estimate {
        paired(&self.lent, &self.not_kept, |lent, nothing| {
            lent.summary.utilisation() - nothing.summary.utilisation()
        })
    }

    /// By how much fewer jobs leave for each hour that is claimed than when the newest go first, as a part of those.
    pub fn fewer_evictions(&self) -> Estimate {
        paired(&self.lent, &self.newest_first, |ours, theirs| {
            let theirs = theirs.summary.evictions_per_gpu_hour();
            if theirs > 0.0 { 1.0 - ours.summary.evictions_per_gpu_hour() / theirs } else { 0.0 }
        })
    }

    /// The same of the work that is lost.
    pub fn less_lost(&self) -> Estimate {
        paired(&self.lent, &self.newest_first, |ours, theirs| {
            let theirs = theirs.summary.lost_per_gpu_hour();
            if theirs > 0.0 { 1.0 - ours.summary.lost_per_gpu_hour() / theirs } else { 0.0 }
        })
    }
}

/// The estimate of what two years of the same seed differ by.
fn paired(ours: &[Year], theirs: &[Year], differ: impl Fn(&Year, &Year) -> f64) -> Estimate {
    let samples: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| differ(ours, theirs)).collect();
    Estimate::of(&samples)
}
