//! Cases that went wrong once, each under what was wrong.

use super::drive::Drive;
use super::judge::{Rule, Verdict};
use super::{stream, text};

/// Plays a scenario until everything has ended, by all rules.
fn holds(scenario: &str) {
    let rules = [Rule::Places, Rule::Gangs, Rule::Starts, Rule::Evictions, Rule::Same, Rule::Reservations];
    let verdict = || -> Verdict { Drive::play(&text::scenario(scenario), &rules)?.run_dry() };
    verdict().unwrap_or_else(|broken| panic!("{:?}: {}", broken.rule, broken.what));
}

/// Plays a scenario, after which nothing waits.
fn all_start(scenario: &str) {
    let drive = Drive::play(&text::scenario(scenario), &[Rule::Starts]).unwrap();
    let reasons: Vec<_> = drive.world.waiting().iter().map(|job| drive.reason_of(*job)).collect();
    assert!(reasons.is_empty(), "{reasons:?}");
}

fn lets_the_gang_start(stream: &str) {
    let verdict = stream::read(stream).lets_the_gang_start();
    verdict.unwrap_or_else(|broken| panic!("{:?}: {}", broken.rule, broken.what));
}

#[test]
fn where_only_an_avoided_node_is_cheap_enough_it_is_used() {
    all_start(
        "
        node a30
        node some
        tenant t0 limit=4
        submit t0 1 x 1:>=20
        withdraw 0
        pass 9
        ",
    );
}

#[test]
fn nobody_leaves_for_one_that_starts_at_once() {
    holds(
        "
        node h100 cpus=99 gib=3 rack=0
        tenant t0 guaranteed=0 weight=0
        tenant t1 guaranteed=0 weight=0
        settings best-fit half-life=0 aging=0 reserve-after=0 reservations=1 moves=0 preemption
        submit t1 1 x 1:1g.10gb cpus=0 gib=2 runs=1
        block 0
        withdraw 0
        submit t0 1 x 1:1g.10gb+me cpus=0 gib=2 runs=8 evictable
        return 0
        pass 4
        submit t2 1 x 1:1g.20gb cpus=0 gib=1 runs=1 priority=1
        ",
    );
}

#[test]
fn a_limit_that_is_lowered_takes_promises_back() {
    holds(
        "
        node h100 cpus=99 gib=99 rack=0
        node h100 h100 cpus=99 gib=99 rack=0
        tenant t0 guaranteed=0 weight=0
        settings best-fit half-life=0 aging=0 reserve-after=0 reservations=0 moves=0 preemption
        submit t0 1 x 1:7g.80gb cpus=0 gib=0 runs=2
        submit t0 1 x 2:7g.80gb cpus=0 gib=0 runs=1 grace=1 evictable
        submit t0 1 x 1:1g.10gb+me cpus=0 gib=0 runs=1 priority=1
        limit 0 1
        pass 1
        ",
    );
}

#[test]
fn a_gang_is_not_forgotten_because_its_tenant_starts_small_jobs() {
    lets_the_gang_start(
        "
        node h100 either
        node h100 whole
        node whole
        tenant t0 guaranteed=19
        tenant t1
        tenant t2 guaranteed=1
        settings aging=0 reserve-after=1 reservations=1
        submit t0 1 x 1:3g.40gb runs=3 spare=2
        submit t1 1 x 1:gpu runs=4
        submit t0 1 x 1:1g.10gb runs=2 spare=0 priority=1
        submit t2 1 x 1:3g.40gb runs=1
        submit t0 1 x 1:3g.40gb runs=3 spare=2
        submit t1 1 x 1:gpu runs=4
        submit t0 1 x 1:1g.10gb runs=2 spare=0 priority=1
        submit t2 1 x 1:3g.40gb runs=1
        submit t0 6 x 1:3g.40gb runs=1
        and then for ever:
        submit t0 1 x 1:3g.40gb runs=3 spare=2
        submit t1 1 x 1:gpu runs=4
        submit t0 1 x 1:1g.10gb runs=2 spare=0 priority=1
        submit t2 1 x 1:3g.40gb runs=1
        pass 1
        ",
    );
}

#[test]
fn a_place_is_kept_on_one_rack_if_it_has_to_be() {
    holds(
        "
        node some rack=1
        node some rack=0
        node some rack=0
        tenant t0
        settings reserve-after=0 reservations=1
        submit t0 3 x 2:3g.40gb one-rack
        submit t0 1 x 1:1g.10gb
        ",
    );
}

#[test]
fn a_gang_of_whole_gpus_is_not_passed_over() {
    lets_the_gang_start(
        "
        node either
        node whole
        node either
        tenant t0
        settings aging=0 reserve-after=0 reservations=1
        submit t0 1 x 1:7g.80gb runs=4
        submit t0 1 x 1:1g.10gb runs=3
        submit t0 1 x 1:7g.80gb runs=4
        submit t0 1 x 1:1g.10gb runs=3
        submit t0 3 x 1:gpu runs=1
        and then for ever:
        submit t0 1 x 1:7g.80gb runs=4
        submit t0 1 x 1:1g.10gb runs=3
        pass 1
        ",
    );
}

#[test]
fn a_job_is_not_passed_for_ever_by_those_who_are_evicted_again_and_again() {
    lets_the_gang_start(
        "
        node either
        node h100
        tenant t0
        settings best-fit aging=0 reserve-after=0 reservations=1 preemption
        submit t0 1 x 1:7g.80gb runs=2 priority=2
        submit t0 1 x 1:3g.40gb runs=3 priority=1 evictable
        submit t0 1 x 1:3g.40gb runs=1 evictable
        submit t0 1 x 1:7g.80gb runs=2 priority=2
        submit t0 1 x 1:3g.40gb runs=3 priority=1 evictable
        submit t0 1 x 1:3g.40gb runs=1 evictable
        submit t0 1 x 1:gpu runs=1
        and then for ever:
        submit t0 1 x 1:7g.80gb runs=2 priority=2
        submit t0 1 x 1:3g.40gb runs=3 priority=1 evictable
        submit t0 1 x 1:3g.40gb runs=1 evictable
        pass 1
        ",
    );
}

#[test]
fn a_gang_starts_though_use_is_forgotten_at_once() {
    lets_the_gang_start(
        "
        node either cpus=99 gib=99 rack=0
        node whole cpus=99 gib=99 rack=0
        tenant t0 guaranteed=0 weight=0
        tenant t1 guaranteed=6 weight=0
        tenant t2 guaranteed=1 weight=0
        settings best-fit half-life=0 aging=2 reserve-after=1 reservations=1 moves=0
        submit t1 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t2 1 x 1:7g.80gb cpus=0 gib=0 runs=1
        submit t0 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t1 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t2 1 x 1:7g.80gb cpus=0 gib=0 runs=1
        submit t0 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t0 2 x 1:gpu cpus=0 gib=0 runs=1
        and then for ever:
        submit t1 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t2 1 x 1:7g.80gb cpus=0 gib=0 runs=1
        submit t0 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        pass 1
        ",
    );
}

#[test]
fn a_gang_starts_though_use_is_soon_forgotten() {
    lets_the_gang_start(
        "
        node either
        node whole
        tenant t0 guaranteed=0 weight=0
        tenant t1 guaranteed=6 weight=0
        tenant t2 guaranteed=1 weight=0
        settings best-fit half-life=1 aging=2 reserve-after=1 reservations=1 moves=0
        submit t1 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t2 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t0 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t1 1 x 1:7g.80gb cpus=0 gib=0 runs=1
        submit t1 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t2 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t0 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t1 1 x 1:7g.80gb cpus=0 gib=0 runs=1
        submit t0 2 x 1:gpu cpus=0 gib=0 runs=1
        and then for ever:
        submit t1 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t2 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t0 1 x 1:1g.10gb cpus=0 gib=0 runs=1
        submit t1 1 x 1:7g.80gb cpus=0 gib=0 runs=1
        pass 1
        ",
    );
}
