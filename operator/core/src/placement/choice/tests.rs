use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::geometry::Pick;
use crate::model::{GpuIndex, PlacementPolicy, PodPlacement, Snapshot};
use crate::placement::{Cluster, Shapes};
use crate::testing::{GIB, cluster, h100, hold, job, whole};

/// The best pick and the GPUs that have it, by looking at every GPU: whichever node suits.
fn by_looking(now: &mut Cluster, shape: usize) -> Option<(Pick, BTreeSet<u32>)> {
    let item = now.shapes.demands[now.shapes.demand_of[shape]].items[0].clone();
    let mut best: Option<(Pick, BTreeSet<u32>)> = None;
    for gpu in 0..u32::try_from(now.gpus.len()).unwrap() {
        let state = now.gpus[gpu as usize].state;
        let mask = now.mask(gpu, item.eligible);
        let Some(pick) = now.fleet.pick(state, mask, item.smallest) else { continue };
        if !now.takes_pod(shape, now.gpus[gpu as usize].node) {
            continue;
        }
        let value = Pick { device: 0, ..pick };
        match &mut best {
            Some((least, gpus)) if *least == value => {
                gpus.insert(gpu);
            }
            Some((least, _)) if *least < value => {}
            _ => best = Some((value, BTreeSet::from([gpu]))),
        }
    }
    best
}

fn gpu_of(pods: &[PodPlacement]) -> GpuIndex {
    pods[0].devices[0][0].gpu
}

const KINDS: [&str; 7] = ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];

fn mixed(policy: PlacementPolicy) -> Snapshot {
    let mut snapshot = cluster(3, &[h100(), h100(), h100()]);
    snapshot.settings.placement = policy;
    for kind in KINDS {
        job(&mut snapshot, kind, 1, kind);
    }
    for shape in &mut snapshot.shapes {
        shape.resources.cpu_milli = 0;
        shape.resources.memory_bytes = 0;
    }
    snapshot.nodes[1].allocatable.pods = 4;
    // Someone else's.
    snapshot.gpus[4].used[0] = 2;
    snapshot
}

fn policies() -> impl Strategy<Value = PlacementPolicy> {
    use PlacementPolicy::{BestFit, BlockedWindows, FirstFit, Fragmentation, Learned, Spread};
    prop::sample::select(vec![Learned, BestFit, FirstFit, Fragmentation, BlockedWindows, Spread])
}

proptest! {
    #[test]
    fn the_best_gpu_is_chosen_as_if_every_gpu_had_been_looked_at(
        policy in policies(),
        arriving in prop::collection::vec((0_usize..7, any::<prop::sample::Index>(), any::<bool>()), 1..40),
    ) {
        let snapshot = mixed(policy);
        let shapes = Shapes::of(&snapshot);
        let mut now = Cluster::new(&snapshot, &shapes, false);
        let mut placed = Vec::new();
        for (shape, leaving, leaves) in arriving {
            let expected = by_looking(&mut now, shape);
            let fits = now.fits(shape, 1);
            let got = now.place(shape, 1, &BTreeSet::new());
            prop_assert_eq!(fits, got.is_some());
            prop_assert_eq!(got.is_some(), expected.is_some());
            if let (Some(got), Some((_, best))) = (got, expected) {
                prop_assert!(best.contains(&gpu_of(&got.pods).0), "{:?} is not among {:?}", got.pods, best);
                placed.push((shape, got));
            }
            if leaves && !placed.is_empty() {
                let (shape, left) = placed.swap_remove(leaving.index(placed.len()));
                now.take_back(shape, left);
            }
        }
    }
}

#[test]
fn policies_choose_what_they_are_called_after() {
    let chosen = |policy: PlacementPolicy| {
        let mut snapshot = cluster(2, &[h100(), h100()]);
        snapshot.settings.placement = policy;
        hold(&mut snapshot, 2, "3g.40gb-4");
        let one = job(&mut snapshot, "a", 1, "1g.10gb").shape;
        let shapes = Shapes::of(&snapshot);
        let mut now = Cluster::new(&snapshot, &shapes, false);
        gpu_of(&now.place(one, 1, &BTreeSet::new()).unwrap().pods).0
    };
    assert_eq!(chosen(PlacementPolicy::FirstFit), 0);
    assert_eq!(chosen(PlacementPolicy::BestFit), 2);
    assert_eq!(chosen(PlacementPolicy::Learned), 2);
    assert_eq!(chosen(PlacementPolicy::Spread), 0);
}

#[test]
fn what_others_hold_a_part_of_is_used_first() {
    let mut snapshot = cluster(1, &[h100(), h100(), h100()]);
    hold(&mut snapshot, 0, "3g.40gb-4");
    snapshot.gpus[2].used[10] = 1;
    let one = job(&mut snapshot, "a", 1, "1g.10gb").shape;
    let shapes = Shapes::of(&snapshot);
    let mut now = Cluster::new(&snapshot, &shapes, false);
    assert_eq!(gpu_of(&now.place(one, 1, &BTreeSet::new()).unwrap().pods).0, 2);
}

/// Four nodes of two GPUs, 64 CPUs and memory to match.
fn four() -> Snapshot {
    let mut snapshot = cluster(4, &[whole(), whole()]);
    for node in &mut snapshot.nodes {
        node.allocatable.cpu_milli = 64_000;
        node.allocatable.memory_bytes = 512 * GIB;
    }
    snapshot
}

#[test]
fn pods_that_need_much_cpu_and_pods_that_need_little_share_nodes() {
    let mut snapshot = four();
    let light = job(&mut snapshot, "light", 4, "gpu").shape;
    let heavy = job(&mut snapshot, "heavy", 4, "gpu").shape;
    snapshot.shapes[light].resources.cpu_milli = 4_000;
    snapshot.shapes[heavy].resources.cpu_milli = 60_000;
    let shapes = Shapes::of(&snapshot);
    let mut now = Cluster::new(&snapshot, &shapes, false);
    // The light ones are put together, as long as nobody is in need of CPU.
    let first = now.place(light, 2, &BTreeSet::new()).unwrap();
    assert_eq!(first.pods[0].node, first.pods[1].node);
    // Heavy ones leave three nodes with a GPU that no heavy one can have, and the light ones take those.
    assert_eq!(now.place(heavy, 3, &BTreeSet::new()).unwrap().pods.len(), 3);
    let rest = now.place(light, 3, &BTreeSet::new()).unwrap();
    let nodes: BTreeSet<u32> = rest.pods.iter().map(|pod| pod.node.0).collect();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    assert_eq!((now.count(light), now.count(heavy)), (0, 0));
}

#[test]
fn a_pod_goes_where_it_strands_no_gpu_even_if_another_node_is_fuller() {
    for by_memory in [false, true] {
        let mut snapshot = four();
        let heavy = job(&mut snapshot, "heavy", 1, "gpu").shape;
        let two = crate::testing::request(&mut snapshot, 2, "gpu");
        let pair = crate::testing::job_of(&mut snapshot, "pair", 1, vec![two]).shape;
        for (shape, part) in [(heavy, 2), (pair, 1)] {
            let needs = &mut snapshot.shapes[shape].resources;
            (needs.cpu_milli, needs.memory_bytes) = (1_000, GIB);
            if by_memory {
                needs.memory_bytes = 512 * GIB / part;
            } else {
                needs.cpu_milli = 64_000 / part;
            }
        }
        // On node 1 a GPU is left, and too little else; on node 2 a GPU and more than half of all else.
        hold(&mut snapshot, 2, "whole");
        snapshot.nodes[1].requested.cpu_milli = 30_000;
        snapshot.nodes[1].requested.memory_bytes = 240 * GIB;
        hold(&mut snapshot, 4, "whole");
        snapshot.shapes[heavy].resources.pods = 1;
        let shapes = Shapes::of(&snapshot);
        let mut now = Cluster::new(&snapshot, &shapes, false);
        // Nothing is stranded on a node whose last GPU is taken.
        assert_eq!(now.place(heavy, 1, &BTreeSet::new()).unwrap().pods[0].node.0, 1);
        assert_eq!(now.place(pair, 1, &BTreeSet::new()).unwrap().pods[0].node.0, 0);
    }
}

#[test]
fn a_pod_of_several_gpus_strands_none_either() {
    let mut snapshot = cluster(2, &[whole(), whole(), whole(), whole()]);
    for node in &mut snapshot.nodes {
        node.allocatable.cpu_milli = 100_000;
    }
    // Node 0 is fuller, and has just the CPU that the pod asks for.
    hold(&mut snapshot, 0, "whole");
    snapshot.nodes[0].allocatable.cpu_milli = 60_000;
    let two = crate::testing::request(&mut snapshot, 2, "gpu");
    let pair = crate::testing::job_of(&mut snapshot, "pair", 1, vec![two]).shape;
    snapshot.shapes[pair].resources.cpu_milli = 60_000;
    let one = job(&mut snapshot, "one", 1, "gpu").shape;
    snapshot.shapes[one].resources.cpu_milli = 20_000;
    let shapes = Shapes::of(&snapshot);
    let mut now = Cluster::new(&snapshot, &shapes, false);
    assert_eq!(now.place(pair, 1, &BTreeSet::new()).unwrap().pods[0].node.0, 1);
    // On node 0 every GPU still has CPU beside it.
    assert_eq!(now.count(one), 3 + 2);
}
