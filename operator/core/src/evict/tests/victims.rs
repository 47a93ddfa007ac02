//! The choice of victims against trying every set of them.

use std::cmp::Reverse;

use proptest::prelude::*;

use super::super::victims::{Candidate, Case, Choice, QUESTIONS, cheapest};

/// Suffices if all of some group leave; is allowed unless all of some group do.
#[derive(Clone, Debug)]
struct Groups {
    enough: Vec<u16>,
    forbidden: Vec<u16>,
    asked: u32,
}

fn bits(set: &[usize]) -> u16 {
    set.iter().fold(0, |bits, at| bits | 1 << at)
}

impl Groups {
    fn enough(&self, set: u16) -> bool {
        self.enough.iter().any(|group| group & !set == 0)
    }

    fn allowed(&self, set: u16) -> bool {
        self.forbidden.iter().all(|group| group & !set != 0)
    }
}

impl Case for Groups {
    fn allows(&mut self, set: &[usize]) -> bool {
        self.allowed(bits(set))
    }

    fn suffices(&mut self, set: &[usize]) -> bool {
        self.asked += 1;
        self.enough(bits(set))
    }
}

fn case() -> impl Strategy<Value = (Vec<Candidate<'static>>, Groups)> {
    (0_usize..10).prop_flat_map(|count| {
        let groups = |number| prop::collection::vec(1_u16..(1 << count).max(2), number);
        let losses = prop::collection::vec((0_u64..4, 0_i64..3), count);
        (losses, groups(0..5), groups(0..3)).prop_map(|(losses, enough, forbidden)| {
            let named = losses.into_iter().zip(NAMES);
            let candidate = |((lost, admitted_ms), key)| Candidate { lost, admitted_ms, key };
            (named.map(candidate).collect(), Groups { enough, forbidden, asked: 0 })
        })
    })
}

/// Names whose order is not that of their positions.
const NAMES: [&str; 9] = ["e", "b", "h", "a", "i", "c", "g", "f", "d"];

/// The best of all sets.
fn best(candidates: &[Candidate<'_>], groups: &Groups) -> Option<(u64, Vec<usize>)> {
    let sets = (0..1_u16 << candidates.len()).filter(|set| groups.enough(*set) && groups.allowed(*set));
    let ranked = sets.map(|set| {
        let mut members: Vec<usize> = (0..candidates.len()).filter(|at| set >> at & 1 == 1).collect();
        members.sort_by_key(|at| (Reverse(candidates[*at].admitted_ms), candidates[*at].key));
        let lost: u64 = members.iter().map(|at| candidates[*at].lost).sum();
        let names: Vec<_> =
            members.iter().map(|at| (Reverse(candidates[*at].admitted_ms), candidates[*at].key)).collect();
        (lost, members.len(), names, members)
    });
    ranked.min().map(|(lost, _, _, members)| (lost, members))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn few_candidates_are_chosen_exactly(
        (candidates, mut groups) in case()
    ) {
        let mut left = QUESTIONS;
        let chosen = cheapest(&candidates, &mut groups, None, &mut left);
        let expected = best(&candidates, &groups).map(|(lost, victims)| Choice { lost, victims });
        prop_assert_eq!(&chosen, &expected);
        prop_assert!(left > 0);
        for bound in [(0, 0), (2, 1), (3, 2), (5, 9)] {
            let chosen = cheapest(&candidates, &mut groups.clone(), Some(bound), &mut QUESTIONS.clone());
            let within = expected.clone().filter(|best| (best.lost, best.victims.len()) <= bound);
            prop_assert_eq!(chosen, within);
        }
        prop_assert_eq!(QUESTIONS - left, groups.asked);
    }

    #[test]
    fn with_few_questions_none_of_the_chosen_is_to_spare(
        (candidates, mut groups) in case(),
        mut questions in 0_u32..40,
    ) {
        let Some(Choice { victims, .. }) = cheapest(&candidates, &mut groups, None, &mut questions) else {
            return Ok(());
        };
        let set = bits(&victims);
        prop_assert!(groups.enough(set) && groups.allowed(set));
        if questions > 0 {
            prop_assert!(victims.iter().all(|at| !groups.enough(set & !(1 << at))));
        }
    }
}

#[test]
fn one_that_loses_much_stays_if_two_together_lose_less() {
    let candidate = |key, lost| Candidate { lost, admitted_ms: 0, key };
    let candidates = [candidate("large", 9), candidate("a", 4), candidate("b", 4), candidate("c", 6)];
    let mut either = Groups { enough: vec![0b0001, 0b0110, 0b1010], forbidden: vec![], asked: 0 };
    let chosen = cheapest(&candidates, &mut either, None, &mut QUESTIONS.clone()).unwrap();
    assert_eq!((chosen.lost, chosen.victims), (8, vec![1, 2]));
    let mut not_both = Groups { forbidden: vec![0b0110, 0b1010], ..either };
    let chosen = cheapest(&candidates, &mut not_both, None, &mut QUESTIONS.clone()).unwrap();
    assert_eq!((chosen.lost, chosen.victims), (9, vec![0]));
}
