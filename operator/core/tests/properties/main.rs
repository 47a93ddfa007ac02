//! What must hold of the planner whatever happens: random clusters, tenants and
//! jobs live by its plans, and what it decides is checked by code that shares
//! nothing with it. The numbers of the invariants are those of the design.
//!
//! A failing case is printed as text; put it into `regressions.rs` under a name
//! that says what went wrong. `VINGT_PROPTEST_CASES` sets how many cases each
//! property is tried on, `VINGT_PROPTEST_SEED` which ones they are: where a
//! change is judged they are always the same, else always others.

// All of it is tests, also what is in functions without the attribute.
#![allow(clippy::unwrap_used, clippy::panic)]

mod cards;
mod drive;
mod history;
mod judge;
mod ledger;
mod regressions;
mod scenario;
mod show;
mod strategies;
mod stream;
mod text;
mod tree;
mod world;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use proptest::test_runner::TestCaseError;

use drive::Drive;
use judge::{Broken, Rule};

/// Many where a change is judged, and the same for each change; few while it is written.
fn cases() -> ProptestConfig {
    let set = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let judged = std::env::var_os("CI").is_some();
    let usual = if judged { 10_000 } else { 1_000 };
    let cases = set("VINGT_PROPTEST_CASES").and_then(|cases| u32::try_from(cases).ok()).unwrap_or(usual);
    let seed = set("VINGT_PROPTEST_SEED").or(judged.then_some(20));
    let rng_seed = seed.map_or(RngSeed::Random, RngSeed::Fixed);
    ProptestConfig { cases, rng_seed, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

fn failed(Broken { rule, what }: Broken) -> TestCaseError {
    TestCaseError::fail(format!("{rule:?}: {what}"))
}

fn holds(scenario: &scenario::Scenario, rules: &[Rule]) -> Result<(), TestCaseError> {
    Drive::play(scenario, rules).map(|_| ()).map_err(failed)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nothing_overlaps_gangs_are_whole_and_limits_hold(scenario in strategies::scenario(24)) {
        holds(&scenario, &[Rule::Places, Rule::Gangs])?;
    }

    #[test]
    fn what_is_evicted_is_evicted_by_right_and_not_in_circles(scenario in strategies::scenario(24)) {
        holds(&scenario, &[Rule::Evictions])?;
    }

    #[test]
    fn places_that_are_kept_can_be_had_when_promised(scenario in strategies::scenario(24)) {
        holds(&scenario, &[Rule::Reservations])?;
    }

    #[test]
    fn the_same_is_decided_again_in_whatever_order_things_are_listed(scenario in strategies::scenario(24)) {
        holds(&scenario, &[Rule::Same])?;
    }

    #[test]
    fn what_fits_starts_in_the_end(scenario in strategies::scenario(24)) {
        let mut drive = Drive::play(&scenario, &[Rule::Starts]).map_err(failed)?;
        drive.run_dry().map_err(failed)?;
    }

    #[test]
    fn a_wide_gang_starts_in_a_stream_of_small_jobs(stream in stream::stream()) {
        stream.lets_the_gang_start().map_err(failed)?;
    }

    #[test]
    fn scenarios_can_be_read_back(scenario in strategies::scenario(24)) {
        prop_assert_eq!(&text::scenario(&format!("{scenario:?}")), &scenario);
    }
}
