use super::*;

mod world;

fn running() -> GangFacts {
    GangFacts {
        workers: 2,
        max_restarts: 1,
        ready_timeout_ms: 1000,
        planned: true,
        first_admitted_ms: Some(0),
        job: JobState::Running,
        pods: PodCounts { live: 2, present: 2, ..PodCounts::default() },
        claims_held: 2,
        ..GangFacts::default()
    }
}

fn gated(claim_missing: u32, claim_unwritten: u32) -> GangFacts {
    let pods =
        PodCounts { live: 2, present: 2, gated: 2, claim_missing, claim_unwritten, ..PodCounts::default() };
    GangFacts { pods, unready_since_ms: Some(0), claims_held: 0, ..running() }
}

const fn withdraw(reason: Leaving, avoid: bool) -> GangStep {
    GangStep::Withdraw { reason, avoid }
}

const fn wait(until_ms: i64) -> GangStep {
    GangStep::Wait { until_ms: Some(until_ms) }
}

#[test]
fn a_new_gang_goes_from_the_queue_to_running() {
    let new = GangFacts { workers: 2, ready_timeout_ms: 1000, ..GangFacts::default() };
    assert_eq!(next_step(&new, 0), GangStep::Queue);
    let planned = GangFacts { planned: true, first_admitted_ms: Some(0), unready_since_ms: Some(0), ..new };
    assert_eq!(next_step(&planned, 0), GangStep::CreateJob);
    let created = GangFacts { job: JobState::Suspended, ..planned };
    assert_eq!(next_step(&created, 0), GangStep::Resume);
    let resumed = GangFacts { job: JobState::Running, ..created };
    assert_eq!(next_step(&resumed, 0), wait(1000));
    assert_eq!(next_step(&gated(1, 1), 0), wait(1000), "a claim is not there yet");
    assert_eq!(next_step(&gated(0, 1), 0), GangStep::Bind);
    assert_eq!(next_step(&gated(0, 0), 0), GangStep::Ungate);
    assert_eq!(next_step(&running(), 5000), WAIT);
    let done = GangFacts { job: JobState::Succeeded, ..running() };
    assert_eq!(next_step(&done, 0), GangStep::Finish(Outcome::Succeeded));
    assert_eq!(next_step(&GangFacts { finished: Some(Outcome::Succeeded), ..done }, 0), WAIT);
}

#[test]
fn no_pod_starts_before_all_are_there_and_written() {
    let mut one_missing = gated(0, 0);
    one_missing.pods.live = 1;
    one_missing.pods.gated = 1;
    assert_eq!(next_step(&one_missing, 0), wait(1000));
    let mut old_claim_left = gated(0, 1);
    old_claim_left.claims_stray = 1;
    assert_eq!(next_step(&old_claim_left, 0), wait(1000));
}

#[test]
fn a_gang_that_is_not_ready_in_time_is_withdrawn_whole() {
    let mut late = GangFacts { unready_since_ms: Some(0), ..running() };
    assert_eq!(next_step(&late, 999), wait(1000));
    assert_eq!(next_step(&late, 1000), withdraw(Leaving::NotReady, true));
    assert_eq!(next_step(&gated(2, 2), 1000), withdraw(Leaving::NotReady, false), "no node is to blame");
    late.leaving = Some(Leaving::NotReady);
    assert_eq!(next_step(&late, 1000), GangStep::Suspend);
    late.job = JobState::Suspended;
    assert_eq!(next_step(&late, 1000), WAIT, "pods are still there");
    late.pods = PodCounts::default();
    assert_eq!(next_step(&late, 1000), WAIT, "claims are still there");
    late.claims_held = 0;
    assert_eq!(next_step(&late, 1000), GangStep::DeleteJob, "it remembers which workers were done");
    late.job = JobState::None;
    assert_eq!(next_step(&late, 1000), GangStep::ClearPlan);
    let cleared = GangFacts { planned: false, leaving: None, ..late };
    assert_eq!(next_step(&cleared, 1000), GangStep::Queue);
}

#[test]
fn a_failed_gang_is_started_again_as_often_as_it_may() {
    let mut failed = GangFacts { job: JobState::Failed, ..running() };
    assert_eq!(next_step(&failed, 0), GangStep::Restart);
    failed.restart = Restart::Never;
    let ended = GangStep::Finish(Outcome::Failed(Failure::WorkerFailed));
    assert_eq!(next_step(&failed, 0), ended);
    failed.restart = Restart::OnFailure;
    failed.restarts = 1;
    assert_eq!(next_step(&failed, 0), ended);
    failed.leaving = Some(Leaving::Restart);
    assert_eq!(next_step(&failed, 0), GangStep::DeleteJob);
    failed.job = JobState::Deleting;
    assert_eq!(next_step(&failed, 0), WAIT);
    let gone = GangFacts { job: JobState::None, pods: PodCounts::default(), claims_held: 0, ..failed };
    assert_eq!(next_step(&gone, 0), GangStep::ClearPlan);
}

#[test]
fn workers_without_a_job_are_removed_first() {
    let left = GangFacts { abandoned: 1, claims_stray: 2, ..running() };
    assert_eq!(next_step(&left, 0), GangStep::DeleteAbandoned);
    let deleted = GangFacts { deleted: true, job: JobState::None, ..left };
    assert_eq!(next_step(&deleted, 0), GangStep::DeleteAbandoned);
    assert_eq!(next_step(&GangFacts { abandoned: 0, ..deleted }, 0), WAIT, "they are leaving");
}

#[test]
fn a_suspended_gang_leaves_and_stays_away() {
    let suspended = GangFacts { suspend: true, ..running() };
    assert_eq!(next_step(&suspended, 0), withdraw(Leaving::Suspended, false));
    let idle = GangFacts { suspend: true, ..GangFacts::default() };
    assert_eq!(next_step(&idle, 0), WAIT);
    assert_eq!(next_step(&GangFacts { suspend: false, ..idle }, 0), GangStep::Queue);
}

#[test]
fn a_gang_leaves_for_others_whole_and_without_a_penalty() {
    for reason in [Leaving::Reclaimed, Leaving::Preempted, Leaving::Moved] {
        let asked = GangFacts { asked: Some(reason), ..running() };
        assert_eq!(next_step(&asked, 0), withdraw(reason, false));
        assert!(!reason.backs_off());
        assert_eq!(reason.keeps_its_place(), reason == Leaving::Moved);
        let early = GangFacts { asked: Some(reason), ..gated(0, 1) };
        assert_eq!(next_step(&early, 0), withdraw(reason, false), "also before it has started");
        let recorded = GangFacts { leaving: Some(reason), ..asked };
        assert_eq!(next_step(&recorded, 0), GangStep::Suspend, "being asked again changes nothing");
        assert_eq!(GangState::of(&recorded), GangState::Waiting);
    }
}

#[test]
fn what_ends_a_gang_goes_before_others_asking_for_its_room() {
    let asked = GangFacts { asked: Some(Leaving::Reclaimed), ..running() };
    let done = GangFacts { job: JobState::Succeeded, ..asked.clone() };
    assert_eq!(next_step(&done, 0), GangStep::Finish(Outcome::Succeeded));
    let failed = GangFacts { job: JobState::Failed, ..asked.clone() };
    assert_eq!(next_step(&failed, 0), GangStep::Restart);
    let suspended = GangFacts { suspend: true, ..asked.clone() };
    assert_eq!(next_step(&suspended, 0), withdraw(Leaving::Suspended, false));
    assert_eq!(next_step(&GangFacts { deleted: true, ..asked }, 0), GangStep::DeleteJob);
}

#[test]
fn a_lost_plan_or_a_taken_claim_ends_the_try() {
    let lost = GangFacts { plan_lost: true, ..running() };
    assert_eq!(next_step(&lost, 0), withdraw(Leaving::PlanLost, true));
    let mut taken = gated(0, 1);
    taken.pods.claim_conflicting = 1;
    assert_eq!(next_step(&taken, 0), withdraw(Leaving::ClaimTaken, false));
}

#[test]
fn a_deadline_ends_the_job() {
    let mut late = GangFacts { active_deadline_ms: Some(5000), ..running() };
    assert_eq!(next_step(&late, 4999), wait(5000));
    assert_eq!(next_step(&late, 5000), GangStep::Finish(Outcome::Failed(Failure::DeadlineExceeded)));
    late.finished = Some(Outcome::Failed(Failure::DeadlineExceeded));
    assert_eq!(next_step(&late, 5000), GangStep::Suspend);
}

#[test]
fn deletion_goes_first_and_ends_when_nothing_is_left() {
    let mut deleted = GangFacts { deleted: true, suspend: true, ..running() };
    assert_eq!(next_step(&deleted, 0), GangStep::DeleteJob);
    deleted.job = JobState::Deleting;
    assert_eq!(next_step(&deleted, 0), WAIT);
    deleted.job = JobState::None;
    assert_eq!(next_step(&deleted, 0), WAIT);
    deleted.pods = PodCounts::default();
    assert_eq!(next_step(&deleted, 0), WAIT);
    deleted.claims_held = 0;
    assert_eq!(next_step(&deleted, 0), GangStep::Release);
}

#[test]
fn what_runs_without_a_plan_is_stopped_before_it_is_queued() {
    let stray = GangFacts { planned: false, ..running() };
    assert_eq!(next_step(&stray, 0), GangStep::Suspend);
    assert_eq!(next_step(&GangFacts { job: JobState::Failed, ..stray.clone() }, 0), GangStep::DeleteJob);
    assert_eq!(next_step(&GangFacts { job: JobState::Suspended, ..stray.clone() }, 0), WAIT);
    let left = GangFacts { job: JobState::Suspended, pods: PodCounts::default(), claims_held: 0, ..stray };
    assert_eq!(next_step(&left, 0), GangStep::DeleteJob);
}

#[test]
fn the_state_is_one_word() {
    let word = |facts: GangFacts| GangState::of(&facts).as_str();
    assert_eq!(word(GangFacts::default()), "Waiting");
    assert_eq!(word(gated(0, 0)), "Starting");
    assert_eq!(word(running()), "Running");
    assert_eq!(word(GangFacts { leaving: Some(Leaving::Restart), ..running() }), "Restarting");
    assert_eq!(word(GangFacts { leaving: Some(Leaving::NotReady), ..running() }), "Waiting");
    assert_eq!(word(GangFacts { suspend: true, ..running() }), "Suspended");
    assert_eq!(word(GangFacts { finished: Some(Outcome::Succeeded), ..running() }), "Succeeded");
    let failed = Some(Outcome::Failed(Failure::WorkerFailed));
    assert_eq!(word(GangFacts { finished: failed, ..running() }), "Failed");
}
