//! Which node takes a pod that needs several devices, and how many pods of a
//! shape there is room for: kept per demand and shape, and brought up to date
//! by the nodes that changed. Pods of one device are placed in [`super::choice`].

use std::collections::{BTreeMap, BTreeSet};

use super::arrange::{Fitness, Slot, arrange, offer};
use super::cluster::{Cluster, Placed};
use super::demand::Item;
use super::filter::{Objection, objection};
use super::groups::GroupId;
use crate::geometry::Pick;
use crate::model::{DeviceIndex, GpuIndex, NodeIndex, PlacementPolicy, PodPlacement, UNITS_PER_GPU};

/// Nodes of equal cost that are compared for balance, once patience is gone.
pub(super) const LOOKS: u32 = 8;

/// So many new groups are put in order together.
const MANY: usize = 16;

/// What each group offers a demand of one item, whatever else the pods need.
#[derive(Debug, Default)]
pub(super) struct Views {
    /// By group.
    pub of: Vec<Option<View>>,
    /// Those that offer something, best first.
    pub order: Vec<(Pick, GroupId)>,
    /// None before this one has a GPU.
    pub start: usize,
    /// How many of the groups that were filled are considered in that.
    filled: usize,
}

/// What a GPU offers.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub pick: Pick,
    /// How many devices can be taken one after the other.
    pub most: u32,
}

/// What each node offers a demand, whatever else the pods need.
#[derive(Debug, Default)]
pub(super) struct Offers {
    nodes: Vec<Offer>,
    /// How many of the cluster's changes are in it.
    seen: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    pods: u64,
    place: Place,
}

/// How good a node is for a pod; less is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    fitness: Fitness,
    level: u8,
    room: u64,
}

/// The nodes that take a pod of one shape, best first.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    order: BTreeSet<(Place, u32)>,
    nodes: Vec<Candidate>,
    /// Pods that fit on all of them.
    pods: u64,
    seen: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Candidate {
    pods: u64,
    place: Place,
}

/// What could take pods of a shape, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Pods that fit.
    pub pods: u64,
    /// Pods that would fit if only devices counted.
    pub pods_by_devices: u64,
    /// Nodes with devices for at least one pod.
    pub nodes: u32,
    /// Of these, those that take fewer pods than they have devices for, by reason.
    pub turned_away: BTreeMap<String, u32>,
}

impl Cluster<'_> {
    /// Pods of a shape that fit now.
    pub fn count(&mut self, shape: usize) -> u64 {
        self.refresh_candidates(shape).pods
    }

    /// How many of them fit on each node.
    pub(super) fn count_on(&mut self, shape: usize, node: u32) -> u64 {
        self.refresh_candidates(shape).nodes[node as usize].pods
    }

    /// The same for all nodes.
    pub(super) fn counts(&mut self, shape: usize) -> Vec<u64> {
        self.refresh_candidates(shape).nodes.iter().map(|candidate| candidate.pods).collect()
    }

    /// Places pods that need several devices, on nodes in `avoid` only where no others take them, and only on nodes
    /// that are `allowed`. Whether all were placed; `placed` has those that were.
    pub(super) fn place_by_node(
        &mut self,
        shape: usize,
        pods: u32,
        avoid: &BTreeSet<u32>,
        allowed: Option<&[bool]>,
        placed: &mut Placed,
    ) -> bool {
        // Pods with different devices share a node's GPUs best when looked at together.
        let together = self.shapes.demands[self.shapes.demand_of[shape]].items.len() > 1;
        let mut left = pods;
        while left > 0 {
            let Some(node) = self.best_node(shape, avoid, allowed) else { return false };
            let room = self.count_on(shape, node);
            let count = if together { u32::try_from(room).map_or(left, |room| room.min(left)) } else { 1 };
            if !self.place_on(shape, node, count, placed) {
                return false;
            }
            left -= count;
        }
        true
    }

    fn best_node(&mut self, shape: usize, avoid: &BTreeSet<u32>, allowed: Option<&[bool]>) -> Option<u32> {
        let weighed =
            !matches!(self.shapes.scorer.policy(), PlacementPolicy::FirstFit | PlacementPolicy::Spread);
        self.refresh_candidates(shape);
        let candidates = self.candidates[shape].as_ref()?;
        let allowed = |node: u32| allowed.is_none_or(|allowed| allowed[node as usize]);
        let mut order = candidates.order.iter().filter(|(_, node)| allowed(*node));
        let first = order.clone().find(|(_, node)| !avoid.contains(node)).or_else(|| order.next())?;
        let mut best: Option<(i64, u32)> = None;
        let mut looked = 0;
        for (place, node) in
            candidates.order.range::<(Place, u32), _>(first..).filter(|(_, node)| allowed(*node))
        {
            let equal = place.fitness.is_near(&first.0.fitness);
            let patient = looked < self.patience.max(LOOKS);
            if !weighed || !equal || !patient || avoid.contains(node) != avoid.contains(&first.1) {
                break;
            }
            let before = self.gpus_left(*node, 0);
            let after = self.gpus_left(*node, self.taken_by_pod(shape, *node));
            let strands = self.room.strands(*node, shape, before, after);
            if best.is_none_or(|(least, _)| strands < least) {
                best = Some((strands, *node));
            }
            if strands == 0 {
                break;
            }
            looked += 1;
        }
        self.patience = self.patience.saturating_sub(looked);
        Some(best.map_or(first.1, |(_, node)| node))
    }

    /// Room of GPUs that a pod takes on a node, if it gets the smallest devices that will do.
    fn taken_by_pod(&self, shape: usize, node: u32) -> u64 {
        let least = self.shapes.demands[self.shapes.demand_of[shape]].least.unwrap_or(0);
        let now = &self.nodes[node as usize];
        let units = UNITS_PER_GPU.saturating_mul(u64::try_from(now.gpus.len()).unwrap_or(u64::MAX));
        now.all.saturating_mul(least) / units.max(1)
    }

    /// Places `pods` pods on one node, if they fit there.
    fn place_on(&mut self, shape: usize, node: u32, pods: u32, placed: &mut Placed) -> bool {
        let shapes = self.shapes;
        let demand = &shapes.demands[shapes.demand_of[shape]];
        let mut slots = self.slots(node, &demand.items);
        let Some(arranged) = arrange(&mut self.fleet, &mut slots, demand, pods) else { return false };
        for chosen in arranged {
            let mut devices = vec![Vec::new(); shapes.pods[shape].requests.len()];
            for chosen in chosen {
                let gpu = GpuIndex(self.nodes[node as usize].gpus[chosen.slot]);
                let device = DeviceIndex { gpu, device: chosen.pick.device };
                self.take_device(device, placed);
                devices[demand.items[chosen.item].request].push(device);
            }
            self.shift_room(NodeIndex(node), shape, false);
            placed.pods.push(PodPlacement { node: NodeIndex(node), devices });
        }
        true
    }

    /// What could take pods of a shape, with the reasons of those nodes that cannot.
    pub fn survey(&mut self, shape: usize) -> Survey {
        let demand = self.shapes.demand_of[shape];
        let at = (demand, self.changes.len());
        // Shapes of one demand come together.
        let known = self.offered.take().filter(|(known, _)| *known == at);
        let by_devices = known.map_or_else(|| self.pods_by_devices_of(demand), |(_, pods)| pods);
        let rule = self.know_objections(shape);
        let objections = self.objections[rule].iter().flatten();
        let mut survey = Survey::default();
        let mut turned_away: BTreeMap<Objection, u32> = BTreeMap::new();
        for ((offered, node), objection) in by_devices.iter().copied().zip(0..).zip(objections) {
            if offered == 0 {
                continue;
            }
            survey.nodes += 1;
            survey.pods_by_devices = survey.pods_by_devices.saturating_add(offered);
            let (pods, reason) = objection.map_or_else(|| self.room.pods(node, shape), |o| (0, o));
            if pods < offered {
                *turned_away.entry(reason).or_default() += 1;
            }
            survey.pods = survey.pods.saturating_add(pods.min(offered));
        }
        self.offered = Some((at, by_devices));
        survey.turned_away = turned_away.into_iter().map(|(reason, n)| (reason.to_string(), n)).collect();
        survey
    }

    /// For each node, the pods for which it has the devices of a demand.
    fn pods_by_devices_of(&mut self, demand: usize) -> Vec<u64> {
        let known = self.offers[demand].nodes.len() == self.nodes.len();
        let shapes = self.shapes;
        let ([item], false) = (shapes.demands[demand].items.as_slice(), known) else {
            self.refresh_offers(demand);
            return self.offers[demand].nodes.iter().map(|offer| offer.pods).collect();
        };
        self.refresh_views(demand);
        let views = &self.views[demand].of;
        let mut pods = vec![0_u64; self.nodes.len()];
        for now in &self.gpus {
            if let (Some(view), Some(on)) = (views[now.group.0 as usize], pods.get_mut(now.node as usize)) {
                *on += u64::from(view.most);
            }
        }
        for on in &mut pods {
            *on /= u64::from(item.count);
        }
        pods
    }

    /// Whether a pod of a shape may go to a node, and the node has what it asks for besides devices.
    pub(super) fn takes_pod(&mut self, shape: usize, node: u32) -> bool {
        self.suits(shape, node) && self.room.pods(node, shape).0 > 0
    }

    /// Whether a pod of a shape may go to a node, however full it is.
    pub fn suits(&mut self, shape: usize, node: u32) -> bool {
        let rule = self.know_objections(shape);
        self.objections[rule].as_ref().is_some_and(|known| known.get(node as usize) == Some(&None))
    }

    /// Sees to it that the objections of the shape's rule are known; tells where they are.
    pub(super) fn know_objections(&mut self, shape: usize) -> usize {
        let rule = self.shapes.rule_of[shape];
        let (snapshot, pod, emptied) = (self.snapshot, self.shapes.pods[rule], self.emptied);
        self.objections[rule]
            .get_or_insert_with(|| snapshot.nodes.iter().map(|node| objection(node, pod, emptied)).collect());
        rule
    }

    /// Sees to it that all groups are in the views of a demand of one item.
    pub(super) fn refresh_views(&mut self, demand: usize) {
        let [item] = self.shapes.demands[demand].items.as_slice() else { return };
        let views = &mut self.views[demand];
        let new = views.of.len()..self.groups.list.len();
        let many = new.len() > MANY;
        for at in new {
            let id = GroupId(u32::try_from(at).unwrap_or(u32::MAX));
            let group = self.groups.get(id);
            let mask = self.groups.sorts[group.sort as usize].masks.get(item.eligible).copied().unwrap_or(0);
            let view = self.fleet.pick(group.state, mask, item.smallest).map(|pick| {
                if many {
                    views.order.push((pick, id));
                } else {
                    let place = views.order.partition_point(|other| *other < (pick, id));
                    views.start += usize::from(place < views.start);
                    views.order.insert(place, (pick, id));
                }
                View { pick, most: self.fleet.most(group.state, mask, item.smallest) }
            });
            views.of.push(view);
        }
        if many {
            views.order.sort_unstable();
            views.start = 0;
        }
        for id in &self.groups.filled[views.filled..] {
            if let Some(View { pick, .. }) = views.of[id.0 as usize] {
                let key = (pick, *id);
                if views.order.get(views.start).is_none_or(|first| key < *first) {
                    views.start = views.order.partition_point(|other| *other < key);
                }
            }
        }
        views.filled = self.groups.filled.len();
        let empty = |(_, id): &&(Pick, GroupId)| self.groups.get(*id).levels == 0;
        views.start += views.order[views.start..].iter().take_while(empty).count();
    }

    fn slots(&self, node: u32, items: &[Item]) -> Vec<Slot> {
        let slot = |gpu: &u32| {
            let masks = items.iter().map(|item| self.mask(*gpu, item.eligible)).collect();
            Slot { state: self.gpus[*gpu as usize].state, masks }
        };
        self.nodes[node as usize].gpus.iter().map(slot).collect()
    }

    fn all_nodes(&self) -> Vec<u32> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).collect()
    }

    fn refresh_offers(&mut self, demand: usize) {
        let stale = if self.offers[demand].nodes.len() == self.nodes.len() {
            changed_since(&self.changes, self.offers[demand].seen, self.nodes.len())
        } else {
            self.offers[demand].nodes = vec![Offer::default(); self.nodes.len()];
            self.all_nodes()
        };
        self.offers[demand].seen = self.changes.len();
        self.refresh_views(demand);
        for node in stale {
            let (pods, fitness) = self.offer_of(demand, node);
            let now = &self.nodes[node as usize];
            let room = match self.shapes.scorer.policy() {
                PlacementPolicy::FirstFit => 0,
                PlacementPolicy::Spread => u64::MAX - now.room,
                _ => now.room,
            };
            let place = Place { fitness, level: now.level, room };
            self.offers[demand].nodes[node as usize] = Offer { pods, place };
        }
    }

    fn offer_of(&mut self, demand: usize, node: u32) -> (u64, Fitness) {
        let wanted = &self.shapes.demands[demand];
        if let [item] = wanted.items.as_slice() {
            let views = &self.views[demand].of;
            let view = |gpu: &u32| views[self.gpus[*gpu as usize].group.0 as usize];
            let on = self.nodes[node as usize].gpus.iter().filter_map(view);
            let (most, once) = on.clone().fold((0_u64, true), |(sum, once), view| {
                (sum + u64::from(view.most), once && view.most == 1)
            });
            let pods = most / u64::from(item.count);
            if pods == 0 {
                return (0, Fitness::default());
            }
            // Of GPUs that give one device each, the best are taken.
            if once || item.count == 1 {
                let mut picks: Vec<Pick> = on.map(|view| view.pick).collect();
                picks.sort_unstable();
                return (pods, Fitness::of(picks.iter().take(item.count as usize)));
            }
        }
        let mut slots = self.slots(node, &wanted.items);
        offer(&mut self.fleet, &mut slots, wanted, wanted.pods)
    }

    fn refresh_candidates(&mut self, shape: usize) -> &Candidates {
        let demand = self.shapes.demand_of[shape];
        self.refresh_offers(demand);
        let rule = self.know_objections(shape);
        let stale = match &self.candidates[shape] {
            None => self.all_nodes(),
            Some(known) => changed_since(&self.changes, known.seen, self.nodes.len()),
        };
        let offers = &self.offers[demand].nodes;
        let objections = self.objections[rule].as_deref().unwrap_or_default();
        let candidates = self.candidates[shape].get_or_insert_with(|| Candidates {
            nodes: vec![Candidate::default(); objections.len()],
            ..Candidates::default()
        });
        candidates.seen = self.changes.len();
        for node in stale {
            if objections[node as usize].is_some() {
                continue;
            }
            let candidate = &mut candidates.nodes[node as usize];
            let offer = offers[node as usize];
            let pods = if offer.pods == 0 { 0 } else { self.room.pods(node, shape).0.min(offer.pods) };
            candidates.pods = candidates.pods - candidate.pods + pods;
            let (before, now) = (candidate.place, offer.place);
            let (was, is) = (candidate.pods > 0, pods > 0);
            *candidate = Candidate { pods, place: now };
            if was && (!is || before != now) {
                candidates.order.remove(&(before, node));
            }
            if is && (!was || before != now) {
                candidates.order.insert((now, node));
            }
        }
        candidates
    }
}

/// The nodes that changed since, each once.
fn changed_since(changes: &[u32], seen: usize, nodes: usize) -> Vec<u32> {
    let changes = changes.get(seen..).unwrap_or_default();
    if changes.len() < nodes {
        let mut stale = changes.to_vec();
        stale.sort_unstable();
        stale.dedup();
        return stale;
    }
    let mut is_stale = vec![false; nodes];
    for node in changes {
        is_stale[*node as usize] = true;
    }
    (0..).zip(is_stale).filter(|(_, stale)| *stale).map(|(node, _)| node).collect()
}
