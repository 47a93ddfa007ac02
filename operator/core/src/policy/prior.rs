//! Values from the mix of jobs alone, before anything is learnt: nothing to
//! search, a few microseconds, and on no mix of the benchmark worse than the
//! best of the simple rules at full load.

use super::features::Features;

/// Horizons of the promises, in mean lives: now, soon, and when most jobs of today are gone.
pub const HORIZONS: [f64; 3] = [0.0, 0.3, 1.0];

/// The horizons where it is known which jobs live long: at the last, in mean lives of all jobs, only those are left.
pub const HORIZONS_OF_LIVES: [f64; 4] = [0.0, 0.3, 1.0, 4.0];

/// How the mix becomes weights. Each pair is for the number of jobs that fit and for the chance that one fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constants {
    /// The weight at each horizon; the last counts only for [`HORIZONS_OF_LIVES`].
    pub weight: [[f64; 2]; 4],
    /// The power of a demand's share that it is scaled by.
    pub share_power: [f64; 2],
    /// The power of its worth.
    pub worth_power: [f64; 2],
}

/// Found by the benchmark's `prior` search over random mixes at full load, none of them one of the benchmark's.
pub const CONSTANTS: Constants = Constants {
    weight: [[1.160, -0.800], [1.022, 0.026], [0.560, -0.039], [0.3, 0.0]],
    share_power: [0.385, 1.039],
    worth_power: [1.753, 0.412],
};

impl Constants {
    /// Weights of `features`, which have the first horizons of [`HORIZONS_OF_LIVES`] or all, for jobs that arrive with `share` of each demand and are
    /// worth `worth` slices each.
    pub fn weights(&self, features: &Features, share: &[f64], worth: &[f64]) -> Vec<f64> {
        let total: f64 = share.iter().sum();
        let mut weights = Vec::with_capacity(features.width());
        let horizons = features.width() / (2 * features.demands().len()).max(1);
        for of_horizon in self.weight.iter().take(horizons) {
            for &demand in features.demands() {
                let alike =
                    share.iter().enumerate().filter(|&(other, _)| features.stands_for(other) == demand);
                let share = alike.map(|(_, share)| share).sum::<f64>() / total.max(f64::MIN_POSITIVE);
                for (kind, weight) in of_horizon.iter().enumerate() {
                    let scale =
                        share.powf(self.share_power[kind]) * worth[demand].powf(self.worth_power[kind]);
                    weights.push(weight * scale);
                }
            }
        }
        weights
    }
}
