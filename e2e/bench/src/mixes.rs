//! The mixes of jobs and the simple rules that everything is compared with.

use std::sync::Arc;

use vingt_core::policy::greedy::{BestFit, FirstFit, Spread};
use vingt_core::policy::{Policy, Values};
use vingt_core::simulate::{Table, cards};
use vingt_core::states::Space;
use vingt_core::states::fit::Fit;

/// Slices of a GPU.
pub const SLICES: f64 = 8.0;

/// Slices of each profile of [`cards::HOPPER`].
pub const SIZE: [f64; 6] = [1.0, 2.0, 2.0, 4.0, 4.0, 8.0];

/// The demand that takes a whole GPU.
pub const WHOLE: usize = 5;

/// Shares of 1g, 1g-double, 2g, 3g, 4g, 7g.
pub const MIXES: [(&str, [f64; 6]); 5] = [
    ("uniform", [1.0 / 6.0; 6]),
    ("skew-small", [0.30, 0.25, 0.20, 0.10, 0.10, 0.05]),
    ("skew-big", [0.05, 0.10, 0.10, 0.20, 0.25, 0.30]),
    ("bimodal", [0.30, 0.15, 0.05, 0.05, 0.15, 0.30]),
    ("openb-near", [0.034, 0.0, 0.178, 0.307, 0.13, 0.351]),
];

/// The mix called `name`.
pub fn share(name: &str) -> anyhow::Result<[f64; 6]> {
    let found = MIXES.iter().find(|(mix, _)| *mix == name);
    found
        .map(|(_, share)| *share)
        .ok_or_else(|| anyhow::anyhow!("no mix {name:?}: one of {}", names().join(", ")))
}

/// Their names.
pub fn names() -> Vec<&'static str> {
    MIXES.iter().map(|(name, _)| *name).collect()
}

/// The card and its states.
pub struct Ground {
    /// States lumped into classes.
    pub classes: Arc<Space>,
    /// Every state for itself.
    pub states: Arc<Space>,
    /// What fits.
    pub fit: Fit,
}

impl Ground {
    /// Of an H100.
    pub fn new() -> anyhow::Result<Self> {
        let card = cards::hopper();
        Ok(Self {
            classes: Arc::new(Space::new(std::slice::from_ref(&card), SIZE.len())?),
            states: Arc::new(Space::unlumped(std::slice::from_ref(&card), SIZE.len())?),
            fit: Fit::new(&card, SIZE.len())?,
        })
    }

    /// The simple rules. The first four are those of whose best the gap is measured.
    pub fn rules(&self, share: &[f64]) -> Vec<(&'static str, Arc<Table>)> {
        let rule = |policy: &dyn Policy| Table::of_rule(&self.states, policy);
        vec![
            ("first fit", rule(&FirstFit)),
            ("best fit", rule(&BestFit)),
            ("MFI-like", rule(&Values::blocked_windows(&self.states))),
            ("FGD", rule(&Values::fragmentation(&self.states, share))),
            ("spread", rule(&Spread)),
        ]
    }
}

/// How many of [`Ground::rules`] count as the best simple rule.
pub const COUNTED: usize = 4;
