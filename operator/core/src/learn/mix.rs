//! Which jobs come and how long they live, estimated from what was seen, with
//! old jobs counting less, and forgotten at once when the mix has changed.

use crate::states::Demand;

/// Arrivals over which the mix is averaged while it does not change.
const LONG: f64 = 20_000.0;

/// Arrivals over which a change is looked for.
const SHORT: f64 = 400.0;

/// Arrivals before which no change is looked for.
const SETTLED: f64 = 1_000.0;

/// Arrivals over which lives are averaged.
const LIVES: f64 = 5_000.0;

/// Departures that the mean over all demands counts for, beside a demand's own.
const SHRINK: f64 = 5.0;

/// Estimates of a stream of jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    long: Vec<f64>,
    short: Vec<f64>,
    /// Jobs that run, the time that they ran, and how many of them have ended.
    held: Vec<f64>,
    exposure: Vec<f64>,
    ended: Vec<f64>,
    arrivals: f64,
    elapsed: f64,
    last: Option<f64>,
    changes: u64,
}

impl Mix {
    /// Of `demands` sorts of jobs, nothing seen.
    pub fn new(demands: usize) -> Self {
        let none = vec![0.0; demands];
        Self {
            long: none.clone(),
            short: none.clone(),
            held: none.clone(),
            exposure: none.clone(),
            ended: none,
            arrivals: 0.0,
            elapsed: 0.0,
            last: None,
            changes: 0,
        }
    }

    /// A job arrives; `placed` says whether it runs from now on. Returns whether the mix has changed since.
    pub fn arrived(&mut self, now: f64, demand: Demand, placed: bool) -> bool {
        self.pass(now);
        let keep = 1.0 - 1.0 / LIVES;
        self.exposure.iter_mut().chain(&mut self.ended).for_each(|x| *x *= keep);
        self.arrivals = self.arrivals * keep + 1.0;
        self.elapsed *= keep;
        self.held[demand] += f64::from(u8::from(placed));
        for (counts, window) in [(&mut self.long, LONG), (&mut self.short, SHORT)] {
            for count in counts.iter_mut() {
                *count *= 1.0 - 1.0 / window;
            }
            counts[demand] += 1.0;
        }
        let changed = self.differs();
        if changed {
            self.long.clone_from(&self.short);
            self.changes += 1;
        }
        changed
    }

    /// A job that ran leaves.
    pub fn left(&mut self, now: f64, demand: Demand) {
        self.pass(now);
        self.held[demand] = (self.held[demand] - 1.0).max(0.0);
        self.ended[demand] += 1.0;
    }

    /// A job that was waiting runs from now on.
    pub fn started(&mut self, now: f64, demand: Demand) {
        self.pass(now);
        self.held[demand] += 1.0;
    }

    fn pass(&mut self, now: f64) {
        let passed = self.last.map_or(0.0, |last| (now - last).max(0.0));
        self.elapsed += passed;
        for (exposure, held) in self.exposure.iter_mut().zip(&self.held) {
            *exposure += held * passed;
        }
        self.last = Some(now);
    }

    /// Chi-squared of the last arrivals against the mix, far beyond chance.
    #[allow(clippy::cast_precision_loss)] // number of demands
    fn differs(&self) -> bool {
        let (long, short): (f64, f64) = (self.long.iter().sum(), self.short.iter().sum());
        if long < SETTLED {
            return false;
        }
        // An exponential window has twice as many samples as it is long.
        let samples = 2.0 * short;
        let freedom = self.long.iter().filter(|&&count| count > 0.0).count() as f64;
        let distance = |(a, b): (&f64, &f64)| {
            let expected = (a / long).max(1.0 / long);
            samples * (b / short - a / long).powi(2) / expected
        };
        let statistic: f64 = self.long.iter().zip(&self.short).map(distance).sum();
        statistic > freedom + 8.0 * (2.0 * freedom).sqrt()
    }

    /// Share of each demand among arrivals; never quite 0.
    #[allow(clippy::cast_precision_loss)]
    pub fn share(&self) -> Vec<f64> {
        let total: f64 = self.long.iter().sum::<f64>() + 0.5;
        self.long.iter().map(|count| (count + 0.5 / self.long.len() as f64) / total).collect()
    }

    /// Mean life of the jobs of each demand, in the unit of time; `None` before any has ended.
    pub fn life(&self) -> Option<Vec<f64>> {
        let ended: f64 = self.ended.iter().sum();
        let mean = self.exposure.iter().sum::<f64>() / ended;
        let of = |(exposure, ended): (&f64, &f64)| (exposure + SHRINK * mean) / (ended + SHRINK);
        (ended > 0.0 && mean > 0.0).then(|| self.exposure.iter().zip(&self.ended).map(of).collect())
    }

    /// What would be held, in slices, if every job were placed, each holding `size` of its demand.
    pub fn load(&self, size: &[f64]) -> Option<f64> {
        let life = self.life()?;
        let held: f64 = self.share().iter().zip(size).zip(&life).map(|((p, s), t)| p * s * t).sum();
        (self.elapsed > 0.0).then(|| self.arrivals / self.elapsed * held)
    }

    /// How often the mix has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }
}
