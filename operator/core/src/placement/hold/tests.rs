use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::model::{DeviceIndex, GpuIndex, NodeIndex, PodPlacement, Running, Snapshot, Taint, UNITS_PER_GPU};
use crate::placement::{Cluster, Shapes};
use crate::testing::{cluster, h100, hold, job, request, whole};

/// All devices of `gpus` that are named.
fn pod(snapshot: &Snapshot, devices: &[(u32, &str)]) -> PodPlacement {
    let device = |&(gpu, name): &(u32, &str)| {
        let devices = &snapshot.gpus[gpu as usize].devices;
        let at = devices.iter().position(|device| device.name.ends_with(name)).unwrap();
        DeviceIndex { gpu: GpuIndex(gpu), device: u8::try_from(at).unwrap() }
    };
    let node = snapshot.gpus[devices[0].0 as usize].node;
    PodPlacement { node, devices: vec![devices.iter().map(device).collect()] }
}

/// Lets a workload of one pod run there.
fn run(snapshot: &mut Snapshot, shape: usize, gpu: u32, name: &str) {
    let place = pod(snapshot, &[(gpu, name)]);
    hold(snapshot, gpu as usize, name);
    let node = &mut snapshot.nodes[place.node.0 as usize].requested;
    node.cpu_milli += snapshot.shapes[shape].resources.cpu_milli;
    node.memory_bytes += snapshot.shapes[shape].resources.memory_bytes;
    node.pods += 1;
    snapshot.running.push(Running { shape, pods: vec![place], ..Running::default() });
}

/// How many pods of each shape fit.
fn room(cluster: &mut Cluster, shapes: &Shapes) -> Vec<u64> {
    (0..shapes.pods.len()).map(|shape| cluster.count(shape)).collect()
}

/// Where one more pod of each shape would go.
fn places(cluster: &mut Cluster, shapes: &Shapes) -> Vec<Option<Vec<PodPlacement>>> {
    let mut places = Vec::new();
    for shape in 0..shapes.pods.len() {
        let there = cluster.place(shape, 1, &BTreeSet::new());
        places.push(there.as_ref().map(|placed| placed.pods.clone()));
        if let Some(placed) = there {
            cluster.take_back(shape, placed);
        }
    }
    places
}

#[test]
fn what_is_released_is_free_until_it_is_restored_and_what_others_hold_is_not() {
    let mut snapshot = cluster(1, &[h100()]);
    let three = job(&mut snapshot, "a", 1, "3g.40gb").shape;
    run(&mut snapshot, three, 0, "3g.40gb-0");
    // Held by someone whom nobody knows.
    hold(&mut snapshot, 0, "3g.40gb-4");
    let shapes = Shapes::of(&snapshot);
    let mut now = Cluster::new(&snapshot, &shapes, false);
    assert!(!now.fits(three, 1));
    now.release(0);
    assert!(now.fits(three, 1) && !now.fits(three, 2));
    now.restore(0);
    assert!(!now.fits(three, 1));
    // There is no such workload, and nothing runs in an emptied cluster.
    now.release(7);
    let mut emptied = Cluster::new(&snapshot, &shapes, true);
    emptied.release(0);
    assert!(!now.fits(three, 1) && emptied.fits(three, 2) && !emptied.fits(three, 3));
}

#[test]
fn what_is_not_counted_as_held_frees_nothing() {
    let mut snapshot = cluster(1, &[h100(), h100()]);
    let one = job(&mut snapshot, "a", 1, "1g.10gb").shape;
    run(&mut snapshot, one, 0, "1g.10gb-0");
    snapshot.gpus[0].used.fill(0);
    let place = pod(&snapshot, &[(1, "1g.10gb-3")]);
    snapshot.running.push(Running { shape: one, pods: vec![place], ..Running::default() });
    let elsewhere = PodPlacement {
        node: NodeIndex(9),
        devices: vec![vec![DeviceIndex { gpu: GpuIndex(8), device: 70 }]],
    };
    snapshot.running.push(Running { shape: 99, pods: vec![elsewhere], ..Running::default() });
    let shapes = Shapes::of(&snapshot);
    let mut now = Cluster::new(&snapshot, &shapes, false);
    let before = now.count(one);
    for running in 0..3 {
        now.release(running);
    }
    assert_eq!(now.count(one), before);
    for running in 0..3 {
        now.restore(running);
    }
    assert_eq!(now.count(one), before);
}

#[test]
fn a_claim_takes_just_these_devices_or_nothing() {
    let mut snapshot = cluster(2, &[h100(), h100()]);
    let two = request(&mut snapshot, 2, "3g.40gb");
    let pair = crate::testing::job_of(&mut snapshot, "a", 2, vec![two]).shape;
    snapshot.nodes[1].taints.push(Taint {
        key: "x".into(),
        value: String::new(),
        effect: "NoSchedule".into(),
    });
    let here = [pod(&snapshot, &[(0, "3g.40gb-4"), (1, "3g.40gb-0")])];
    let tainted = [pod(&snapshot, &[(2, "3g.40gb-4"), (3, "3g.40gb-0")])];
    let other_kind = [pod(&snapshot, &[(0, "3g.40gb-4"), (1, "4g.40gb-0")])];
    let too_few = [pod(&snapshot, &[(0, "3g.40gb-4")])];
    let twice = [pod(&snapshot, &[(0, "3g.40gb-4"), (0, "3g.40gb-4")])];
    let half_there = [here[0].clone(), pod(&snapshot, &[(0, "3g.40gb-0"), (0, "3g.40gb-4")])];
    let astray = [pod(&snapshot, &[(0, "3g.40gb-4"), (2, "3g.40gb-4")])];
    let shapes = Shapes::of(&snapshot);
    let mut now = Cluster::new(&snapshot, &shapes, false);
    for wrong in [&tainted[..], &other_kind, &too_few, &twice, &half_there, &astray] {
        assert!(now.claim(pair, wrong).is_none(), "{wrong:?}");
        assert_eq!(now.count(pair), 2);
    }
    let placed = now.claim(pair, &here).unwrap();
    assert_eq!((&placed.pods[..], placed.units), (&here[..], UNITS_PER_GPU));
    assert!(now.claim(pair, &here).is_none(), "it is taken");
    assert_eq!(now.count(pair), 1);
    now.take_back(pair, placed);
    assert!(now.claim(pair, &here).is_some());
}

#[test]
fn a_closed_place_stays_closed_when_what_holds_it_leaves() {
    let mut snapshot = cluster(1, &[whole(), whole()]);
    let gpu = job(&mut snapshot, "a", 1, "gpu").shape;
    run(&mut snapshot, gpu, 0, "whole");
    let kept = [pod(&snapshot, &[(0, "whole")])];
    let shapes = Shapes::of(&snapshot);
    let mut now = Cluster::new(&snapshot, &shapes, false);
    assert!(now.close(gpu, &kept));
    assert!(!now.close(gpu, &kept), "it is closed already");
    now.release(0);
    assert_eq!(now.count(gpu), 1);
    assert!(now.claim(gpu, &kept).is_none(), "closed for all");
    now.open(gpu, &kept);
    assert_eq!(now.count(gpu), 2);
    assert!(now.claim(gpu, &kept).is_some());
}

#[test]
fn what_overlaps_a_closed_device_is_closed_too_and_so_is_the_cpu() {
    let mut snapshot = cluster(1, &[h100()]);
    let [half, _] = ["3g.40gb", "1g.10gb"].map(|kind| job(&mut snapshot, kind, 1, kind).shape);
    snapshot.nodes[0].allocatable.cpu_milli = 4000;
    snapshot.shapes[half].resources.cpu_milli = 2000;
    let kept = [pod(&snapshot, &[(0, "3g.40gb-0")])];
    let shapes = Shapes::of(&snapshot);
    let mut now = Cluster::new(&snapshot, &shapes, false);
    assert_eq!(room(&mut now, &shapes), [2, 4]);
    assert!(now.close(half, &kept));
    // Three are left of the right half's slices, and two CPUs.
    assert_eq!(room(&mut now, &shapes), [1, 2]);
    now.open(half, &kept);
    assert_eq!(room(&mut now, &shapes), [2, 4]);
}

/// What starts running where: which GPU, and which of its devices if that fits.
fn running() -> impl Strategy<Value = Vec<(u32, usize)>> {
    prop::collection::vec((0_u32..4, 0_usize..25), 1..14)
}

fn busy(wanted: &[(u32, usize)]) -> Snapshot {
    let mut snapshot = cluster(2, &[h100(), h100()]);
    snapshot.nodes[1].allocatable.cpu_milli = 5000;
    for kind in ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"] {
        job(&mut snapshot, kind, 1, kind);
    }
    for &(gpu, device) in wanted {
        let there = &snapshot.gpus[gpu as usize];
        let device = &there.devices[device];
        let fits = there.used.iter().zip(&device.consumes).zip(&there.capacity);
        if fits.clone().all(|((used, more), all)| used + more <= *all) {
            let shape = snapshot.shapes.iter().position(|s| s.requests[0].label == device.kind).unwrap();
            let name = device.name.clone();
            let name = name.split_once('-').unwrap().1.split_once('-').unwrap().1.to_owned();
            run(&mut snapshot, shape, gpu, &name);
        }
    }
    snapshot
}

proptest! {
    #[test]
    fn release_is_as_if_it_had_never_run_and_restore_as_if_it_had_never_left(
        wanted in running(),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        seed in any::<u64>(),
    ) {
        let snapshot = busy(&wanted);
        let shapes = Shapes::of(&snapshot);
        let mut leaving: Vec<usize> = chosen.iter().map(|index| index.index(snapshot.running.len())).collect();
        leaving.sort_unstable();
        leaving.dedup();
        let mut now = Cluster::new(&snapshot, &shapes, false);
        let before = (room(&mut now, &shapes), places(&mut now, &shapes));
        for &running in &leaving {
            now.release(running);
        }
        let after = (room(&mut now, &shapes), places(&mut now, &shapes));

        let mut without = snapshot.clone();
        for gpu in &mut without.gpus {
            gpu.held = 0;
            gpu.used.fill(0);
        }
        for node in &mut without.nodes {
            node.requested = crate::model::Resources::default();
        }
        without.running.clear();
        for (index, running) in snapshot.running.iter().enumerate() {
            if !leaving.contains(&index) {
                let device = running.pods[0].devices[0][0];
                let name = &snapshot.gpus[device.gpu.0 as usize].devices[usize::from(device.device)].name;
                run(&mut without, running.shape, device.gpu.0, name);
            }
        }
        let fewer_shapes = Shapes::of(&without);
        let mut built = Cluster::new(&without, &fewer_shapes, false);
        prop_assert_eq!(&after, &(room(&mut built, &fewer_shapes), places(&mut built, &fewer_shapes)));

        // In any order.
        let turn = usize::try_from(seed % leaving.len() as u64).unwrap();
        leaving.rotate_left(turn);
        for &running in &leaving {
            now.restore(running);
        }
        prop_assert_eq!(before, (room(&mut now, &shapes), places(&mut now, &shapes)));
    }

    #[test]
    fn close_and_open_leave_nothing_behind_and_nobody_gets_what_is_closed(
        wanted in running(),
        gpu in 0_u32..4,
        device in 0_u8..25,
    ) {
        let snapshot = busy(&wanted);
        let shapes = Shapes::of(&snapshot);
        let mut now = Cluster::new(&snapshot, &shapes, false);
        let before = (room(&mut now, &shapes), places(&mut now, &shapes));
        let of = &snapshot.gpus[gpu as usize];
        let kind = &of.devices[usize::from(device)].kind;
        let shape = snapshot.shapes.iter().position(|shape| shape.requests[0].label == *kind).unwrap();
        let device = DeviceIndex { gpu: GpuIndex(gpu), device };
        let kept = [PodPlacement { node: of.node, devices: vec![vec![device]] }];
        prop_assert!(now.close(shape, &kept));
        // All that runs leaves, all that can be placed is placed.
        (0..snapshot.running.len()).for_each(|running| now.release(running));
        let mut placed = Vec::new();
        for shape in 0..shapes.pods.len() {
            while let Some(more) = now.place(shape, 1, &BTreeSet::new()) {
                placed.push((shape, more));
            }
        }
        now.open(shape, &kept);
        let claimed = now.claim(shape, &kept);
        prop_assert!(claimed.is_some());
        now.take_back(shape, claimed.unwrap());
        for (shape, placed) in placed.into_iter().rev() {
            now.take_back(shape, placed);
        }
        (0..snapshot.running.len()).for_each(|running| now.restore(running));
        prop_assert_eq!(before, (room(&mut now, &shapes), places(&mut now, &shapes)));
    }
}
