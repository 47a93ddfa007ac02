//! Promises that are kept, and those that can't be.

use super::*;
use crate::model::Tenant;
use crate::testing::{cluster, h100, hold, job};

const GRACE_MS: i64 = 30_000;

/// A cluster of some H100s on one node, of which one reserve keeps shapes deliverable.
fn world(gpus: usize, shapes: &[(&str, u32)]) -> Snapshot {
    let mut snapshot = cluster(1, &vec![h100(); gpus]);
    let shapes = shapes
        .iter()
        .map(|(kind, count)| ReservedShape {
            shape: job(&mut snapshot, "shape", 1, kind).shape,
            count: *count,
        })
        .collect();
    snapshot.tenants.insert("state".into(), Tenant { class: Class::Sovereign, ..Tenant::default() });
    snapshot.reserves.push(Reserve {
        name: "r".into(),
        nodes: vec![NodeIndex(0)],
        classes: [Class::Sme, Class::Sovereign, Class::Security].into(),
        shapes,
        grace_ms: GRACE_MS,
        tokens: 1_000_000,
        least_claim_ms: 1000,
        ..Reserve::default()
    });
    snapshot
}

fn wait(snapshot: &mut Snapshot, tenant: &str, kind: &str) -> usize {
    let workload = Workload { tenant: tenant.into(), lasting: true, ..job(snapshot, "w", 1, kind) };
    snapshot.waiting.push(workload);
    snapshot.waiting.len() - 1
}

/// Where a device of a GPU is.
fn at(snapshot: &Snapshot, gpu: u32, name: &str) -> Vec<PodPlacement> {
    let devices = &snapshot.gpus[gpu as usize].devices;
    let device = devices.iter().position(|device| device.name.ends_with(name)).unwrap();
    let device =
        crate::model::DeviceIndex { gpu: crate::model::GpuIndex(gpu), device: u8::try_from(device).unwrap() };
    vec![PodPlacement { node: NodeIndex(0), devices: vec![vec![device]] }]
}

#[test]
fn what_stays_goes_only_where_the_shapes_still_fit() {
    let mut snapshot = world(2, &[("7g.80gb", 1)]);
    let (first, second) = (wait(&mut snapshot, "t", "1g.10gb"), wait(&mut snapshot, "t", "1g.10gb"));
    let shapes = Shapes::of(&snapshot);
    let mut guard = Guard::of(&snapshot, &shapes, 0);
    assert!(guard.binds(&snapshot.waiting[first]) && guard.missing().is_empty());
    let (here, there) = (at(&snapshot, 0, "1g.10gb-0"), at(&snapshot, 1, "1g.10gb-0"));
    assert!(guard.admit(first, &here, None), "the other GPU is left for the shape");
    assert!(!guard.admit(second, &there, None), "no GPU would be left for the shape");
    assert!(guard.admit(second, &at(&snapshot, 0, "1g.10gb-1"), None), "nothing was changed by the refusal");
    assert!(guard.missing().is_empty());
}

#[test]
fn what_can_be_asked_to_leave_in_time_is_in_nobodys_way() {
    let mut snapshot = world(1, &[("7g.80gb", 1)]);
    hold(&mut snapshot, 0, "1g.10gb-0");
    let running = |grace_ms, evictable| Running {
        tenant: "t".into(),
        shape: 0,
        pods: at(&snapshot, 0, "1g.10gb-0"),
        grace_ms,
        evictable,
        ..Running::default()
    };
    for (held, missing) in [
        (running(GRACE_MS, true), 0),
        (running(GRACE_MS + 1, true), 1),
        (running(0, false), 1),
        (Running { right: Right::Claimed, ..running(0, true) }, 1),
        (Running { ends_ms: Some(GRACE_MS), ..running(0, false) }, 0),
        (Running { leaves_ms: Some(GRACE_MS + 1), ..running(0, false) }, 1),
    ] {
        // A claim counts for itself, and here there is one shape more than is claimed.
        let mut snapshot = snapshot.clone();
        snapshot.reserves[0].shapes[0].count += u32::from(held.right == Right::Claimed);
        snapshot.running.push(held);
        let shapes = Shapes::of(&snapshot);
        let guard = Guard::of(&snapshot, &shapes, 0);
        let of: u32 = guard.missing().iter().map(|missing| missing.shape.count).sum();
        assert_eq!(of, missing, "{:?}", snapshot.running[0]);
    }
}

#[test]
fn who_draws_takes_what_was_promised_and_the_rest_still_fits() {
    let mut snapshot = world(1, &[("3g.40gb", 2)]);
    let state = wait(&mut snapshot, "state", "3g.40gb");
    let (other, third) = (wait(&mut snapshot, "t", "3g.40gb"), wait(&mut snapshot, "state", "3g.40gb"));
    let shapes = Shapes::of(&snapshot);
    let mut guard = Guard::of(&snapshot, &shapes, 0);
    assert_eq!(guard.draw(other), None, "its tenant does not draw on it");
    let draw = guard.draw(state).unwrap();
    assert_eq!((&draw.right, draw.class), (&Right::Claimed, Class::Sovereign));
    let (pods, units) = guard.place(state, &draw).unwrap();
    assert_eq!(units, 28);
    assert!(guard.admit(state, &pods, Some(&draw)) && guard.missing().is_empty());
    let other_half = |pods: &[PodPlacement]| {
        let first = at(&snapshot, 0, "3g.40gb-0");
        if pods == first.as_slice() { at(&snapshot, 0, "3g.40gb-4") } else { first }
    };
    let rest = other_half(&pods);
    assert!(!guard.admit(other, &rest, None), "the other half is promised still");
    let draw = guard.draw(third).unwrap();
    assert_eq!(guard.place(third, &draw).unwrap().0, rest);
    assert!(guard.admit(third, &rest, Some(&draw)));
    assert_eq!(guard.draw(third), None, "all that was promised is claimed");
}

#[test]
fn a_claim_must_be_covered_by_tokens() {
    let mut snapshot = world(1, &[("3g.40gb", 2)]);
    let (one, two) = (wait(&mut snapshot, "state", "3g.40gb"), wait(&mut snapshot, "state", "3g.40gb"));
    snapshot.reserves[0].tokens = 28 * 1000;
    let shapes = Shapes::of(&snapshot);
    let mut guard = Guard::of(&snapshot, &shapes, 0);
    let draw = guard.draw(one).unwrap();
    let (pods, _) = guard.place(one, &draw).unwrap();
    assert!(guard.admit(one, &pods, Some(&draw)));
    assert_eq!(guard.draw(two), None, "the tokens are spent");
}

#[test]
fn what_would_still_run_when_an_order_begins_is_not_put_in_its_way() {
    let mut snapshot = world(1, &[]);
    let shape = job(&mut snapshot, "shape", 1, "7g.80gb").shape;
    let order = Order {
        key: "state/o".into(),
        tenant: "state".into(),
        rating: Class::Sovereign,
        shapes: vec![ReservedShape { shape, count: 1 }],
        from_ms: 100_000,
        until_ms: 200_000,
    };
    snapshot.reserves[0].orders.push(order);
    let ends = wait(&mut snapshot, "t", "1g.10gb");
    let stays = wait(&mut snapshot, "t", "1g.10gb");
    let ordered = wait(&mut snapshot, "state", "7g.80gb");
    snapshot.waiting[ends].runs_ms = Some(100_000);
    snapshot.waiting[stays].runs_ms = Some(100_001);
    snapshot.waiting[ordered].order = Some("state/o".into());
    let shapes = Shapes::of(&snapshot);
    let mut guard = Guard::of(&snapshot, &shapes, 0);
    let place = at(&snapshot, 0, "1g.10gb-0");
    assert!(guard.admit(ends, &place, None));
    assert!(!guard.admit(stays, &at(&snapshot, 0, "1g.10gb-1"), None));
    assert_eq!(guard.draw(ordered), None, "it has not begun");
    let now = Guard::of(&snapshot, &shapes, 70_000);
    assert_eq!(now.draw(ordered).map(|draw| draw.right), Some(Right::Ordered("state/o".into())));
    let ended = Guard::of(&snapshot, &shapes, 200_000);
    assert_eq!(ended.draw(ordered), None);
}
