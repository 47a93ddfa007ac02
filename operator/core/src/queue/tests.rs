use super::*;
use crate::model::{
    Gpu, NodeTerm, Operator, Plan, Requirement, Snapshot, Taint, Tenant, WaitReason, Workload,
};
use crate::testing::{a30, cluster, devices, either, h100, hold, job, job_of, request, whole};

mod brute_force;
mod invariants;
mod reserve;
mod starvation;
mod world;

/// Keys of what starts, in order.
fn started<'a>(snapshot: &'a Snapshot, plan: &Plan) -> Vec<&'a str> {
    plan.admissions.iter().map(|admission| snapshot.waiting[admission.workload].key.as_str()).collect()
}

/// Nodes of the first admission.
fn nodes(plan: &Plan) -> Vec<u32> {
    plan.admissions[0].pods.iter().map(|pod| pod.node.0).collect()
}

/// In words, why the only workload waits.
fn why(snapshot: &Snapshot) -> String {
    let plan = plan(snapshot, 0);
    assert_eq!(plan.admissions, [], "it starts");
    plan.waits[0].reason.to_string()
}

fn with(mut snapshot: Snapshot, workload: Workload) -> Snapshot {
    snapshot.waiting.push(workload);
    snapshot
}

fn tenant(guaranteed: u64, limit: Option<u64>, used: u64) -> Tenant {
    Tenant {
        guaranteed: guaranteed * 56,
        limit: limit.map(|gpus| gpus * 56),
        used: used * 56,
        ..Tenant::default()
    }
}

#[test]
fn a_gang_starts_whole_or_waits_with_numbers() {
    let mut snapshot = cluster(1, &[h100(), h100()]);
    let gang = job(&mut snapshot, "Job/a/gang", 4, "3g.40gb");
    let free = with(snapshot.clone(), gang.clone());
    let decided = plan(&free, 0);
    assert_eq!(started(&free, &decided), ["Job/a/gang"]);
    assert_eq!((decided.admissions[0].pods.len(), decided.admissions[0].units), (4, 4 * 28));

    hold(&mut snapshot, 0, "1g.10gb-0");
    hold(&mut snapshot, 1, "2g.20gb-4");
    snapshot.tenants.insert("t".into(), tenant(0, Some(8), 5));
    assert_eq!(why(&with(snapshot, gang)), "needs 4 × 3g.40gb; 2 fit now; tenant t has 3 of 8 GPUs left");
}

#[test]
fn devices_of_a_pod_are_on_one_node_and_the_fullest_node_is_filled_first() {
    let mut snapshot = cluster(3, &[whole(), whole(), whole(), whole()]);
    hold(&mut snapshot, 4, "whole");
    let eight = vec![request(&mut snapshot, 3, "gpu")];
    let three = job_of(&mut snapshot, "Job/a/three", 1, eight);
    let decided = plan(&with(snapshot.clone(), three.clone()), 0);
    assert_eq!(nodes(&decided), [1]);
    assert_eq!(decided.admissions[0].pods[0].devices[0].len(), 3);
    hold(&mut snapshot, 0, "whole");
    hold(&mut snapshot, 1, "whole");
    hold(&mut snapshot, 5, "whole");
    hold(&mut snapshot, 8, "whole");
    hold(&mut snapshot, 9, "whole");
    assert_eq!(why(&with(snapshot.clone(), three)), "needs 3 GPUs; 0 fit now");
    let four = vec![request(&mut snapshot, 4, "gpu")];
    let two = job_of(&mut snapshot, "Job/a/two", 2, four);
    assert_eq!(why(&with(snapshot, two)), "needs 2 × 4 GPUs; 0 fit now");
}

#[test]
fn a_mix_of_devices_shares_a_gpu() {
    let mut snapshot = cluster(1, &[h100()]);
    let requests = ["1g.20gb", "2g.20gb", "4g.40gb"].map(|kind| request(&mut snapshot, 1, kind));
    let mix = job_of(&mut snapshot, "Job/a/x", 1, requests.to_vec());
    let decided = plan(&with(snapshot.clone(), mix), 0);
    let names: Vec<_> = decided.admissions[0].pods[0]
        .devices
        .iter()
        .map(|chosen| snapshot.gpus[0].devices[usize::from(chosen[0].device)].name.as_str())
        .collect();
    assert_eq!(names, ["gpu-0-1g.20gb-6", "gpu-0-2g.20gb-4", "gpu-0-4g.40gb-0"]);
}

#[test]
fn tenants_below_their_guarantee_go_first_then_who_was_queued_first() {
    let mut snapshot = cluster(2, &[whole(), whole()]);
    snapshot.tenants.insert("none".into(), tenant(0, None, 0));
    snapshot.tenants.insert("half".into(), tenant(4, None, 2));
    snapshot.tenants.insert("third".into(), tenant(3, None, 1));
    for (key, tenant, priority, queued_ms) in [
        ("none-first", "none", 9, 1),
        ("half-low", "half", 0, 2),
        ("half-high", "half", 1, 5),
        ("third", "third", 0, 7),
        ("third-next", "third", 0, 8),
    ] {
        let workload = job(&mut snapshot, key, 1, "gpu");
        snapshot.waiting.push(Workload { tenant: tenant.into(), priority, queued_ms, ..workload });
    }
    let decided = plan(&snapshot, 0);
    // third has 1/3, half has 1/2; then third has 2/3, half 1/2.
    assert_eq!(started(&snapshot, &decided), ["third", "half-high", "third-next", "half-low"]);
    assert_eq!(decided.waits.len(), 1);
}

#[test]
fn one_that_cannot_start_lets_those_behind_it_go() {
    let mut snapshot = cluster(1, &[whole()]);
    for (key, pods) in [("first", 2), ("second", 1), ("third", 1)] {
        let workload = job(&mut snapshot, key, pods, "gpu");
        snapshot.waiting.push(workload);
    }
    let decided = plan(&snapshot, 0);
    assert_eq!(started(&snapshot, &decided), ["second"]);
    let waits: Vec<_> = decided.waits.iter().map(|w| (w.workload, w.reason.to_string())).collect();
    let never = "needs 2 × GPU; even the empty cluster has room for 1 of 2";
    assert_eq!(waits, [(0, never.into()), (2, "needs 1 × GPU; 0 fit now".into())]);
}

#[test]
fn what_a_tenant_is_given_counts_at_once() {
    let mut snapshot = cluster(1, &[whole(), whole(), whole(), h100()]);
    snapshot.tenants.insert("t".into(), tenant(0, Some(2), 0));
    for key in ["a", "b", "c"] {
        let workload = job(&mut snapshot, key, 1, "gpu");
        snapshot.waiting.push(workload);
    }
    let mut decided = plan(&snapshot, 0);
    assert_eq!(started(&snapshot, &decided), ["a", "b"]);
    let reason = decided.waits.remove(0).reason;
    assert_eq!(reason, WaitReason::Quota { tenant: "t".into(), needs: 56, left: 0, limit: 112 });
    assert_eq!(reason.to_string(), "needs 1 GPU; tenant t has 0 of 2 GPUs left");

    // Quota is told before room: with the one and without the other, nothing would change.
    let last = WaitReason::Quota { tenant: "t".into(), needs: 112, left: 56, limit: 112 };
    let two = job(&mut snapshot, "two", 2, "gpu");
    let mut full = with(Snapshot { waiting: vec![], ..snapshot.clone() }, two);
    full.tenants.insert("t".into(), tenant(0, Some(2), 1));
    for gpu in 0..3 {
        hold(&mut full, gpu, "whole");
    }
    assert_eq!(plan(&full, 0).waits[0].reason, last);

    snapshot.waiting.truncate(1);
    snapshot.waiting[0].pods = 3;
    assert_eq!(why(&snapshot), "needs 3 GPUs; tenant t may hold at most 2");
}

#[test]
fn a_larger_device_than_the_least_counts_in_full() {
    let mut snapshot = cluster(1, &[h100()]);
    for device in ["1g.10gb-6", "3g.40gb-0"] {
        hold(&mut snapshot, 0, device);
    }
    let eligible = devices(&mut snapshot, |d| d.kind == "1g.20gb" || d.kind == "2g.20gb");
    let mut wanted = request(&mut snapshot, 1, "2g.20gb");
    wanted.eligible = eligible;
    wanted.smallest = true;
    let wanted = job_of(&mut snapshot, "a", 1, vec![wanted]);
    snapshot.waiting.push(wanted);
    let decided = plan(&snapshot, 0);
    assert_eq!(decided.admissions[0].units, 14);

    let two_only = devices(&mut snapshot, |d| d.kind == "2g.20gb" || d.name.ends_with("1g.20gb-6"));
    snapshot.shapes[0].requests[0].eligible = two_only;
    snapshot.tenants.insert("t".into(), Tenant { limit: Some(15), ..Tenant::default() });
    let decided = plan(&snapshot, 0);
    let quota = WaitReason::Quota { tenant: "t".into(), needs: 16, left: 15, limit: 15 };
    assert_eq!(decided.waits[0].reason, quota);

    // What was tried for it is free again for the next one.
    snapshot.tenants.insert("u".into(), Tenant::default());
    let two = job(&mut snapshot, "b", 1, "2g.20gb");
    snapshot.waiting.push(Workload { tenant: "u".into(), queued_ms: 1, ..two });
    assert_eq!(started(&snapshot, &plan(&snapshot, 0)), ["b"]);
}

#[test]
fn what_can_never_be_is_told_with_what_there_is() {
    let mut snapshot = cluster(2, &[h100(), a30()]);
    let nothing = job(&mut snapshot, "a", 1, "5g.60gb");
    assert_eq!(
        why(&with(snapshot.clone(), nothing)),
        "no device here is 5g.60gb; there are 1g.10gb (14), 1g.10gb+me (2), 1g.20gb (8), 1g.6gb (8), \
         1g.6gb+me (2), 2g.12gb (4), 2g.20gb (6), 3g.40gb (4), 4g.24gb (2), 4g.40gb (2), 7g.80gb (2)"
    );
    let many = job(&mut snapshot, "a", 5, "3g.40gb");
    // Even while the tenant has nothing left: waiting would not help.
    snapshot.tenants.insert("t".into(), tenant(0, Some(9), 9));
    assert_eq!(
        why(&with(snapshot.clone(), many)),
        "needs 5 × 3g.40gb; even the empty cluster has room for 4 of 5"
    );
    snapshot.tenants.clear();
    let stray = job(&mut snapshot, "a", 1, "3g.40gb");
    assert_eq!(why(&with(snapshot, stray)), "there is no tenant t");
    let mut empty = cluster(1, &[]);
    let nothing = job(&mut empty, "a", 1, "gpu");
    assert_eq!(why(&with(empty, nothing)), "no device here is a whole GPU: there are no devices at all");
}

#[test]
fn one_that_was_withdrawn_waits_its_time() {
    let mut snapshot = cluster(1, &[whole()]);
    let mut workload = job(&mut snapshot, "a", 1, "gpu");
    workload.not_before_ms = 12_500;
    let snapshot = with(snapshot, workload);
    assert_eq!(plan(&snapshot, 0).waits[0].reason.to_string(), "was withdrawn; is tried again in 13 s");
    assert_eq!(plan(&snapshot, 12_500).admissions.len(), 1);
}

#[test]
fn nodes_that_do_not_suit_are_counted_by_reason() {
    let mut snapshot = cluster(6, &[whole()]);
    let taint = |key: &str| Taint { key: key.into(), value: String::new(), effect: "NoSchedule".into() };
    snapshot.nodes[0].taints.push(taint("maintenance"));
    snapshot.nodes[1].requested.cpu_milli = 191_500;
    snapshot.nodes[2].requested.cpu_milli = 191_500;
    snapshot.nodes[3].schedulable = false;
    snapshot.nodes[4].labels.insert("zone".into(), "b".into());
    hold(&mut snapshot, 5, "whole");
    let workload = job(&mut snapshot, "a", 1, "gpu");
    let zone = Requirement { key: "zone".into(), operator: Operator::NotIn, values: vec!["b".into()] };
    snapshot.shapes[workload.shape].node_terms.push(NodeTerm { labels: vec![zone], names: vec![] });
    assert_eq!(
        why(&with(snapshot.clone(), workload.clone())),
        "needs 1 × GPU; 0 fit now; devices are free on 5 nodes; turned away: 2 for cpu, 1 for node selector, 1 for \
         not ready, 1 for taint maintenance"
    );
    snapshot.shapes[workload.shape].resources.cpu_milli = 1_000_000;
    assert_eq!(
        why(&with(snapshot, workload)),
        "needs 1 × GPU; even the empty cluster has room for 0 of 1; nodes turned away: 4 for cpu, 1 for node \
         selector, 1 for taint maintenance"
    );
}

#[test]
fn avoided_nodes_are_used_when_no_others_do() {
    let mut snapshot = cluster(3, &[whole()]);
    let mut workload = job(&mut snapshot, "a", 2, "gpu");
    workload.avoid = ["n0".to_owned(), "gone".to_owned()].into();
    assert_eq!(nodes(&plan(&with(snapshot.clone(), workload.clone()), 0)), [1, 2]);
    workload.pods = 3;
    assert_eq!(nodes(&plan(&with(snapshot, workload), 0)), [1, 2, 0]);
}

#[test]
fn partitions_go_where_a_gpu_is_cut_already() {
    let mut snapshot = cluster(2, &[either(), either()]);
    hold(&mut snapshot, 2, "1g.10gb-6");
    let gang = job(&mut snapshot, "a", 2, "2g.20gb");
    let decided = plan(&with(snapshot, gang), 0);
    let gpus: Vec<u32> = decided.admissions[0].pods.iter().map(|pod| pod.devices[0][0].gpu.0).collect();
    assert_eq!(gpus, [2, 2]);
}

#[test]
fn blocked_gpus_and_tainted_devices_are_left_alone_but_may_come_back() {
    let mut snapshot = cluster(1, &[whole(), whole()]);
    snapshot.gpus[0].blocked = true;
    snapshot.gpus[1].devices[0].tainted = true;
    let workload = job(&mut snapshot, "a", 2, "gpu");
    assert_eq!(why(&with(snapshot, workload)), "needs 2 × GPU; 0 fit now");
}

#[test]
fn units_are_printed_as_gpus() {
    let printed: Vec<String> = [0, 8, 14, 28, 50, 56, 84, 168].map(gpus).into();
    assert_eq!(printed, ["0", "0.14", "0.25", "0.5", "0.89", "1", "1.5", "3"]);
}

#[test]
fn what_may_not_be_stopped_starts_only_within_the_guarantee() {
    let played = |jobs: &[(&str, bool)], lasting: u64, gpus: usize| {
        let mut snapshot = cluster(1, &vec![whole(); gpus]);
        snapshot.tenants.insert("t".into(), Tenant { lasting: lasting * 56, ..tenant(4, None, 0) });
        for (key, preemptible) in jobs {
            let job = job(&mut snapshot, key, 2, "gpu");
            snapshot.waiting.push(Workload { lasting: !preemptible, ..job });
        }
        let plan = plan(&snapshot, 0);
        let starts: Vec<String> = started(&snapshot, &plan).into_iter().map(str::to_owned).collect();
        let waits: Vec<String> = plan.waits.iter().map(|wait| wait.reason.to_string()).collect();
        (starts, waits.join("\n"))
    };
    let (starts, why) = played(&[("a", false), ("b", false), ("c", false), ("d", true)], 0, 8);
    assert_eq!(starts, ["a", "b", "d"], "four GPUs hold two of them");
    assert!(why.contains("needs 2 GPUs; 0 of 4 are left"), "{why:?}");
    assert_eq!(played(&[("c", false)], 2, 8).0, ["c"], "what may be stopped is in nobody's way");
    assert!(played(&[("c", false)], 4, 8).0.is_empty());
    let (starts, why) = played(&[("a", false), ("b", false), ("c", false)], 0, 1);
    assert!(starts.is_empty() && why.contains("0 of 4 are left"), "what waits for room counts too: {why}");
}
