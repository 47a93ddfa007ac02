use proptest::prelude::*;

use super::*;

use ClaimState::{Allocated, Other, Recorded, Undecided};

#[test]
fn a_plan_is_carried_on_after_a_crash() {
    let left_behind = [Allocated, Recorded, Undecided];
    let writes = vec![ClaimWrite::Record(2), ClaimWrite::Allocate(1), ClaimWrite::Allocate(2)];
    assert_eq!(claims_step(&left_behind, true), ClaimsStep::Write(writes));
    assert_eq!(claims_step(&[Allocated, Allocated], true), ClaimsStep::Complete);
}

#[test]
fn without_a_plan_records_stand_only_together() {
    assert_eq!(claims_step(&[Undecided, Undecided], false), ClaimsStep::Plan);
    let rest = vec![ClaimWrite::Allocate(1)];
    assert_eq!(claims_step(&[Allocated, Recorded], false), ClaimsStep::Write(rest));
    let undone = vec![ClaimWrite::Deallocate(0), ClaimWrite::Forget(0), ClaimWrite::Forget(2)];
    assert_eq!(claims_step(&[Allocated, Undecided, Recorded], false), ClaimsStep::RollBack(undone));
}

#[test]
fn what_others_wrote_is_not_touched() {
    let undone = vec![ClaimWrite::Forget(0)];
    assert_eq!(claims_step(&[Recorded, Other, Undecided], true), ClaimsStep::RollBack(undone));
}

fn apply(claims: &mut [ClaimState], write: ClaimWrite) {
    let (index, from, to) = match write {
        ClaimWrite::Record(index) => (index, Undecided, Recorded),
        ClaimWrite::Allocate(index) => (index, Recorded, Allocated),
        ClaimWrite::Deallocate(index) => (index, Allocated, Recorded),
        ClaimWrite::Forget(index) => (index, Recorded, Undecided),
    };
    assert_eq!(claims[index], from, "{write:?} on a claim that is not ready for it");
    claims[index] = to;
}

fn state() -> impl Strategy<Value = ClaimState> {
    prop_oneof![4 => Just(Undecided), 4 => Just(Recorded), 4 => Just(Allocated), 1 => Just(Other)]
}

proptest! {
    /// However often it crashes between two writes, it ends in all or nothing.
    #[test]
    fn ends_whole_or_empty(
        mut claims in prop::collection::vec(state(), 1..8),
        planned: bool,
        crashes in prop::collection::vec(0_usize..4, 0..20),
    ) {
        let foreign = claims.contains(&Other);
        let mut crashes = crashes.into_iter().chain(std::iter::repeat(usize::MAX));
        for _ in 0..100 {
            let (ClaimsStep::Write(writes) | ClaimsStep::RollBack(writes)) = claims_step(&claims, planned) else {
                break;
            };
            if writes.is_empty() {
                break;
            }
            for write in writes.into_iter().take(crashes.next().unwrap_or(0)) {
                apply(&mut claims, write);
            }
        }
        match claims_step(&claims, planned) {
            ClaimsStep::Complete => prop_assert!(claims.iter().all(|claim| *claim == Allocated)),
            ClaimsStep::Plan => prop_assert!(claims.iter().all(|claim| *claim == Undecided)),
            ClaimsStep::RollBack(writes) => {
                prop_assert!(writes.is_empty() && foreign);
                prop_assert!(claims.iter().all(|claim| matches!(claim, Undecided | Other)));
            }
            ClaimsStep::Write(writes) => prop_assert!(false, "still to be written: {writes:?}"),
        }
    }
}
