//! Which of several candidates leave, so that something fits: the set that loses
//! the least work. What fits, and who may be asked to leave, is the caller's to say.
//!
//! A first set is found greedily and pruned until nothing in it is to spare;
//! branch and bound then improves it until it is proved to be the best, or the
//! number of questions that may be asked is spent. Eleven candidates never need
//! more than [`QUESTIONS`].

use std::cmp::Reverse;

use crate::model::UnitMs;

/// Questions that are enough to find the best set of eleven candidates, whatever is asked.
pub(super) const QUESTIONS: u32 = 1 << 12;

/// Something that may be asked to leave, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    /// Work that is lost if it leaves.
    pub lost: UnitMs,
    /// When it was admitted; of equals, the latest leave first.
    pub admitted_ms: i64,
    /// Its identity; of equals in that too, the first leave first.
    pub key: &'a str,
}

/// What a set of candidates is asked. Sets are lists of positions, in no order.
pub(super) trait Case {
    /// Whether these may be asked to leave together. What is true of a set is true of its parts.
    fn allows(&mut self, set: &[usize]) -> bool;
    /// Whether it is enough that these leave. What is true of a set is true of all that contain it.
    fn suffices(&mut self, set: &[usize]) -> bool;
}

/// What is compared of two sets, and the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Work that is lost.
    pub lost: UnitMs,
    /// Those who leave, as positions, in the order of [`preferred`].
    pub victims: Vec<usize>,
}

/// The set of candidates that suffices at the least loss; of those, the smallest; of those, the one
/// that leaves first. Only sets that lose, or number, no more than `bound` are looked for, if it is given.
/// `questions` is how often [`Case::suffices`] may be asked, and becomes what is left of it: if 0 is
/// left, the set suffices, but there may be a better one.
pub(super) fn cheapest(
    candidates: &[Candidate<'_>],
    case: &mut impl Case,
    bound: Option<(UnitMs, usize)>,
    questions: &mut u32,
) -> Option<Choice> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|at| {
        let Candidate { lost, admitted_ms, key } = candidates[*at];
        (Reverse(lost), admitted_ms, Reverse(key), Reverse(*at))
    });
    let all = order.clone();
    let bound = bound.unwrap_or((UnitMs::MAX, usize::MAX));
    let mut search = Search { candidates, order, case, questions, bound, best: None };
    if search.asks(&[]) {
        return Some(Choice { lost: 0, victims: Vec::new() });
    }
    if search.asks(&all) {
        if bound.0 == UnitMs::MAX {
            search.greedy();
        }
        search.branch(0, &mut Vec::new(), 0);
    }
    search.best
}

/// What is compared of two candidates that lose the same.
pub(super) fn preferred<'a>(candidates: &[Candidate<'a>], at: usize) -> (Reverse<i64>, &'a str, usize) {
    (Reverse(candidates[at].admitted_ms), candidates[at].key, at)
}

struct Search<'a, C> {
    candidates: &'a [Candidate<'a>],
    /// Positions, the greatest loss first.
    order: Vec<usize>,
    case: &'a mut C,
    questions: &'a mut u32,
    bound: (UnitMs, usize),
    best: Option<Choice>,
}

impl<C: Case> Search<'_, C> {
    /// Whether the set suffices; when nothing may be asked any more, no.
    fn asks(&mut self, set: &[usize]) -> bool {
        if *self.questions == 0 {
            return false;
        }
        *self.questions -= 1;
        self.case.suffices(set)
    }

    /// The least losses until they suffice, without those that turn out to be to spare.
    fn greedy(&mut self) {
        let mut set = Vec::new();
        for at in self.order.iter().rev() {
            set.push(*at);
            if !self.case.allows(&set) {
                set.pop();
            }
        }
        if !self.asks(&set) {
            return;
        }
        // The shortest beginning of it that suffices.
        let (mut too_few, mut enough) = (0, set.len());
        while enough - too_few > 1 && *self.questions > 0 {
            let middle = usize::midpoint(too_few, enough);
            if self.asks(&set[..middle]) { enough = middle } else { too_few = middle }
        }
        set.truncate(enough);
        for at in (0..set.len()).rev() {
            let without = set.remove(at);
            if !self.asks(&set) {
                set.insert(at, without);
            }
        }
        self.offer(set);
    }

    /// Decides on the candidates from `from` on; with all of these, `chosen` suffices, and without them not.
    fn branch(&mut self, from: usize, chosen: &mut Vec<usize>, lost: UnitMs) {
        let Some((&at, rest)) = self.order.get(from..).and_then(<[usize]>::split_first) else { return };
        // At least one more has to leave.
        let least = self.order.last().map_or(0, |last| self.candidates[*last].lost);
        if *self.questions == 0 || self.is_worse(lost.saturating_add(least), chosen.len() + 1) {
            return;
        }
        let without: Vec<usize> = chosen.iter().chain(rest).copied().collect();
        if self.asks(&without) {
            self.branch(from + 1, chosen, lost);
        }
        let lost = lost.saturating_add(self.candidates[at].lost);
        chosen.push(at);
        if !self.is_worse(lost, chosen.len()) && self.case.allows(chosen) {
            if self.asks(chosen) {
                self.offer(chosen.clone());
            } else {
                self.branch(from + 1, chosen, lost);
            }
        }
        chosen.pop();
    }

    fn is_worse(&self, lost: UnitMs, count: usize) -> bool {
        let best = self.best.as_ref().map_or(self.bound, |best| (best.lost, best.victims.len()));
        (lost, count) > best
    }

    fn offer(&mut self, mut victims: Vec<usize>) {
        let candidates = self.candidates;
        victims.sort_by_key(|at| preferred(candidates, *at));
        let lost = victims.iter().fold(0_u64, |sum, at| sum.saturating_add(candidates[*at].lost));
        let rank = |choice: &Choice| {
            let names: Vec<_> = choice.victims.iter().map(|at| preferred(candidates, *at)).collect();
            (choice.lost, choice.victims.len(), names)
        };
        let choice = Choice { lost, victims };
        if self.best.as_ref().is_none_or(|best| rank(&choice) < rank(best)) {
            self.best = Some(choice);
        }
    }
}
