//! Means with confidence intervals.

/// A mean over independent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of its 95 % confidence interval (Student's t); 0 of a single run.
    pub half_width: f64,
}

/// 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom.
const STUDENT: [f64; 20] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086,
];

impl Estimate {
    /// Of `samples`, one from each run.
    #[allow(clippy::cast_precision_loss)] // numbers of runs
    pub fn of(samples: &[f64]) -> Self {
        let count = samples.len();
        if count == 0 {
            return Self::default();
        }
        let mean = samples.iter().sum::<f64>() / count as f64;
        if count == 1 {
            return Self { mean, half_width: 0.0 };
        }
        let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
        let quantile = STUDENT.get(count - 2).copied().unwrap_or(1.96);
        Self { mean, half_width: quantile * (variance / count as f64).sqrt() }
    }
}
