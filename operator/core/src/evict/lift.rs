//! The search for the victims of one workload in the cluster itself: they are
//! lifted off it, and what then fits is looked at. Who may be lifted at all, and
//! what happens then, is not decided here.
//!
//! A single pod finds its room on one GPU or one node, so these are searched one
//! by one, and the choice is the best there is as long as none of them has more
//! candidates than [`super::victims`] can search to the end. A gang for which
//! few may be asked is chosen for in the same way, as a whole; else it is given
//! the node where the least is lost, again and again, and in the end nobody
//! leaves who is to spare.

use std::cmp::Reverse;

use super::limits::Short;
use super::reclaim::{Claimant, Rights, Spared};
use super::victims::{Candidate, Case, Choice, cheapest, preferred};
use crate::model::{Snapshot, UnitMs, Workload};
use crate::placement::Cluster;
use crate::queue::tree::Tree;

/// Candidates for a gang that are looked at together.
const TOGETHER: usize = 11;

/// A search for victims. What it has lifted, it puts back.
#[derive(Debug)]
pub(super) struct Lift<'s, 'a> {
    pub snapshot: &'a Snapshot,
    pub cluster: &'s mut Cluster<'a>,
    pub tree: &'s Tree<'a>,
    pub rights: &'s Rights<'a>,
    pub by: Claimant,
    pub spared: Spared,
    /// What it lacks under limits.
    pub short: &'s Short,
    pub workload: &'a Workload,
    pub shape: usize,
    pub now_ms: i64,
}

/// Candidates that are looked at together, and how they are told apart.
struct Group<'g, 's, 'a> {
    lift: &'g mut Lift<'s, 'a>,
    /// Indices into the snapshot's running.
    of: &'g [usize],
    /// Who leaves in any case.
    besides: &'g [usize],
    /// By position: whether it is lifted.
    lifted: Vec<bool>,
    /// How many pods must fit; `None` asks for a place for the whole workload.
    pods: Option<u64>,
}

/// Victims, and how they compare.
type Ranked<'a> = (Rank<'a>, Vec<usize>);

/// A choice, as it is compared: less is better.
type Rank<'a> = (UnitMs, usize, Vec<(Reverse<i64>, &'a str, usize)>);

impl<'a> Lift<'_, 'a> {
    /// The victims among `candidates` whose leaving gives the workload a place.
    pub fn choose(&mut self, candidates: &[usize], questions: &mut u32) -> Option<Vec<usize>> {
        let close = self.workload.topology.as_ref().is_some_and(|topology| topology.required);
        // Who holds what is lacking under a limit may be anywhere.
        if candidates.len() <= TOGETHER || (close && self.workload.pods > 1) || !self.short.is_nothing() {
            return self.together(candidates, questions);
        }
        if self.workload.pods > 1 {
            return self.node_by_node(candidates, questions);
        }
        let mut best = None;
        if self.asks_for_one_device() {
            best = self.best_spot(candidates, true, questions);
        }
        // More may be short there than devices.
        best.or_else(|| self.best_spot(candidates, false, questions))
    }

    fn asks_for_one_device(&self) -> bool {
        let requests = &self.snapshot.shapes[self.workload.shape].requests;
        requests.iter().map(|request| u64::from(request.count)).sum::<u64>() == 1
    }

    fn together(&mut self, candidates: &[usize], questions: &mut u32) -> Option<Vec<usize>> {
        let (_, victims) = self.cheapest(candidates, &[], None, None, questions)?;
        Some(victims)
    }

    /// The best that there is on one GPU or one node.
    fn best_spot(
        &mut self,
        candidates: &[usize],
        on_one_gpu: bool,
        questions: &mut u32,
    ) -> Option<Vec<usize>> {
        let mut best: Option<Ranked<'a>> = None;
        for group in self.by_spot(candidates, on_one_gpu) {
            let least = group.iter().map(|at| self.lost(*at)).min().unwrap_or(UnitMs::MAX);
            let bound = best.as_ref().map(|((lost, count, _), _)| (*lost, *count));
            if bound.is_some_and(|bound| (least, 1) > bound) {
                break;
            }
            let Some(found) = self.cheapest(&group, &[], Some(1), bound, questions) else { continue };
            if best.as_ref().is_none_or(|(rank, _)| found.0 < *rank) {
                best = Some(found);
            }
        }
        best.map(|(_, victims)| victims)
    }

    /// For each pod the node on which the least is lost, until all have room; then, without those to spare.
    fn node_by_node(&mut self, candidates: &[usize], questions: &mut u32) -> Option<Vec<usize>> {
        let mut groups = self.by_spot(candidates, false);
        let mut known: Vec<Option<Option<Ranked<'a>>>> = vec![None; groups.len()];
        let mut chosen: Vec<usize> = Vec::new();
        while self.cluster.count(self.shape) < u64::from(self.workload.pods) && *questions > 0 {
            let one_more = self.cluster.count(self.shape) + 1;
            for (group, known) in groups.iter().zip(&mut known).filter(|(_, known)| known.is_none()) {
                *known = Some(self.cheapest(group, &chosen, Some(one_more), None, questions));
            }
            let found = (0..).zip(&known).filter_map(|(at, known)| Some((known.as_ref()?.as_ref()?, at)));
            let Some((_, at)) = found.min_by(|((one, _), _), ((other, _), _)| one.cmp(other)) else { break };
            let Some((_, victims)) = known[at].take().flatten() else { break };
            let all: Vec<usize> = chosen.iter().chain(&victims).copied().collect();
            if !self.may_all_leave(&all) {
                // Others were chosen in the meantime; perhaps some other of the node may still leave.
                known[at] = Some(self.cheapest(&groups[at], &chosen, Some(one_more), None, questions));
                continue;
            }
            for victim in &victims {
                self.cluster.release(*victim);
            }
            chosen = all;
            for (group, known) in groups.iter_mut().zip(&mut known) {
                let before = group.len();
                group.retain(|at| !victims.contains(at));
                if group.len() < before {
                    *known = None;
                }
            }
        }
        let enough = self.cluster.count(self.shape) >= u64::from(self.workload.pods);
        for victim in &chosen {
            self.cluster.restore(*victim);
        }
        if enough { self.together(&chosen, questions) } else { None }
    }

    /// The cheapest of one group such that `pods` fit, or the whole workload does.
    fn cheapest(
        &mut self,
        of: &[usize],
        besides: &[usize],
        pods: Option<u64>,
        bound: Option<(UnitMs, usize)>,
        questions: &mut u32,
    ) -> Option<Ranked<'a>> {
        let running = &self.snapshot.running;
        let candidate = |at: &usize| Candidate {
            lost: self.lost(*at),
            admitted_ms: running[*at].admitted_ms,
            key: &running[*at].key,
        };
        let candidates: Vec<Candidate<'a>> = of.iter().map(candidate).collect();
        let mut group = Group { lifted: vec![false; of.len()], lift: self, of, besides, pods };
        let found = cheapest(&candidates, &mut group, bound, questions);
        group.lift_just(&[]);
        let Choice { lost, victims } = found?;
        let names =
            victims.iter().map(|at| preferred(&candidates, *at)).map(|(ms, key, at)| (ms, key, of[at]));
        Some(((lost, victims.len(), names.collect()), victims.iter().map(|at| of[*at]).collect()))
    }

    fn may_all_leave(&self, victims: &[usize]) -> bool {
        let victims = victims.iter().map(|at| &self.snapshot.running[*at]);
        self.rights.all_may_leave(self.by, victims, self.spared, self.tree)
    }

    fn lost(&self, at: usize) -> UnitMs {
        self.snapshot.running[at].lost(self.now_ms)
    }

    /// The candidates by the GPU or the node where they are, in the order of the least that one of them loses.
    fn by_spot(&self, candidates: &[usize], gpus: bool) -> Vec<Vec<usize>> {
        let spots = if gpus { self.snapshot.gpus.len() } else { self.snapshot.nodes.len() };
        let mut groups: Vec<Vec<usize>> = vec![Vec::new(); spots];
        let mut enter = |spot: u32, at: usize| {
            if let Some(group) = groups.get_mut(spot as usize).filter(|group| group.last() != Some(&at)) {
                group.push(at);
            }
        };
        for at in candidates {
            for pod in &self.snapshot.running[*at].pods {
                if gpus {
                    pod.devices.iter().flatten().for_each(|device| enter(device.gpu.0, *at));
                } else {
                    enter(pod.node.0, *at);
                }
            }
        }
        groups.retain(|group| !group.is_empty());
        groups.sort_by_cached_key(|group| group.iter().map(|at| self.lost(*at)).min());
        groups
    }
}

impl Group<'_, '_, '_> {
    /// Lifts these, and puts the others back.
    fn lift_just(&mut self, set: &[usize]) {
        let mut wanted = vec![false; self.of.len()];
        for at in set {
            wanted[*at] = true;
        }
        for (at, (wanted, lifted)) in self.of.iter().zip(wanted.iter().zip(&mut self.lifted)) {
            match (*wanted, *lifted) {
                (true, false) => self.lift.cluster.release(*at),
                (false, true) => self.lift.cluster.restore(*at),
                _ => {}
            }
            *lifted = *wanted;
        }
    }
}

impl Case for Group<'_, '_, '_> {
    fn allows(&mut self, set: &[usize]) -> bool {
        let all: Vec<usize> = self.besides.iter().copied().chain(set.iter().map(|at| self.of[*at])).collect();
        self.lift.may_all_leave(&all)
    }

    fn suffices(&mut self, set: &[usize]) -> bool {
        let running = set.iter().map(|at| &self.lift.snapshot.running[self.of[*at]]);
        if !self.lift.short.is_met_without(&running, self.lift.tree) {
            return false;
        }
        self.lift_just(set);
        let Lift { cluster, workload, shape, .. } = &mut *self.lift;
        if let Some(pods) = self.pods {
            return cluster.count(*shape) >= pods;
        }
        let placed = cluster.place_workload(*shape, workload);
        placed.map(|placed| cluster.take_back(*shape, placed)).is_some()
    }
}
