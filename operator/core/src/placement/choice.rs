//! Where the pods of a workload go. A pod of one device gets the best group
//! that has a GPU whose node suits it, without a look at the others; pods of
//! several devices get nodes.

use std::collections::BTreeSet;

use super::cluster::{Cluster, Placed};
use super::groups::GroupId;
use super::nodes::LOOKS;
use crate::geometry::Pick;
use crate::model::{DeviceIndex, GpuIndex, NodeIndex, PlacementPolicy, PodPlacement, Workload};
use crate::states::GpuSet;

/// What is known of a shape from looking for places for it.
#[derive(Debug)]
pub(super) struct Sought {
    /// GPUs of nodes that suit its pods and had CPU, memory and the rest for one when last looked at.
    within: GpuSet,
    /// How many of the nodes that were given something back are in it.
    given: usize,
    /// So many pods did not fit, wherever they might go, when so many nodes had been given something back.
    failed: Option<(u32, usize)>,
}

/// A device for a pod.
#[derive(Clone, Copy, Debug)]
struct Found {
    gpu: u32,
    device: u8,
}

/// The best of those that leave their node out of balance.
#[derive(Clone, Copy, Debug)]
struct Makeshift {
    strands: i64,
    found: Found,
}

/// A search that goes on.
struct Looking {
    first: Option<Pick>,
    makeshift: Option<Makeshift>,
    looked: u32,
    /// Whether balance counts.
    weighed: bool,
}

impl Looking {
    /// Keeps the best makeshift of a run; of equals the one that was found first, as it costs less.
    fn keep(&mut self, of_run: Option<(i64, u8, u32, Found)>) {
        if let Some((strands, _, _, found)) = of_run
            && self.makeshift.is_none_or(|makeshift| strands < makeshift.strands)
        {
            self.makeshift = Some(Makeshift { strands, found });
        }
    }
}

impl Cluster<'_> {
    /// Places all `pods` of a shape, on nodes in `avoid` only where no others take them; `None`,
    /// and nothing is changed, if they don't all fit.
    pub fn place(&mut self, shape: usize, pods: u32, avoid: &BTreeSet<String>) -> Option<Placed> {
        let avoid: BTreeSet<u32> =
            avoid.iter().filter_map(|name| self.by_name.get(name.as_str()).copied()).collect();
        self.place_within(shape, pods, &avoid, None)
    }

    /// Places all pods of a workload of a shape, close to one another if it asks for that; else as [`Cluster::place`].
    pub fn place_workload(&mut self, shape: usize, workload: &Workload) -> Option<Placed> {
        let avoid: BTreeSet<u32> =
            workload.avoid.iter().filter_map(|name| self.by_name.get(name.as_str()).copied()).collect();
        match &workload.topology {
            Some(topology) => self.place_together(shape, workload.pods, &avoid, topology),
            None => self.place_within(shape, workload.pods, &avoid, None),
        }
    }

    /// Places all pods of a shape, wherever; `None`, and nothing is changed, if they don't all fit.
    pub fn place_anywhere(&mut self, shape: usize, pods: u32) -> Option<Placed> {
        self.place_within(shape, pods, &BTreeSet::new(), None)
    }

    /// Places all pods on nodes that are `allowed`, or none.
    pub(super) fn place_within(
        &mut self,
        shape: usize,
        pods: u32,
        avoid: &BTreeSet<u32>,
        allowed: Option<&[bool]>,
    ) -> Option<Placed> {
        let now = self.given.len();
        let sought = self.sought[shape].as_ref();
        if sought.and_then(|s| s.failed).is_some_and(|(failed, given)| given == now && failed <= pods) {
            return None;
        }
        let mut placed = Placed::default();
        let one = matches!(self.shapes.demands[self.shapes.demand_of[shape]].items.as_slice(), [item] if item.count == 1);
        let all = if one {
            (0..pods).all(|_| self.place_one(shape, avoid, allowed, &mut placed))
        } else {
            self.count(shape) >= u64::from(pods)
                && self.place_by_node(shape, pods, avoid, allowed, &mut placed)
        };
        if all {
            return Some(placed);
        }
        self.take_back_at_once(shape, placed);
        if allowed.is_none() {
            let given = self.given.len();
            self.know_sought(shape).failed = Some((pods, given));
        }
        None
    }

    /// Takes back what was just placed, after which all is as before: what did not fit then does not fit now.
    pub(super) fn take_back_at_once(&mut self, shape: usize, placed: Placed) {
        let before = self.given.len();
        self.take_back(shape, placed);
        let after = self.given.len();
        let together = self.together.values_mut().map(|together| &mut together.failed);
        let sought = self.sought.iter_mut().flatten().map(|sought| &mut sought.failed);
        for (_, given) in sought.chain(together).flatten() {
            *given = if *given == before { after } else { *given };
        }
    }

    fn place_one(
        &mut self,
        shape: usize,
        avoid: &BTreeSet<u32>,
        allowed: Option<&[bool]>,
        placed: &mut Placed,
    ) -> bool {
        let Some(found) = self.find(shape, avoid, allowed) else { return false };
        let demand = self.shapes.demand_of[shape];
        let request = self.shapes.demands[demand].items[0].request;
        let device = DeviceIndex { gpu: GpuIndex(found.gpu), device: found.device };
        let node = NodeIndex(self.gpus[found.gpu as usize].node);
        self.take_device(device, placed);
        self.shift_room(node, shape, false);
        let requests = self.shapes.pods[shape].requests.len();
        let mut devices = Vec::with_capacity(requests);
        devices.extend((0..requests).map(|at| if at == request { vec![device] } else { Vec::new() }));
        placed.pods.push(PodPlacement { node, devices });
        true
    }

    fn find(&mut self, shape: usize, avoid: &BTreeSet<u32>, allowed: Option<&[bool]>) -> Option<Found> {
        self.refresh_views(self.shapes.demand_of[shape]);
        let mut within = std::mem::replace(&mut self.know_sought(shape).within, GpuSet::new(0));
        let found = if avoid.is_empty() && allowed.is_none() {
            self.find_within(shape, &mut within)
        } else {
            let mut some = within.clone();
            for (node, now) in (0_u32..).zip(&self.nodes) {
                if allowed.is_some_and(|allowed| !allowed[node as usize]) {
                    now.gpus.iter().for_each(|gpu| some.remove(*gpu as usize));
                }
            }
            let mut rest = some.clone();
            let avoided = avoid.iter().flat_map(|node| &self.nodes[*node as usize].gpus);
            avoided.for_each(|gpu| some.remove(*gpu as usize));
            self.find_within(shape, &mut some).or_else(|| self.find_within(shape, &mut rest))
        };
        if let Some(sought) = &mut self.sought[shape] {
            sought.within = within;
        }
        found
    }

    /// What is known of a shape, brought up to date.
    fn know_sought(&mut self, shape: usize) -> &mut Sought {
        let rule = self.know_objections(shape);
        let (given, gpus) = (&self.given, self.snapshot.gpus.len());
        let objections = self.objections[rule].as_deref().unwrap_or_default();
        let nodes = &self.nodes;
        let enter = |within: &mut GpuSet, node: usize| {
            if objections[node].is_none() {
                nodes[node].gpus.iter().for_each(|gpu| within.insert(*gpu as usize));
            }
        };
        let sought = self.sought[shape].get_or_insert_with(|| {
            let mut within = GpuSet::new(gpus);
            (0..nodes.len()).for_each(|node| enter(&mut within, node));
            Box::new(Sought { within, given: given.len(), failed: None })
        });
        match &given[sought.given..] {
            many if many.len() > nodes.len() => {
                (0..nodes.len()).for_each(|node| enter(&mut sought.within, node));
            }
            some => some.iter().for_each(|node| enter(&mut sought.within, *node as usize)),
        }
        sought.given = given.len();
        sought
    }

    /// The best device on a GPU in `within`; GPUs of nodes that have too little of anything else are taken out of it.
    fn find_within(&mut self, shape: usize, within: &mut GpuSet) -> Option<Found> {
        let views = &mut self.views[self.shapes.demand_of[shape]];
        let (order, start) = (std::mem::take(&mut views.order), views.start);
        let policy = self.shapes.scorer.policy();
        let weighed = !matches!(policy, PlacementPolicy::FirstFit | PlacementPolicy::Spread);
        let mut looking = Looking { first: None, makeshift: None, looked: 0, weighed };
        let mut found = None;
        let mut rest = &order[start..];
        while let Some((pick, _)) = rest.first() {
            let equals = rest.iter().take_while(|(other, _)| same_value(other, pick)).count();
            let (run, others) = rest.split_at(equals);
            rest = others;
            if looking.first.is_some_and(|first| !near(pick, &first)) && looking.makeshift.is_some() {
                break;
            }
            found = self.find_in_run(shape, run, within, &mut looking);
            if found.is_some() {
                break;
            }
            if looking.makeshift.is_some() {
                looking.first.get_or_insert(*pick);
            }
        }
        self.views[self.shapes.demand_of[shape]].order = order;
        self.patience = self.patience.saturating_sub(looking.looked);
        found.or(looking.makeshift.map(|makeshift| makeshift.found))
    }

    /// The first GPU of the lowest level in equally good groups that leaves its node in balance.
    fn find_in_run(
        &mut self,
        shape: usize,
        run: &[(Pick, GroupId)],
        within: &mut GpuSet,
        looking: &mut Looking,
    ) -> Option<Found> {
        // Of equals the first GPU, whichever group it is in.
        let mut makeshift: Option<(i64, u8, u32, Found)> = None;
        let mut levels = run.iter().fold(0, |levels, (_, id)| levels | self.groups.get(*id).levels);
        while levels != 0 {
            let level = u8::try_from(levels.trailing_zeros()).unwrap_or_default();
            levels &= levels - 1;
            let mut best: Option<Found> = None;
            for &(pick, id) in run {
                let mut from = 0;
                while let Some(gpu) =
                    self.groups.get(id).on(level).and_then(|set| set.next_common(within, from))
                {
                    let gpu = u32::try_from(gpu).unwrap_or(u32::MAX);
                    if best.is_some_and(|best| best.gpu < gpu) {
                        break;
                    }
                    let node = self.gpus[gpu as usize].node;
                    // GPUs of one node are next to each other.
                    from = self.nodes[node as usize].gpus.last().map_or(gpu, |last| *last) as usize + 1;
                    if self.room.pods(node, shape).0 == 0 {
                        self.nodes[node as usize].gpus.iter().for_each(|gpu| within.remove(*gpu as usize));
                        continue;
                    }
                    let found = Found { gpu, device: pick.device };
                    let strands = if looking.weighed { self.strands(shape, found) } else { 0 };
                    if strands == 0 {
                        best = Some(found);
                        break;
                    }
                    if makeshift
                        .is_none_or(|(least, on, first, _)| (strands, level, gpu) < (least, on, first))
                    {
                        makeshift = Some((strands, level, gpu, found));
                    }
                    looking.looked += 1;
                    if looking.looked >= self.patience.max(LOOKS) {
                        looking.keep(makeshift);
                        return looking.makeshift.map(|makeshift| makeshift.found);
                    }
                }
            }
            if best.is_some() {
                return best;
            }
        }
        looking.keep(makeshift);
        None
    }

    /// By how much a pod there leaves its node more out of balance; see [`super::room::Room::strands`].
    fn strands(&mut self, shape: usize, found: Found) -> i64 {
        let now = &self.gpus[found.gpu as usize];
        let (state, node) = (now.state, now.node);
        let next = self.fleet.take(state, found.device);
        let taken = self.fleet.room(state).saturating_sub(self.fleet.room(next));
        let (before, after) = (self.gpus_left(node, 0), self.gpus_left(node, taken));
        self.room.strands(node, shape, before, after)
    }
}

/// Whether one choice is as good as the other, whichever device of the GPU it is.
fn same_value(a: &Pick, b: &Pick) -> bool {
    let value = |pick: &Pick| (pick.cost, pick.loss, pick.room, pick.size, pick.known);
    value(a) == value(b)
}

/// Whether the difference to a better choice is so small that other things count more.
fn near(pick: &Pick, better: &Pick) -> bool {
    use super::arrange::Fitness;
    let of = |pick: &Pick| Fitness::of(std::iter::once(pick));
    of(pick).is_near(&of(better))
}

#[cfg(test)]
mod tests;
