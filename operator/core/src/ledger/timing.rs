//! Times instant claims for the reports: from when others were first asked to
//! leave for one until it runs. Whether it runs is seen elsewhere.

use super::report::ClaimCount;

/// An instant claim that does not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedClaim {
    since_ms: i64,
    /// It is counted as late.
    late: bool,
}

impl TimedClaim {
    /// One for which others are asked first at this time, in milliseconds since 1970.
    pub fn since(since_ms: i64) -> Self {
        Self { since_ms, late: false }
    }

    /// Counts it once it runs, and before that once it is later than promised: it may never run.
    pub fn count(&mut self, runs: bool, within_ms: u64, now_ms: i64, counts: &mut ClaimCount) {
        let took_ms = u64::try_from(now_ms.saturating_sub(self.since_ms)).unwrap_or(0);
        let late = took_ms > within_ms;
        if !self.late && (runs || late) {
            counts.made += 1;
            counts.late += u64::from(late);
            self.late = late;
        }
        if runs {
            counts.slowest_ms = counts.slowest_ms.max(took_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_counts_once_also_if_it_never_runs() {
        let mut counts = ClaimCount::default();
        let mut claim = TimedClaim::since(1_000);
        claim.count(false, 500, 1_500, &mut counts);
        assert_eq!(counts, ClaimCount::default(), "it has its time");
        claim.count(false, 500, 1_501, &mut counts);
        claim.count(false, 500, 1_502, &mut counts);
        assert_eq!(counts, ClaimCount { made: 1, late: 1, slowest_ms: 0 });
        claim.count(true, 500, 4_000, &mut counts);
        assert_eq!(counts, ClaimCount { made: 1, late: 1, slowest_ms: 3_000 });
        TimedClaim::since(4_000).count(true, 500, 4_400, &mut counts);
        assert_eq!(counts, ClaimCount { made: 2, late: 1, slowest_ms: 3_000 });
    }
}
