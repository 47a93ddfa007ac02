//! Plays a scenario with each policy, all at once, and shows how far they are.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use vingt_core::model::PlacementPolicy;
use vingt_core::simulate::replay::{Observer, ReplayError, Scenario, replay};

use super::input::capacity;
use super::outcome::{Result as Played, Results, name};

/// Parts of the whole that a bar shows.
const STEPS: u32 = 1000;

/// Plays `scenario` with each of `policies`.
pub fn all(scenario: &Scenario, policies: &[PlacementPolicy]) -> Result<Results, ReplayError> {
    let bars = MultiProgress::new();
    let width = policies.iter().map(|policy| name(*policy).len()).max().unwrap_or(0);
    let style = ProgressStyle::with_template("{prefix} {bar:40} {percent:>3} %  {eta_precise}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let played: Vec<Result<Played, ReplayError>> = std::thread::scope(|scope| {
        let start = |policy: &PlacementPolicy| {
            let policy = *policy;
            let bar = bars.add(ProgressBar::new(STEPS.into()).with_style(style.clone()));
            bar.set_prefix(format!("{:<width$}", name(policy)));
            scope.spawn(move || {
                let played = one(scenario, policy, &bar);
                bar.finish_and_clear();
                played
            })
        };
        let threads: Vec<_> = policies.iter().map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    Ok(Results {
        version: 1,
        nodes: scenario.snapshot.nodes.len(),
        gpus: scenario.snapshot.gpus.len(),
        capacity: capacity(&scenario.snapshot),
        start_ms: scenario.start_ms,
        policies: played.into_iter().collect::<Result<_, _>>()?,
    })
}

fn one(scenario: &Scenario, policy: PlacementPolicy, bar: &ProgressBar) -> Result<Played, ReplayError> {
    let mut scenario = scenario.clone();
    scenario.snapshot.settings.placement = policy;
    let outcome = replay(&scenario, &mut Watch(bar))?;
    Ok(Played::of(policy, outcome))
}

struct Watch<'a>(&'a ProgressBar);

impl Observer for Watch<'_> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 1
    fn progress(&mut self, fraction: f64) {
        self.0.set_position((fraction.clamp(0.0, 1.0) * f64::from(STEPS)) as u64);
    }
}
