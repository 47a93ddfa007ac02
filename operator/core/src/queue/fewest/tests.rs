//! What is added up node by node is what trying finds, over random small clusters.

use proptest::prelude::*;

use super::*;
use crate::model::{DeviceIndex, GpuIndex, Movable, NodeIndex, PodPlacement, Running};
use crate::placement::Shapes;
use crate::queue::drain::Ends;
use crate::testing::{cluster, h100, job_of, request};

const KINDS: [&str; 5] = ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "7g.80gb"];

/// Who runs: kind, first node, whether it has a second pod on the next, and what is known of its end.
type Runs = (usize, usize, bool, u8, i64);

/// Who waits: its pods, what each asks for, and thousandths of a CPU.
type Waits = (u32, Vec<(usize, u32)>, u64);

fn runs() -> impl Strategy<Value = Runs> {
    (0..KINDS.len(), 0_usize..4, prop::bool::weighted(0.2), 0_u8..8, 0_i64..4)
}

fn waits() -> impl Strategy<Value = Waits> {
    (1_u32..4, prop::collection::vec((0..KINDS.len(), 1_u32..3), 1..3), 0_u64..6000)
}

/// Nodes of two GPUs and few CPUs, with what runs there as far as it fits.
fn world(nodes: u32, running: &[Runs], waiting: &[Waits]) -> Snapshot {
    let mut snapshot = cluster(nodes, &[h100(), h100()]);
    for node in &mut snapshot.nodes {
        node.allocatable.cpu_milli = 8000;
    }
    for &(kind, first, gang, end, at_ms) in running {
        let wanted = request(&mut snapshot, 1, KINDS[kind]);
        let of = job_of(&mut snapshot, "", 1, vec![wanted]);
        let nodes = snapshot.nodes.len();
        let on = [first % nodes, (first + 1) % nodes];
        let pods: Vec<_> = on
            .iter()
            .take(1 + usize::from(gang))
            .filter_map(|node| hold(&mut snapshot, *node, kind))
            .collect();
        let count = snapshot.running.len();
        snapshot.running.push(Running {
            key: format!("r{}", (count * 7) % 10),
            tenant: "t".into(),
            shape: of.shape,
            pods,
            admitted_ms: at_ms,
            ends_ms: (end % 2 == 0).then_some(at_ms),
            movable: if end == 1 { Movable::Replace } else { Movable::No },
            ..Running::default()
        });
    }
    for (at, (pods, wants, cpu_milli)) in waiting.iter().enumerate() {
        let requests =
            wants.iter().map(|(kind, count)| request(&mut snapshot, *count, KINDS[*kind])).collect();
        let waits = job_of(&mut snapshot, &format!("w{at}"), *pods, requests);
        snapshot.shapes[waits.shape].resources.cpu_milli = *cpu_milli;
        snapshot.waiting.push(waits);
    }
    snapshot
}

/// Takes the first device of a kind that is free on a node.
fn hold(snapshot: &mut Snapshot, node: usize, kind: usize) -> Option<PodPlacement> {
    for index in 2 * node..2 * node + 2 {
        let gpu = &mut snapshot.gpus[index];
        let fits = |device: &crate::model::Device| {
            device.kind == KINDS[kind]
                && gpu.used.iter().zip(&device.consumes).zip(&gpu.capacity).all(|((u, c), all)| u + c <= *all)
        };
        let Some(at) = gpu.devices.iter().position(fits) else { continue };
        gpu.held |= 1 << at;
        let consumes = gpu.devices[at].consumes.clone();
        gpu.used.iter_mut().zip(&consumes).for_each(|(used, more)| *used += more);
        let requested = &mut snapshot.nodes[node].requested;
        requested.cpu_milli += 1000;
        requested.pods += 1;
        let device = DeviceIndex { gpu: GpuIndex(index.try_into().unwrap()), device: at.try_into().unwrap() };
        return Some(PodPlacement { node: NodeIndex(node.try_into().unwrap()), devices: vec![vec![device]] });
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_place_that_is_free_soonest_is_the_one_that_trying_finds(
        nodes in 1_u32..5,
        running in prop::collection::vec(runs(), 0..24),
        waiting in prop::collection::vec(waits(), 2..5),
    ) {
        let snapshot = world(nodes, &running, &waiting);
        let shapes = Shapes::of(&snapshot);
        let mut now = Cluster::new(&snapshot, &shapes, false);
        let mut ends = Ends::of(&snapshot, &shapes, 2);
        let gone: Vec<usize> = ends.order().to_vec();
        let mut drained = Cluster::without(&snapshot, &shapes, gone.iter().copied());
        let mut released = Cluster::new(&snapshot, &shapes, false);
        for at in &gone {
            released.release(*at);
        }
        // What was placed and kept in the cycle is in the way of the others.
        let (first, others) = snapshot.waiting.split_first().unwrap();
        let shape = shapes.shape_of[0];
        if let Some(placed) = now.place_workload(shape, first) {
            if first.pods % 2 == 0 {
                let pods = placed.pods.clone();
                now.take_back(shape, placed);
                prop_assert!(now.close(shape, &pods));
            }
        } else if let Some(place) = by_trying(first, shape, &gone, &mut now) {
            prop_assert!(now.close(shape, &place.pods));
        }
        for (index, workload) in (1..).zip(others) {
            let shape = shapes.shape_of[index];
            prop_assert_eq!(drained.survey(shape), released.survey(shape));
            let placed = drained.place_workload(shape, workload);
            let fits = placed.is_some();
            if let Some(placed) = placed {
                drained.take_back(shape, placed);
            }
            prop_assert_eq!(ends.would_fit_anywhere(workload.pods, shape, &mut now), fits);
            prop_assert_eq!(ends.would_fit_anywhere(workload.pods, shape, &mut now), fits, "as remembered");

            if super::now(workload, shape, &mut now).is_some() {
                continue;
            }
            ends.ground.look_who_is_there();
            let found = ends.fewest().place(workload, shape, &mut now);
            let tried = by_trying(workload, shape, &gone, &mut now);
            if let Ok(found) = found {
                prop_assert_eq!(found.map(|place| place.pods), tried.map(|place| place.pods));
            }
        }
    }
}
