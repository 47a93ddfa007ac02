use crate::model::{Snapshot, Topology, WaitReason, Workload};
use crate::plan;
use crate::testing::{cluster, hold, job, whole};

/// Nodes of two whole GPUs, in these racks.
fn racks(of: &[&str]) -> Snapshot {
    let mut snapshot = cluster(u32::try_from(of.len()).unwrap(), &[whole(), whole()]);
    for (node, rack) in snapshot.nodes.iter_mut().zip(of) {
        if !rack.is_empty() {
            node.labels.insert("rack".into(), (*rack).into());
        }
    }
    snapshot
}

fn gang(snapshot: &mut Snapshot, pods: u32, required: bool) {
    let workload = job(snapshot, "Job/a/gang", pods, "gpu");
    let topology = Some(Topology { label: "rack".into(), required });
    snapshot.waiting.push(Workload { topology, ..workload });
}

/// The nodes it gets, or why it waits.
fn decided(snapshot: &Snapshot) -> Result<Vec<u32>, WaitReason> {
    let mut plan = plan(snapshot, 0);
    match plan.admissions.pop() {
        Some(admission) => {
            let mut nodes: Vec<u32> = admission.pods.iter().map(|pod| pod.node.0).collect();
            nodes.sort_unstable();
            Ok(nodes)
        }
        None => Err(plan.waits.remove(0).reason),
    }
}

#[test]
fn a_gang_gets_the_domain_in_which_the_least_is_left_over() {
    let mut snapshot = racks(&["a", "b", "a", "b", "a", "c"]);
    // Of rack a six are free, of b three, of c two.
    hold(&mut snapshot, 3, "whole");
    gang(&mut snapshot, 3, true);
    assert_eq!(decided(&snapshot), Ok(vec![1, 3, 3]));
    snapshot.waiting[0].pods = 2;
    assert_eq!(decided(&snapshot), Ok(vec![5, 5]));
    snapshot.waiting[0].pods = 5;
    let nodes = decided(&snapshot).unwrap();
    assert!(nodes.iter().all(|node| [0, 2, 4].contains(node)), "{nodes:?}");
    // Without the wish, the fullest node comes first.
    snapshot.waiting[0].topology = None;
    snapshot.waiting[0].pods = 2;
    assert!(decided(&snapshot).unwrap().contains(&1));
}

#[test]
fn what_must_be_together_waits_and_what_would_like_to_be_is_in_few_domains() {
    let mut snapshot = racks(&["a", "b", "a", "b", "c", ""]);
    hold(&mut snapshot, 0, "whole");
    gang(&mut snapshot, 4, true);
    assert_eq!(decided(&snapshot), Ok(vec![1, 1, 3, 3]));
    hold(&mut snapshot, 2, "whole");
    // Three are free in each of a and b, and two in c.
    assert!(matches!(decided(&snapshot), Err(WaitReason::NoRoom { .. } | WaitReason::NoNode { .. })));
    snapshot.waiting[0].topology = Some(Topology { label: "rack".into(), required: false });
    let nodes = decided(&snapshot).unwrap();
    assert!(nodes.iter().all(|node| *node < 4), "{nodes:?}");
    // Nodes without the label are no domain, but better than nothing.
    snapshot.waiting[0].pods = 10;
    assert_eq!(decided(&snapshot).unwrap().len(), 10);
}

#[test]
fn what_no_domain_could_ever_hold_never_fits() {
    let mut snapshot = racks(&["a", "b", "a", "b", ""]);
    gang(&mut snapshot, 5, true);
    let Err(WaitReason::NeverFits { empty_cluster_fits, pods, .. }) = decided(&snapshot) else {
        panic!("{:?}", decided(&snapshot));
    };
    assert_eq!((empty_cluster_fits, pods), (4, 5));
    snapshot.waiting[0].topology = Some(Topology { label: "zone".into(), required: true });
    assert!(matches!(decided(&snapshot), Err(WaitReason::NeverFits { empty_cluster_fits: 0, .. })));
    snapshot.waiting[0].topology = Some(Topology { label: "zone".into(), required: false });
    assert!(decided(&snapshot).is_ok());
}

#[test]
fn of_equal_domains_the_one_that_costs_least_is_taken() {
    // In each rack two partitions of a kind fit; in b a GPU is cut already.
    let mut snapshot = cluster(2, &[crate::testing::h100()]);
    for (node, rack) in snapshot.nodes.iter_mut().zip(["a", "b"]) {
        node.labels.insert("rack".into(), rack.into());
    }
    hold(&mut snapshot, 0, "2g.20gb-0");
    hold(&mut snapshot, 1, "1g.10gb-6");
    let workload = job(&mut snapshot, "Job/a/gang", 1, "3g.40gb");
    let topology = Some(Topology { label: "rack".into(), required: true });
    snapshot.waiting.push(Workload { topology, ..workload.clone() });
    let with_wish = decided(&snapshot);
    snapshot.waiting[0].topology = None;
    assert_eq!(with_wish, decided(&snapshot));
}
