//! Forecasts of what is known, of what is not, and whether those of drawn
//! traces hold.

use super::*;
use crate::model::{Resources, Tenant};
use crate::simulate::fleet::{Sort, fleet, shape};
use crate::simulate::jobs::scenario;
use crate::simulate::replay::Facts;
use crate::simulate::sample::{Sample, draw};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// One GPU on which `old` runs since 0, and `new` that waits; the past is that of as many runs.
fn one_gpu(past: impl Iterator<Item = (i64, bool)>) -> (Snapshot, History) {
    let mut snapshot = fleet(1, 1, Sort::H100);
    shape(&mut snapshot, 1, "gpu", &Resources::default()).unwrap();
    let workload =
        |key: &str| Workload { key: key.into(), tenant: "default".into(), pods: 1, ..Workload::default() };
    snapshot.waiting.push(workload("new"));
    let plan = crate::plan(&snapshot, 0);
    let admission = &plan.admissions[0];
    snapshot.running.push(Running {
        key: "old".into(),
        tenant: "default".into(),
        pods: admission.pods.clone(),
        units: 56,
        ..Running::default()
    });
    snapshot.gpus[0].held = 1;
    snapshot.gpus[0].used = snapshot.gpus[0].capacity.clone();
    snapshot.tenants.get_mut("default").unwrap().used = 56;
    let past = past.zip(0..).map(|((ran_ms, ended), number)| Past {
        job: Job { workload: workload(&format!("past{number}")), facts: Facts::default() },
        ran_ms,
        ended,
    });
    (snapshot.clone(), History { past: past.collect(), since_ms: None })
}

fn ask(snapshot: &Snapshot, now_ms: i64, history: &History) -> Forecast {
    let told = forecast(snapshot, now_ms, history, &["new", "unknown"], Effort::default()).unwrap();
    assert_eq!(told.len(), 1);
    told[0].clone()
}

#[test]
fn where_all_lives_are_equal_the_start_is_known_and_what_frees_it() {
    let (snapshot, history) = one_gpu((0..20).map(|_| (100 * MINUTE_MS, true)));
    let told = ask(&snapshot, 40 * MINUTE_MS, &history);
    assert_eq!([told.p10_ms, told.p50_ms, told.p90_ms], [Some(100 * MINUTE_MS); 3]);
    assert_eq!((told.frees, told.draws, told.lives), (vec![("old".to_owned(), 1.0)], 100, 20));
}

#[test]
fn what_runs_for_long_already_is_like_those_that_ran_longer() {
    // Half of them end within 10 minutes, the others between 50 and 70.
    let lives =
        (0..100).map(|n| if n % 2 == 0 { MINUTE_MS * (n / 10) + 1 } else { MINUTE_MS * (50 + n / 5) });
    let (snapshot, history) = one_gpu(lives.map(|life| (life, true)));
    let young = ask(&snapshot, 1, &history);
    assert!(young.p10_ms.unwrap() < 4 * MINUTE_MS && young.p90_ms.unwrap() > 62 * MINUTE_MS, "{young:?}");
    let old = ask(&snapshot, 20 * MINUTE_MS, &history);
    assert!(old.p10_ms.unwrap() > 49 * MINUTE_MS && old.p90_ms.unwrap() <= 70 * MINUTE_MS, "{old:?}");
}

#[test]
fn runs_that_were_cut_off_count_as_longer_than_they_were() {
    let ended = |n: i64| (n % 10 + 1) * MINUTE_MS;
    let (snapshot, all) = one_gpu((0..100).map(|n| (ended(n), true)));
    // The same, but those that would have run for more than 5 minutes were cut off then.
    let (_, cut) = one_gpu((0..100).map(|n| (ended(n).min(5 * MINUTE_MS), ended(n) <= 5 * MINUTE_MS)));
    let (all, cut) = (ask(&snapshot, 1, &all), ask(&snapshot, 1, &cut));
    assert!(all.p50_ms.unwrap().abs_diff(cut.p50_ms.unwrap()) <= 60_000, "{all:?} {cut:?}");
    assert!(cut.p90_ms.unwrap() > 7 * MINUTE_MS, "{cut:?}");
}

#[test]
fn without_history_the_age_is_all_there_is_to_go_by() {
    let (snapshot, history) = one_gpu(std::iter::empty());
    let told = ask(&snapshot, 4 * HOUR_MS, &history);
    let median = told.p50_ms.unwrap() - 4 * HOUR_MS;
    assert!((2 * HOUR_MS..8 * HOUR_MS).contains(&median) && told.lives == 0, "{told:?}");
}

#[test]
fn what_is_declared_bounds_what_is_drawn() {
    let (mut snapshot, history) = one_gpu((0..20).map(|_| (100 * MINUTE_MS, true)));
    snapshot.running[0].ends_ms = Some(50 * MINUTE_MS);
    assert_eq!(ask(&snapshot, 40 * MINUTE_MS, &history).p90_ms, Some(50 * MINUTE_MS));
}

#[test]
fn who_arrives_and_goes_first_is_reckoned_with() {
    let (mut snapshot, mut history) = one_gpu((0..50).map(|_| (30 * MINUTE_MS, true)));
    for (past, number) in history.past.iter_mut().zip(0..) {
        past.job.workload.priority = 1000;
        past.job.workload.queued_ms = number * 12 * MINUTE_MS;
    }
    snapshot.settings.aging_ms = 100 * HOUR_MS;
    snapshot.settings.reservations = 0;
    let now_ms = 600 * MINUTE_MS;
    snapshot.running[0].admitted_ms = now_ms - MINUTE_MS;
    let effort = Effort { draws: 9, arrivals: 50, ..Effort::default() };
    let ask = |history: &History| forecast(&snapshot, now_ms, history, &["new"], effort).unwrap().remove(0);
    let alone = ask(&history);
    assert_eq!(alone.p50_ms, Some(now_ms + 29 * MINUTE_MS));
    history.since_ms = Some(0);
    // As many as two and a half GPUs could take come before it.
    let among = ask(&history);
    assert!(among.p50_ms.is_none_or(|at| at > now_ms + 2 * HOUR_MS), "{among:?}");
    assert!(among.frees.iter().all(|(key, _)| !key.starts_with(DRAWN)), "{among:?}");
}

#[test]
fn the_effort_is_bounded_and_a_seed_gives_the_same_answer() {
    let (mut snapshot, history) = one_gpu((0..20).map(|n| ((n + 1) * MINUTE_MS, true)));
    let effort = Effort { draws: 10, ..Effort::default() };
    let ask = |snapshot: &Snapshot, effort| forecast(snapshot, 5, &history, &["new"], effort).unwrap();
    let some = ask(&snapshot, effort);
    assert_eq!(some[0].draws, 10);
    assert_eq!(some, ask(&snapshot, effort));
    assert_ne!(some, ask(&snapshot, Effort { seed: 2, ..effort }));
    assert_eq!(ask(&snapshot, Effort { plans: 4, ..effort })[0].draws, 2);
    let near = ask(&snapshot, Effort { horizon_ms: 1, ..effort });
    assert_eq!((near[0].p10_ms, near[0].p50_ms), (None, None));
    snapshot.tenants = [("other".to_owned(), Tenant::default())].into();
    assert!(forecast(&snapshot, 5, &history, &["new"], effort).is_err());
}

#[test]
fn what_was_saved_before_an_eviction_is_part_of_the_life() {
    let (snapshot, mut history) = one_gpu((0..20).map(|_| (100 * MINUTE_MS, true)));
    let of = |key: &str, ran_ms, ended| Past {
        job: Job {
            workload: Workload { key: key.into(), ..history.past[0].job.workload.clone() },
            facts: Facts { checkpoint_ms: Some(10 * MINUTE_MS), ..Facts::default() },
        },
        ran_ms,
        ended,
    };
    // 65 minutes, of which 60 were saved: 40 are left.
    let before = of("old", 65 * MINUTE_MS, false);
    let parts = ["x", "y", "z"].map(|key| [of(key, 30 * MINUTE_MS, false), of(key, 70 * MINUTE_MS, true)]);
    history.past.extend(parts.into_iter().flatten().chain([before]));
    let told = ask(&snapshot, 15 * MINUTE_MS, &history);
    assert_eq!([told.p10_ms, told.p50_ms, told.p90_ms], [Some(40 * MINUTE_MS); 3]);
}

#[test]
fn who_declares_ends_after_the_part_of_it_that_others_took() {
    let (mut snapshot, mut history) = one_gpu((1..=20).map(|n| (n * MINUTE_MS, true)));
    for past in &mut history.past {
        past.job.workload.runs_ms = Some(past.ran_ms * 2);
    }
    snapshot.running[0].ends_ms = Some(200 * MINUTE_MS);
    let told = ask(&snapshot, 40 * MINUTE_MS, &history);
    assert_eq!([told.p10_ms, told.p50_ms, told.p90_ms], [Some(100 * MINUTE_MS); 3]);
}

#[test]
fn eight_of_ten_jobs_start_in_the_interval_that_says_so() {
    let mut cases = Vec::new();
    for sample in [Sample::Mig, Sample::Gangs, Sample::Tenants] {
        for (load, declared) in [(0.85, 0.0), (1.2, 0.8)] {
            let (snapshot, mut streams) = sample.on(8);
            for stream in &mut streams {
                stream.declared = declared;
            }
            let jobs = draw(&snapshot, &streams, load, 200, 7);
            let effort = Effort { draws: 9, plans: 1_500, cycle_ms: 5_000, seed: 7, ..Effort::default() };
            let asked = Asked { moments: 12, each: 4, effort };
            cases.extend(measure(&scenario(snapshot, &jobs).unwrap(), asked).unwrap());
        }
    }
    let (given, usual) = (Held::given(&cases), Held::usual(&cases));
    assert!(given.cases >= 120 && (0.7..=0.9).contains(&given.within), "{given:?}");
    assert!(given.width < 0.8 * usual.width, "the waits of late say as much: {given:?} {usual:?}");
}
