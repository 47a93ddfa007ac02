//! What must hold of every plan, over random clusters, tenants and workloads,
//! and that the numbers in it are those that trying everything finds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::brute_force::Exhaustive;
use super::*;
use crate::audit::{Holding, audit};
use crate::model::{
    Admission, Device, DeviceIndex, DeviceRequest, DeviceSet, Gpu, NodeIndex, PodPlacement, PodShape,
    Resources, Toleration,
};
use crate::testing::{add_node, h100_with};

/// Devices that requests ask for: a kind, or everything with at least this memory.
const ASKED: &[&str] = &[
    "gpu",
    "1g.10gb",
    "1g.10gb+me",
    "1g.20gb",
    "2g.20gb",
    "3g.40gb",
    "7g.80gb",
    "1g.6gb",
    "2g.12gb",
    ">=20",
];

fn will_do(device: &Device, asked: &str) -> bool {
    asked.strip_prefix(">=").map_or(device.kind == asked, |gib| {
        device.memory_bytes >= gib.parse::<u64>().unwrap() << 30 && device.kind != "gpu"
    })
}

fn card() -> impl Strategy<Value = Gpu> {
    let partitions = ["1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb"];
    prop_oneof![4 => Just(h100()), 2 => Just(whole()), 1 => Just(a30()), 1 => Just(either()),
        1 => Just(h100_with(&partitions))]
}

/// A GPU of which some devices are held, or that is blocked.
fn used_card() -> impl Strategy<Value = Gpu> {
    (
        card(),
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        0_u8..12,
        any::<prop::sample::Index>(),
    )
        .prop_map(|(mut gpu, held, fate, tainted)| {
            for device in held.into_iter().filter(|_| fate % 3 > 0) {
                let consumes = gpu.devices[device.index(gpu.devices.len())].consumes.clone();
                let sum: Vec<u64> = gpu.used.iter().zip(&consumes).map(|(a, b)| a + b).collect();
                if sum.iter().zip(&gpu.capacity).all(|(sum, all)| sum <= all) {
                    gpu.used = sum;
                }
            }
            gpu.blocked = fate == 0;
            let tainted = tainted.index(gpu.devices.len());
            gpu.devices[tainted].tainted = fate == 1;
            gpu
        })
}

fn nodes() -> impl Strategy<Value = Snapshot> {
    let node = (prop::collection::vec(used_card(), 1..3), 0_u64..12, 0_u8..8);
    prop::collection::vec(node, 1..4).prop_map(|nodes| {
        let mut snapshot = Snapshot::default();
        for (gpus, cpus, fate) in nodes {
            add_node(&mut snapshot, &gpus);
            let node = snapshot.nodes.last_mut().unwrap();
            node.allocatable.cpu_milli = cpus * 1000;
            node.schedulable = fate != 0;
            if fate == 1 {
                node.taints.push(Taint { key: "k".into(), value: "v".into(), effect: "NoSchedule".into() });
            }
        }
        snapshot
    })
}

fn tenants() -> impl Strategy<Value = BTreeMap<String, Tenant>> {
    let tenant = (0_u64..3, prop::option::of(0_u64..5), 0_u64..90, prop::option::of(0_u8..6)).prop_map(
        |(guaranteed, limit, used, parent)| {
            let parent = parent.map(|parent| format!("t{parent}"));
            Tenant { parent, used, ..tenant(guaranteed, limit, 0) }
        },
    );
    prop::collection::vec(tenant, 1..4)
        .prop_map(|tenants| (0..).map(|i| format!("t{i}")).zip(tenants).collect())
}

prop_compose! {
    fn workload(kinds: std::ops::Range<usize>)(
        (tenant, priority, queued_ms) in (0_u8..4, 0_i32..2, 0_i64..2),
        (pods, cpus) in (1_u32..5, 0_u64..3),
        (pinned, tolerates, avoid, later) in (0_u8..20, prop::bool::weighted(0.2), 0_u8..6, 0_u8..10),
        requests in prop::collection::vec((0..ASKED.len(), 1_u32..3, any::<bool>()), kinds),
    ) -> (Workload, PodShape) {
        let request = |(asked, count, smallest): (usize, u32, bool)| {
            let label = ASKED[asked].to_owned();
            DeviceRequest { count, eligible: asked, smallest: smallest || label.starts_with('>'), label }
        };
        let tolerates = tolerates.then(|| Toleration { key: Some("k".into()), value: None, effect: None });
        let shape = PodShape {
            resources: Resources { cpu_milli: cpus * 1000, pods: 1, ..Resources::default() },
            pinned: (pinned < 2).then(|| format!("n{pinned}")),
            tolerations: tolerates.into_iter().collect(),
            requests: requests.into_iter().map(request).collect(),
            ..PodShape::default()
        };
        let avoid = (avoid < 2).then(|| format!("n{avoid}")).into_iter().collect();
        let not_before_ms = if later == 0 { NOW + 5 } else { 0 };
        let tenant = format!("t{tenant}");
        (Workload { tenant, priority, queued_ms, not_before_ms, avoid, pods, ..Workload::default() }, shape)
    }
}

const NOW: i64 = 100;

fn snapshot(kinds: std::ops::Range<usize>) -> impl Strategy<Value = Snapshot> {
    (nodes(), tenants(), prop::collection::vec(workload(kinds), 0..10)).prop_map(
        |(mut snapshot, tenants, waiting)| {
            snapshot.tenants = tenants;
            for (index, (workload, shape)) in waiting.into_iter().enumerate() {
                snapshot.shapes.push(shape);
                snapshot.waiting.push(Workload { key: format!("Job/a/{index}"), shape: index, ..workload });
            }
            let set = |asked: &&str| {
                let mask = |gpu: &Gpu| {
                    let bits = gpu.devices.iter().enumerate().filter(|(_, device)| will_do(device, asked));
                    bits.fold(0, |mask, (bit, _)| mask | 1_u64 << bit)
                };
                DeviceSet(snapshot.gpus.iter().map(mask).collect())
            };
            snapshot.device_sets = ASKED.iter().map(set).collect();
            snapshot
        },
    )
}

fn device(snapshot: &Snapshot, index: DeviceIndex) -> &Device {
    &snapshot.gpus[index.gpu.0 as usize].devices[usize::from(index.device)]
}

fn chosen(pod: &PodPlacement) -> impl Iterator<Item = DeviceIndex> {
    pod.devices.iter().flatten().copied()
}

/// The cluster once the whole plan has started; every admission is checked on the way.
fn started_all<'a>(snapshot: &'a Snapshot, plan: &Plan) -> Exhaustive<'a> {
    let mut after = Exhaustive::new(snapshot, false);
    for admission in &plan.admissions {
        let workload = &snapshot.waiting[admission.workload];
        let shape = snapshot.shape_of(workload);
        assert_eq!(admission.pods.len(), workload.pods as usize, "a gang is whole");
        let units: u64 = admission.pods.iter().flat_map(chosen).map(|d| device(snapshot, d).units).sum();
        assert_eq!(admission.units, units);
        for pod in &admission.pods {
            let room = after.pods_on(pod.node, &PodShape { requests: vec![], ..shape.clone() }, false, 1);
            assert_eq!(room, 1, "the node does not suit");
            assert_eq!(pod.devices.len(), shape.requests.len());
            for (request, chosen) in shape.requests.iter().zip(&pod.devices) {
                assert_eq!(chosen.len(), request.count as usize);
                for index in chosen {
                    let gpu = &snapshot.gpus[index.gpu.0 as usize];
                    assert_eq!(gpu.node, pod.node, "all devices of a pod are on its node");
                    assert!(will_do(device(snapshot, *index), &request.label));
                    assert!(!gpu.blocked && !device(snapshot, *index).tainted);
                    let used = &mut after.used[index.gpu.0 as usize];
                    used.iter_mut().zip(&device(snapshot, *index).consumes).for_each(|(a, b)| *a += b);
                    assert!(used.iter().zip(&gpu.capacity).all(|(used, all)| used <= all), "no overlap");
                }
            }
            after.requested[pod.node.0 as usize].cpu_milli += shape.resources.cpu_milli;
            after.requested[pod.node.0 as usize].pods += 1;
        }
    }
    after
}

/// A tenant and those above it, upwards; a parent that is missing, or that leads back to its child, is none.
fn up<'a>(snapshot: &'a Snapshot, name: &'a str) -> Vec<&'a str> {
    let above = |name: &str| {
        let (parent, _) = snapshot.tenants.get_key_value(snapshot.tenants.get(name)?.parent.as_ref()?)?;
        Some(parent.as_str())
    };
    let leads_back = |start: &str| {
        let mut at = above(start);
        (0..10).any(|_| {
            let back = at == Some(start);
            at = at.and_then(above);
            back
        })
    };
    std::iter::successors(Some(name), |name| above(name).filter(|_| !leads_back(name))).collect()
}

/// What each tenant and all below it hold.
fn held_by_tenants(snapshot: &Snapshot, plan: &Plan) -> BTreeMap<String, u64> {
    let mut used: BTreeMap<String, u64> = snapshot.tenants.keys().map(|name| (name.clone(), 0)).collect();
    let admitted = plan.admissions.iter();
    let admitted = admitted.map(|one| (snapshot.waiting[one.workload].tenant.as_str(), one.units));
    let own = snapshot.tenants.iter().map(|(name, tenant)| (name.as_str(), tenant.used));
    for (name, units) in own.chain(admitted) {
        for at in up(snapshot, name) {
            *used.get_mut(at).unwrap() += units;
        }
    }
    used
}

/// The tenants whose limits count for `name`, with what is left and the limit; the one that counts first.
fn limits<'a>(
    snapshot: &'a Snapshot,
    held: &BTreeMap<String, u64>,
    name: &'a str,
) -> Option<(u64, u64, &'a str)> {
    let limits = up(snapshot, name).into_iter().filter_map(|at| {
        let limit = snapshot.tenants[at].limit?;
        Some((limit.saturating_sub(held[at]), limit, at))
    });
    limits.min_by_key(|(left, ..)| *left)
}

/// Least units that a workload can be charged, if every request has a device.
fn least(snapshot: &Snapshot, workload: &Workload) -> Option<u64> {
    let all = || snapshot.gpus.iter().flat_map(|gpu| &gpu.devices);
    let each = snapshot.shape_of(workload).requests.iter().map(|request| {
        let units = all().filter(|d| will_do(d, &request.label)).map(|d| d.units).min()?;
        Some(units * u64::from(request.count))
    });
    Some(each.sum::<Option<u64>>()? * u64::from(workload.pods))
}

/// Checks the reason of a workload whose pods ask for one sort of device.
fn check_reason(
    snapshot: &Snapshot,
    after: &Exhaustive,
    held: &BTreeMap<String, u64>,
    index: usize,
    reason: &WaitReason,
) {
    let workload = &snapshot.waiting[index];
    let wanted = workload.pods;
    if !snapshot.tenants.contains_key(&workload.tenant) {
        assert_eq!(*reason, WaitReason::NoTenant { tenant: workload.tenant.as_str().into() });
        return;
    }
    let Some(needs) = least(snapshot, workload) else {
        assert!(matches!(reason, WaitReason::NoSuchDevice { .. }), "{reason}");
        return;
    };
    let above = up(snapshot, &workload.tenant).into_iter();
    let least =
        above.filter_map(|at| Some((snapshot.tenants[at].limit?, at))).min_by_key(|(limit, _)| *limit);
    if let Some((limit, tenant)) = least.filter(|(limit, _)| needs > *limit) {
        assert_eq!(*reason, WaitReason::AboveLimit { tenant: tenant.into(), needs, limit });
        return;
    }
    if workload.not_before_ms > NOW {
        assert_eq!(*reason, WaitReason::Backoff { left_ms: 5 });
        return;
    }
    let ever = Exhaustive::new(snapshot, true).pods(snapshot.shape_of(workload), false, wanted);
    let now = after.pods(snapshot.shape_of(workload), false, wanted);
    let by_devices = after.pods(snapshot.shape_of(workload), true, wanted);
    let tightest = limits(snapshot, held, &workload.tenant);
    let left_of_limit = tightest.map(|(left, limit, _)| (left, limit));
    let named = tightest.map_or(workload.tenant.as_str(), |(.., tenant)| tenant);
    match reason {
        WaitReason::NeverFits { empty_cluster_fits, pods, .. } => {
            assert_eq!((*empty_cluster_fits, *pods), (ever, wanted), "{reason}");
            assert!(ever < wanted);
        }
        WaitReason::Quota { needs, left, limit, tenant } => {
            assert_eq!((Some((*left, *limit)), &**tenant), (left_of_limit, named));
            assert!(needs > left && ever >= wanted, "{reason}");
        }
        WaitReason::NoRoom { fit, pods, left, tenant, .. } => {
            assert_eq!((*fit, *pods, *left), (now, wanted, left_of_limit), "{reason}");
            assert_eq!(&**tenant, named);
            assert!(by_devices < wanted && ever >= wanted, "{reason}");
        }
        WaitReason::NoNode { fit, left, turned_away, nodes, .. } => {
            assert_eq!((*fit, *left), (now, left_of_limit), "{reason}");
            assert!(now < wanted && by_devices >= wanted, "{reason}");
            assert!(turned_away.values().sum::<u32>() <= *nodes && !turned_away.is_empty(), "{reason}");
        }
        other => panic!("not expected: {other}"),
    }
}

fn by_key(snapshot: &Snapshot, plan: &Plan) -> Vec<(String, Vec<PodPlacement>)> {
    let one =
        |admission: &Admission| (snapshot.waiting[admission.workload].key.clone(), admission.pods.clone());
    plan.admissions.iter().map(one).collect()
}

fn check_plan(snapshot: &Snapshot, plan: &Plan) {
    let mut seen: Vec<usize> = plan.admissions.iter().map(|admission| admission.workload).collect();
    seen.extend(plan.waits.iter().map(|wait| wait.workload));
    seen.sort_unstable();
    assert_eq!(seen, (0..snapshot.waiting.len()).collect::<Vec<_>>(), "each is there once");

    let after = started_all(snapshot, plan);
    let holding = |(owner, (node, device)): (usize, (&str, &str))| Holding {
        owner: owner.to_string(),
        node: node.into(),
        device: device.into(),
    };
    let pods = plan.admissions.iter().flat_map(|admission| &admission.pods);
    let named = pods.flat_map(|pod| {
        let node = snapshot.nodes[pod.node.0 as usize].name.as_str();
        chosen(pod).map(move |index| (node, device(snapshot, index).name.as_str()))
    });
    assert_eq!(audit(snapshot, &named.enumerate().map(holding).collect::<Vec<_>>()), []);

    let (before, held) = (held_by_tenants(snapshot, &Plan::default()), held_by_tenants(snapshot, plan));
    for (name, tenant) in &snapshot.tenants {
        let limit = tenant.limit.unwrap_or(u64::MAX).max(before[name]);
        assert!(held[name] <= limit, "tenant {name} holds more than it may");
    }
    for admission in &plan.admissions {
        let workload = &snapshot.waiting[admission.workload];
        assert!(workload.not_before_ms <= NOW);
        let on_avoided =
            |pod: &&PodPlacement| workload.avoid.contains(&snapshot.nodes[pod.node.0 as usize].name);
        if admission.pods.iter().any(|pod| on_avoided(&pod)) {
            let others = (0..).map(NodeIndex).zip(&snapshot.nodes);
            let others = others.filter(|(_, node)| !workload.avoid.contains(&node.name));
            for (node, _) in others {
                let room = after.pods_on(node, snapshot.shape_of(workload), false, 1);
                assert_eq!(room, 0, "an avoided node is used though others have room");
            }
        }
    }
}

proptest! {
    #[test]
    fn plans_hold_and_their_numbers_are_true(snapshot in snapshot(0..2)) {
        let plan = plan(&snapshot, NOW);
        check_plan(&snapshot, &plan);
        let after = started_all(&snapshot, &plan);
        let held = held_by_tenants(&snapshot, &plan);
        for wait in &plan.waits {
            check_reason(&snapshot, &after, &held, wait.workload, &wait.reason);
        }
    }

    #[test]
    fn plans_hold_for_pods_that_mix_devices(snapshot in snapshot(2..4)) {
        let plan = plan(&snapshot, NOW);
        check_plan(&snapshot, &plan);
        let after = started_all(&snapshot, &plan);
        let held = held_by_tenants(&snapshot, &plan);
        for wait in &plan.waits {
            check_reason(&snapshot, &after, &held, wait.workload, &wait.reason);
        }
    }

    #[test]
    fn the_order_in_which_workloads_are_listed_does_not_matter(
        (snapshot, shuffled) in snapshot(0..3).prop_flat_map(|snapshot| {
            let waiting = Just(snapshot.waiting.clone()).prop_shuffle();
            (Just(snapshot), waiting)
        })
    ) {
        let other = Snapshot { waiting: shuffled, ..snapshot.clone() };
        let (one, two) = (plan(&snapshot, NOW), plan(&other, NOW));
        prop_assert_eq!(by_key(&snapshot, &one), by_key(&other, &two));
        prop_assert_eq!(one, plan(&snapshot, NOW));
    }
}
