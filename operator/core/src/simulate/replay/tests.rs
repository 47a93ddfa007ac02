//! Replays with the planner of the cluster, and with planners made up to see
//! what becomes of each part of a plan.

use super::*;
use crate::model::{
    Admission, DeviceIndex, Eviction, EvictionReason, GpuIndex, NodeIndex, PodPlacement, Replacement,
    Reservation, Resources, Tenant,
};
use crate::simulate::fleet::{Sort, fleet, shape};

/// `gpus` whole GPUs on one node, and tenants `default` and `b`.
fn whole(gpus: u32) -> Scenario {
    let mut snapshot = fleet(1, gpus, Sort::H100);
    snapshot.tenants.insert("b".into(), Tenant::default());
    shape(&mut snapshot, 1, "gpu", &Resources::default()).unwrap();
    Scenario { snapshot, ..Scenario::default() }
}

fn job(key: &str, queued_ms: i64, pods: u32, duration_ms: i64) -> Job {
    Job {
        workload: Workload {
            key: key.into(),
            tenant: "default".into(),
            queued_ms,
            pods,
            ..Workload::default()
        },
        facts: Facts { duration_ms, grace_ms: 10, evictable: true, ..Facts::default() },
    }
}

fn place(gpu: u32) -> PodPlacement {
    PodPlacement { node: NodeIndex(0), devices: vec![vec![DeviceIndex { gpu: GpuIndex(gpu), device: 0 }]] }
}

fn admission(workload: usize, gpus: &[u32]) -> Admission {
    let pods: Vec<_> = gpus.iter().map(|gpu| place(*gpu)).collect();
    Admission { workload, units: 56 * pods.len() as u64, pods, right: crate::model::Right::default() }
}

fn position(snapshot: &Snapshot, key: &str) -> Option<usize> {
    snapshot.waiting.iter().position(|workload| workload.key == key)
}

fn runs(snapshot: &Snapshot, key: &str) -> Option<usize> {
    snapshot.running.iter().position(|running| running.key == key)
}

#[test]
fn jobs_wait_for_one_another_and_the_sums_are_those_of_the_stories() {
    let mut scenario = whole(2);
    scenario.jobs = vec![job("a", 0, 1, 100), job("b", 0, 2, 50), job("c", 120, 1, 30)];
    let outcome = replay(&scenario, &mut ()).unwrap();
    let times = |key: usize| (outcome.jobs[key].started_ms.unwrap(), outcome.jobs[key].ended_ms.unwrap());
    assert_eq!([times(0), times(1), times(2)], [(0, 100), (100, 150), (150, 180)]);
    assert_eq!(outcome.jobs.iter().map(|job| job.waited_ms).collect::<Vec<_>>(), [0, 100, 30]);
    let summary = &outcome.summary;
    assert_eq!((summary.started, summary.ended, summary.makespan_ms), (3, 3, 180));
    assert_eq!((summary.wait_ms.p50, summary.wait_ms.max), (30, 100));
    assert_eq!(outcome.tenants["default"].held, 56 * (100 + 2 * 50 + 30));
    assert!((summary.utilisation - 230.0 / 360.0).abs() < 1e-9, "{}", summary.utilisation);
    assert_eq!(summary.profiles["gpu"].started, 3);
    let last = outcome.points.last().unwrap();
    assert_eq!((last.at_ms, last.used, last.free, last.waiting), (180, 0, 112, 0));
}

#[test]
fn a_replay_is_the_same_each_time_and_is_cut_off_when_told() {
    let mut scenario = whole(1);
    scenario.jobs = (0..20).map(|n| job(&format!("j{n:02}"), n * 3, 1, 10 + n % 7)).collect();
    let all = replay(&scenario, &mut ()).unwrap();
    assert_eq!(all, replay(&scenario, &mut ()).unwrap());
    scenario.until_ms = Some(100);
    let part = replay(&scenario, &mut ()).unwrap();
    assert_eq!(part.summary.makespan_ms, 100);
    assert!(part.summary.ended < all.summary.ended && part.summary.ended > 0);
    assert_eq!(part.tenants["default"].held, 56 * 100);
}

#[test]
fn an_evicted_job_keeps_what_was_saved_and_a_moved_one_its_place_in_the_queue_too() {
    for (reason, queued_ms, moves) in [(EvictionReason::Preempted, 70, 0), (EvictionReason::Moved, 0, 1)] {
        let mut scenario = whole(1);
        let mut victim = job("victim", 0, 1, 100);
        victim.facts.checkpoint_ms = Some(30);
        victim.facts.leaves_after_ms = Some(5);
        victim.facts.movable = crate::model::Movable::Restart;
        scenario.jobs = vec![victim, job("other", 65, 1, 20)];
        let planner = |snapshot: &Snapshot, now_ms: i64| {
            let mut plan = Plan::default();
            let victim = runs(snapshot, "victim").filter(|_| now_ms >= 70);
            if let (Some(by), Some(running)) = (position(snapshot, "other"), victim) {
                if snapshot.running[running].leaves_ms.is_none() {
                    assert_eq!(snapshot.running[running].saved_ms, Some(60));
                    plan.evictions.push(Eviction { running, by, reason, lost: 56 * 10 });
                }
            } else if snapshot.running.is_empty() {
                let next = position(snapshot, "other").filter(|_| now_ms >= 70);
                let victim = position(snapshot, "victim");
                if let Some(victim) = victim.filter(|_| now_ms >= 70) {
                    assert_eq!(snapshot.waiting[victim].queued_ms, queued_ms, "{reason:?}");
                }
                plan.admissions.push(admission(next.or(victim).unwrap_or(0), &[0]));
            }
            plan
        };
        // At 70 somebody else comes, so that there is a plan.
        scenario.jobs.push(job("late", 70, 1, 1));
        let outcome = replay_by(&scenario, planner, &mut ()).unwrap();
        let victim = &outcome.jobs[0];
        // Asked at 70, left at 75; 60 of 100 were saved; it waits for the other until 95.
        assert_eq!(outcome.jobs[1].started_ms, Some(75));
        assert_eq!((victim.started_ms, victim.ended_ms), (Some(0), Some(95 + 40)));
        assert_eq!((victim.evictions, victim.moves), (1 - moves, moves));
        assert_eq!((victim.lost, victim.waited_ms, victim.queued_ms), (56 * 15, 20, 0));
    }
}

#[test]
fn what_ran_at_the_start_goes_on_and_comes_back_when_evicted() {
    let mut scenario = whole(2);
    let held = |gpu| Running {
        key: format!("old{gpu}"),
        tenant: "b".into(),
        pods: vec![place(gpu)],
        units: 56,
        admitted_ms: 400,
        saved_ms: Some(900),
        evictable: true,
        grace_ms: 10,
        ..Running::default()
    };
    scenario.start_ms = 1000;
    scenario.snapshot.running = vec![held(0), held(1)];
    scenario.snapshot.tenants.get_mut("b").unwrap().used = 112;
    for gpu in &mut scenario.snapshot.gpus {
        gpu.held = 1;
        gpu.used.clone_from(&gpu.capacity);
    }
    let facts = |duration_ms| Facts { duration_ms, grace_ms: 10, evictable: true, ..Facts::default() };
    scenario.running = vec![facts(500), facts(60)];
    scenario.jobs = vec![job("new", 0, 1, 40)];
    let planner = |snapshot: &Snapshot, now_ms: i64| {
        let mut plan = Plan::default();
        let evict = runs(snapshot, "old0")
            .filter(|place| now_ms == 1000 && snapshot.running[*place].leaves_ms.is_none());
        if let Some(running) = evict {
            plan.evictions.push(Eviction { running, by: 0, reason: EvictionReason::Reclaimed, lost: 0 });
        } else if let Some(gpu) = (0..2).find(|gpu| snapshot.gpus[*gpu as usize].held == 0) {
            plan.admissions.push(admission(position(snapshot, "new").unwrap_or(0), &[gpu]));
        }
        plan
    };
    let outcome = replay_by(&scenario, planner, &mut ()).unwrap();
    assert_eq!(outcome.jobs.len(), 1, "only the scenario's own");
    assert_eq!(outcome.jobs[0].ended_ms, Some(1050));
    // 500 were left at 1000, and it starts anew at 1050 from what it had saved 100 before.
    assert_eq!(outcome.summary.makespan_ms, 50 + 600);
    assert_eq!((outcome.summary.evictions, outcome.tenants["default"].held), (1, 56 * 40));
}

#[test]
fn a_replaced_pod_is_there_twice_until_the_new_one_is_ready() {
    let mut scenario = whole(2);
    scenario.ready_ms = 20;
    let mut replica = job("replica", 0, 1, 100);
    replica.facts.movable = crate::model::Movable::Replace;
    scenario.jobs = vec![replica, job("late", 30, 1, 5)];
    let planner = |snapshot: &Snapshot, now_ms: i64| {
        let mut plan = Plan::default();
        match (position(snapshot, "late"), runs(snapshot, "replica")) {
            (Some(by), Some(running)) if now_ms == 30 => {
                plan.replacements.push(Replacement { running, pod: 0, to: place(1), by });
            }
            (Some(late), _) if snapshot.gpus[0].held == 0 => plan.admissions.push(admission(late, &[0])),
            (None, None) => plan.admissions.push(admission(0, &[0])),
            _ => {}
        }
        plan
    };
    let outcome = replay_by(&scenario, planner, &mut ()).unwrap();
    assert_eq!(outcome.jobs[1].started_ms, Some(30 + 20 + 10));
    assert_eq!((outcome.jobs[0].ended_ms, outcome.jobs[0].moves), (Some(100), 1));
    assert_eq!(outcome.tenants["default"].held, 56 * (100 + 30 + 5));
    assert_eq!(outcome.summary.moves, 1);
}

#[test]
fn what_is_kept_for_a_job_is_told_to_the_next_plan() {
    let mut scenario = whole(1);
    scenario.jobs = vec![job("a", 0, 1, 10), job("b", 5, 1, 10)];
    let mut kept = Vec::new();
    let planner = |snapshot: &Snapshot, now_ms: i64| {
        let mut plan = crate::plan(snapshot, now_ms);
        kept.extend(snapshot.waiting.iter().map(|it| (it.key.clone(), it.reserved.len(), it.reserved_rank)));
        if now_ms == 5 {
            let promised = |workload| Reservation {
                workload,
                pods: vec![place(0)],
                free_ms: None,
                right: crate::model::Right::default(),
            };
            plan.reservations = [1, 0].map(promised).into();
        }
        plan
    };
    scenario.jobs.push(job("c", 5, 1, 10));
    replay_by(&scenario, planner, &mut ()).unwrap();
    let of = |key: &str| kept.iter().filter(|(of, ..)| of == key).map(|it| (it.1, it.2)).collect::<Vec<_>>();
    assert_eq!((&of("b")[..2], &of("c")[..2]), (&[(0, 0), (1, 1)][..], &[(0, 0), (1, 0)][..]));
}

#[test]
fn the_past_fades_and_the_last_start_is_known() {
    let mut scenario = whole(1);
    scenario.snapshot.settings.half_life_ms = 1000;
    scenario.jobs = vec![job("a", 0, 1, 1_000), job("b", 2_000, 1, 1)];
    let mut seen = Vec::new();
    let planner = |snapshot: &Snapshot, now_ms: i64| {
        let tenant = &snapshot.tenants["default"];
        seen.push((tenant.recent, tenant.last_admitted_ms));
        crate::plan(snapshot, now_ms)
    };
    replay_by(&scenario, planner, &mut ()).unwrap();
    // Half a half-life's worth at its end, and half of that a half-life later.
    assert_eq!(seen[0], (0, 0));
    assert!(seen[1].0.abs_diff(20_197) <= 2, "{seen:?}");
}

#[test]
fn who_is_served_out_of_turn_is_not_served() {
    let mut scenario = whole(1);
    scenario.start_ms = 5;
    scenario.jobs = vec![job("a", 5, 1, 10), job("b", 5, 1, 10), job("c", 5, 1, 10)];
    let mut seen = Vec::new();
    let planner = |snapshot: &Snapshot, now_ms: i64| {
        seen.push(snapshot.tenants["default"].last_admitted_ms);
        let mut plan = Plan { admissions: vec![admission(0, &[0])], ..Plan::default() };
        plan.out_of_turn.extend((now_ms == 15).then_some(0));
        plan
    };
    replay_by(&scenario, planner, &mut ()).unwrap();
    assert_eq!(seen, [0, 5, 5]);
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_told() {
    type Planner = fn(&Snapshot) -> Plan;
    let plans: [(&str, Planner); 5] = [
        ("admission of b: gpu-0 of gpu-0 is held already", |s| Plan {
            admissions: vec![admission(position(s, "b").unwrap(), &[0])],
            ..Plan::default()
        }),
        ("admission of b: 2 of 1 pods", |s| Plan {
            admissions: vec![admission(position(s, "b").unwrap(), &[0, 1])],
            ..Plan::default()
        }),
        ("an admission of what doesn't wait", |_| Plan {
            admissions: vec![admission(9, &[0])],
            ..Plan::default()
        }),
        ("eviction of a: it may not be moved so", |_| Plan {
            evictions: vec![Eviction { running: 0, by: 0, reason: EvictionReason::Moved, lost: 0 }],
            ..Plan::default()
        }),
        ("replacement of a pod of a: it may not be moved so", |_| Plan {
            replacements: vec![Replacement { running: 0, pod: 0, to: place(1), by: 0 }],
            ..Plan::default()
        }),
    ];
    for (problem, wrong) in plans {
        let mut scenario = whole(2);
        scenario.jobs = vec![job("a", 0, 1, 10), job("b", 5, 1, 10)];
        let planner = |snapshot: &Snapshot, now_ms: i64| match now_ms {
            0 => Plan { admissions: vec![admission(0, &[0])], ..Plan::default() },
            _ => wrong(snapshot),
        };
        let error = replay_by(&scenario, planner, &mut ()).unwrap_err();
        assert_eq!(error, ReplayError::Plan { now_ms: 5, problem: problem.into() });
    }
}

#[test]
fn a_planner_that_goes_round_in_circles_is_stopped() {
    let mut scenario = whole(2);
    scenario.jobs = ["a", "b", "c"].map(|key| job(key, 0, 1, 1_000_000)).into();
    scenario.jobs.push(job("d", 5, 1, 1_000_000));
    // Whoever waits gets what is free, and for the next one somebody else is evicted.
    let planner = |snapshot: &Snapshot, _: i64| {
        let mut plan = Plan::default();
        let free = (0..2).filter(|gpu| snapshot.gpus[*gpu as usize].held == 0);
        plan.admissions.extend(free.zip(0..).map(|(gpu, workload)| admission(workload, &[gpu])));
        if let Some(running) = snapshot.running.iter().position(|running| running.leaves_ms.is_none()) {
            plan.evictions.push(Eviction { running, by: 0, reason: EvictionReason::Preempted, lost: 0 });
        }
        plan
    };
    let error = replay_by(&scenario, planner, &mut ()).unwrap_err();
    assert!(matches!(error, ReplayError::Circles { .. }), "{error}");
}

#[test]
fn a_bad_scenario_is_refused_with_its_job_and_field() {
    type Spoil = fn(&mut Scenario);
    let table: [(Spoil, &str); 10] = [
        (
            |s| s.jobs[1].workload.key = "a".into(),
            r#"job "a", field key: another job has the same: name each differently"#,
        ),
        (
            |s| s.jobs[1].workload.tenant = "x".into(),
            r#"job "b", field tenant: no tenant "x"; there are: b, default"#,
        ),
        (|s| s.jobs[1].workload.shape = 1, r#"job "b", field shape: 1 is not one of 1"#),
        (|s| s.jobs[1].workload.pods = 0, r#"job "b", field pods: must be at least 1"#),
        (|s| s.jobs[1].facts.duration_ms = 0, r#"job "b", field duration_ms: 0 is not more than 0"#),
        (
            |s| s.jobs[1].workload.runs_ms = Some(9),
            r#"job "b", field runs_ms: 9 is less than the 10 ms that it runs"#,
        ),
        (
            |s| s.jobs[1].facts.checkpoint_ms = Some(0),
            r#"job "b", field checkpoint_ms: must be more than 0, or absent"#,
        ),
        (
            |s| s.jobs[1].facts.leaves_after_ms = Some(11),
            r#"job "b", field leaves_after_ms: must be between 0 and grace_ms, 10"#,
        ),
        (|s| s.running.push(Facts::default()), "scenario, field running: 1 entries for 0 that run"),
        (
            |s| s.snapshot.waiting.push(Workload::default()),
            "scenario, field snapshot.waiting: must be empty: put what waits among the jobs",
        ),
    ];
    for (spoil, error) in table {
        let mut scenario = whole(1);
        scenario.jobs = vec![job("a", 0, 1, 10), job("b", 0, 1, 10)];
        spoil(&mut scenario);
        assert_eq!(replay(&scenario, &mut ()).unwrap_err().to_string(), error);
    }
}

/// Counts what it hears.
#[derive(Default)]
struct Ear {
    told: Vec<f64>,
    ended: usize,
    plans: u64,
}

impl Observer for Ear {
    fn progress(&mut self, fraction: f64) {
        self.told.push(fraction);
    }

    fn planned(&mut self, _: &Snapshot, _: i64, _: &Plan) {
        self.plans += 1;
    }

    fn left(&mut self, _: &Running, _: i64, ended: bool) {
        self.ended += usize::from(ended);
    }

    fn enough(&self) -> bool {
        self.ended == 900
    }
}

#[test]
fn an_observer_hears_all_and_may_stop_it() {
    let mut scenario = whole(3);
    scenario.jobs = (0..1000).map(|n| job(&format!("j{n}"), n, 1, 2)).collect();
    let mut ear = Ear::default();
    let outcome = replay(&scenario, &mut ear).unwrap();
    assert_eq!((ear.ended, ear.plans), (900, outcome.summary.plans));
    assert!(ear.told.len() <= 201 && ear.told.is_sorted() && ear.told.last() == Some(&1.0), "{:?}", ear.told);
    scenario.cycle_ms = 50;
    let seldom = replay(&scenario, &mut ()).unwrap().summary;
    assert!(seldom.plans < 400 && seldom.ended == 1000, "{seldom:?}");
}
