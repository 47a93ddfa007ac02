//! The ceiling: a job is placed if all that run and it would fit after moving
//! everything at no cost.

use crate::states::fit::Fit;

use super::loss::Placer;
use super::trace::Job;

/// Places by count alone.
#[derive(Clone, Debug)]
pub struct Repack<'a> {
    fit: &'a Fit,
    gpus: u64,
    held: Vec<u64>,
}

impl<'a> Repack<'a> {
    /// `gpus` of the card of `fit`, nothing held.
    pub fn new(fit: &'a Fit, gpus: u64, demands: usize) -> Self {
        Self { fit, gpus, held: vec![0; demands] }
    }
}

impl Placer for Repack<'_> {
    fn arrive(&mut self, _: f64, _: u32, job: Job) -> bool {
        self.held[job.demand] += 1;
        let fits = self.fit.fits(&self.held, self.gpus);
        self.held[job.demand] -= u64::from(!fits);
        fits
    }

    fn depart(&mut self, _: f64, _: u32, job: Job) {
        self.held[job.demand] -= 1;
    }
}
