use super::*;
use crate::testing::{cluster, h100};

fn holding(owner: &str, device: &str) -> Holding {
    Holding { owner: owner.into(), node: "n0".into(), device: device.into() }
}

#[test]
fn a_full_gpu_is_in_order() {
    let snapshot = cluster(1, &[h100(), h100()]);
    let held = [
        holding("a", "gpu-0-4g.40gb-0"),
        holding("b", "gpu-0-2g.20gb-4"),
        holding("c", "gpu-0-1g.10gb-6"),
        holding("d", "gpu-1-7g.80gb-0"),
    ];
    assert_eq!(audit(&snapshot, &held), []);
}

#[test]
fn overlaps_are_found_with_their_owners() {
    let snapshot = cluster(1, &[h100()]);
    let held =
        [holding("a", "gpu-0-3g.40gb-4"), holding("b", "gpu-0-1g.10gb-0"), holding("c", "gpu-0-2g.20gb-4")];
    let found = audit(&snapshot, &held);
    let words: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "2 of 1 are held of counter 7 of gpu-0 on node n0: by a, c",
            "2 of 1 are held of counter 8 of gpu-0 on node n0: by a, c",
        ]
    );
}

#[test]
fn what_does_not_exist_or_is_held_twice_is_found() {
    let snapshot = cluster(1, &[h100()]);
    let held = [holding("a", "gpu-7-gone"), holding("b", "gpu-0-1g.10gb-6"), holding("c", "gpu-0-1g.10gb-6")];
    let found = audit(&snapshot, &held);
    assert_eq!(found[0], Violation::NoSuchDevice(held[0].clone()));
    let owners = vec!["b".into(), "c".into()];
    let twice = Violation::HeldTwice { node: "n0".into(), device: "gpu-0-1g.10gb-6".into(), owners };
    assert_eq!(found[1], twice);
    assert!(matches!(found[2], Violation::Overlap { held: 2, capacity: 1, .. }), "{found:?}");
    assert_eq!(found.len(), 3);
}
