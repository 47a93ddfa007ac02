//! Gangs whose pods are to be close to one another: on nodes with the same
//! value of a label. Which of these domains a gang gets is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::arrange::Fitness;
use super::cluster::{Cluster, Placed};
use crate::model::{Snapshot, Topology};

/// Equally good domains that are tried, for the sake of what they cost.
const TRIED: usize = 8;

/// The domains of one label.
#[derive(Clone, Debug)]
pub(super) struct Domains {
    /// For each node, its domain, if it has the label.
    of: Vec<Option<usize>>,
    count: usize,
}

/// What is known of pods of one shape in the domains of one label.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// The most that fit in one domain, when the cluster had changed so many times.
    most: Option<(u64, usize)>,
    /// So many did not fit, when so many nodes had been given something back.
    pub failed: Option<(u32, usize)>,
}

impl Domains {
    fn of(snapshot: &Snapshot, label: &str) -> Self {
        let mut number = BTreeMap::new();
        let domain = |node: &crate::model::Node| {
            let value = node.labels.get(label)?.clone();
            let next = number.len();
            Some(*number.entry(value).or_insert(next))
        };
        let of = snapshot.nodes.iter().map(domain).collect();
        Self { of, count: number.len() }
    }

    /// For each node, whether it is in one of `some`.
    fn nodes_of(&self, some: &[usize]) -> Vec<bool> {
        self.of.iter().map(|domain| domain.is_some_and(|domain| some.contains(&domain))).collect()
    }
}

impl Cluster<'_> {
    /// Places all pods in one domain: of those with room for all, the one in which the fewest more would fit then,
    /// and of equals the one that costs least. If there is none, and that may be so, in as few domains as possible.
    pub(super) fn place_together(
        &mut self,
        shape: usize,
        pods: u32,
        avoid: &BTreeSet<u32>,
        topology: &Topology,
    ) -> Option<Placed> {
        let key = (shape, topology.label.clone());
        let known = self.together.get(&key).and_then(|together| together.failed);
        if known.is_some_and(|(failed, given)| given == self.given.len() && failed <= pods) {
            return None;
        }
        let placed = self.place_by_domain(shape, pods, avoid, topology);
        if placed.is_none() {
            let given = self.given.len();
            self.together.entry(key).or_default().failed = Some((pods, given));
        }
        placed
    }

    fn place_by_domain(
        &mut self,
        shape: usize,
        pods: u32,
        avoid: &BTreeSet<u32>,
        topology: &Topology,
    ) -> Option<Placed> {
        let domains = self.know_domains(&topology.label);
        let fit = self.fit_by_domain(shape, &domains);
        let mut whole: Vec<(u64, usize)> = (0..domains.count)
            .filter(|&domain| fit[domain] >= u64::from(pods))
            .map(|domain| (fit[domain], domain))
            .collect();
        whole.sort_unstable();
        let mut best: Option<(Fitness, Vec<bool>)> = None;
        let tightest = whole.first().map(|(fit, _)| *fit);
        for (tried, (fit, domain)) in whole.into_iter().enumerate() {
            if best.is_some() && (Some(fit) != tightest || tried == TRIED) {
                break;
            }
            let allowed = domains.nodes_of(&[domain]);
            let Some(placed) = self.place_within(shape, pods, avoid, Some(&allowed)) else { continue };
            let cost = placed.fitness;
            self.take_back_at_once(shape, placed);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, allowed));
            }
        }
        if let Some((_, allowed)) = best {
            return self.place_within(shape, pods, avoid, Some(&allowed));
        }
        if topology.required { None } else { self.place_in_few(shape, pods, avoid, &domains, &fit) }
    }

    /// In the domains with the most room, then wherever.
    fn place_in_few(
        &mut self,
        shape: usize,
        pods: u32,
        avoid: &BTreeSet<u32>,
        domains: &Domains,
        fit: &[u64],
    ) -> Option<Placed> {
        let mut largest: Vec<usize> = (0..domains.count).collect();
        largest.sort_by_key(|&domain| (std::cmp::Reverse(fit[domain]), domain));
        let mut room = 0;
        let mut some = Vec::new();
        for domain in largest {
            room += fit[domain];
            some.push(domain);
            if room >= u64::from(pods) {
                let allowed = domains.nodes_of(&some);
                if let Some(placed) = self.place_within(shape, pods, avoid, Some(&allowed)) {
                    return Some(placed);
                }
            }
        }
        self.place_within(shape, pods, avoid, None)
    }

    /// How many pods of a shape fit at most that must be close to one another.
    pub fn fit_together(&mut self, shape: usize, topology: &Topology) -> u64 {
        let key = (shape, topology.label.clone());
        let changes = self.changes.len();
        if let Some((most, _)) = self.together.get(&key).and_then(|t| t.most).filter(|(_, at)| *at == changes)
        {
            return most;
        }
        let domains = self.know_domains(&topology.label);
        let most = self.fit_by_domain(shape, &domains).into_iter().max().unwrap_or(0);
        self.together.entry(key).or_default().most = Some((most, changes));
        most
    }

    fn fit_by_domain(&mut self, shape: usize, domains: &Domains) -> Vec<u64> {
        let mut fit = vec![0_u64; domains.count];
        let on = self.counts(shape);
        for (domain, pods) in domains.of.iter().zip(on) {
            if let Some(domain) = domain {
                fit[*domain] = fit[*domain].saturating_add(pods);
            }
        }
        fit
    }

    fn know_domains(&mut self, label: &str) -> Rc<Domains> {
        if let Some(known) = self.domains.get(label) {
            return known.clone();
        }
        let domains = Rc::new(Domains::of(self.snapshot, label));
        self.domains.insert(label.to_owned(), domains.clone());
        domains
    }
}

#[cfg(test)]
mod tests;
