//! What is asked for, sorted out once per cycle: equal shapes and, within them,
//! equal sets of devices are one, so that each is answered once.

use std::collections::BTreeMap;

use crate::geometry::{Cards, looked_at};
use crate::model::{DeviceRequest, Gpu, PodShape, Snapshot, Units};
use crate::policy::Scorer;

/// The devices a pod asks for.
#[derive(Debug)]
pub(crate) struct Demand {
    /// One per request that counts at least one device, the hardest first.
    pub items: Vec<Item>,
    /// What a pod is charged at least; `None` if no device of the cluster will do for some request.
    pub least: Option<Units>,
    /// Pods of the largest workload that makes it.
    pub pods: u32,
    /// In words, the first request for which no device of the cluster will do.
    pub unknown: Option<String>,
}

/// A request of a demand.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Which of the shape's requests it is.
    pub request: usize,
    pub count: u32,
    /// Index into [`Snapshot::device_sets`].
    pub eligible: usize,
    pub smallest: bool,
}

/// The different shapes and demands of a snapshot.
#[derive(Debug)]
pub(crate) struct Shapes<'a> {
    /// How places are weighed.
    pub scorer: Scorer,
    /// For each GPU a number that equal ones share: those with the same devices, charged the same.
    pub card_of: Vec<usize>,
    /// For each GPU the devices that are looked at, as bits, and those of them that have no taint.
    pub all: Vec<u64>,
    pub untainted: Vec<u64>,
    /// The different shapes of pods.
    pub pods: Vec<&'a PodShape>,
    /// For each shape, its demand.
    pub demand_of: Vec<usize>,
    /// For each shape, the first shape that suits the same nodes.
    pub rule_of: Vec<usize>,
    /// The different demands.
    pub demands: Vec<Demand>,
    /// For each shape of the snapshot, which of these it is.
    pub index_of: Vec<usize>,
    /// For each waiting workload, its shape.
    pub shape_of: Vec<usize>,
}

impl<'a> Shapes<'a> {
    /// Of a snapshot, whose settings say how places are weighed.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let cards = Cards::of(&snapshot.gpus);
        let scorer = Scorer::for_cards(snapshot, &cards);
        Self::with_cards(snapshot, scorer, cards)
    }

    /// Of a snapshot, where places are weighed by `scorer`.
    pub fn with(snapshot: &'a Snapshot, scorer: Scorer) -> Self {
        Self::with_cards(snapshot, scorer, Cards::of(&snapshot.gpus))
    }

    fn with_cards(snapshot: &'a Snapshot, scorer: Scorer, cards: Cards) -> Self {
        let card_of = cards.of;
        let mut shapes = Self {
            scorer,
            card_of: Vec::new(),
            all: cards.all,
            untainted: cards.untainted,
            pods: Vec::new(),
            demand_of: Vec::new(),
            rule_of: Vec::new(),
            demands: Vec::new(),
            index_of: Vec::new(),
            shape_of: Vec::with_capacity(snapshot.waiting.len()),
        };
        let mut known_shapes: BTreeMap<&PodShape, usize> = BTreeMap::new();
        let mut known_demands: BTreeMap<&[DeviceRequest], usize> = BTreeMap::new();
        let mut known_rules = BTreeMap::new();
        let mut least_of = BTreeMap::new();
        let mut index_of = Vec::with_capacity(snapshot.shapes.len());
        for shape in &snapshot.shapes {
            let index = *known_shapes.entry(shape).or_insert_with(|| {
                let demand = *known_demands.entry(&shape.requests).or_insert_with(|| {
                    shapes.demands.push(demand(snapshot, &card_of, &shape.requests, &mut least_of));
                    shapes.demands.len() - 1
                });
                let PodShape { node_terms, tolerations, pinned, .. } = shape;
                let rule = (node_terms, tolerations, pinned);
                shapes.rule_of.push(*known_rules.entry(rule).or_insert(shapes.pods.len()));
                shapes.pods.push(shape);
                shapes.demand_of.push(demand);
                shapes.pods.len() - 1
            });
            index_of.push(index);
        }
        for workload in &snapshot.waiting {
            let index = index_of[workload.shape];
            shapes.shape_of.push(index);
            let demand = &mut shapes.demands[shapes.demand_of[index]];
            demand.pods = demand.pods.max(workload.pods);
        }
        shapes.index_of = index_of;
        shapes.card_of = card_of;
        shapes
    }
}

fn demand(
    snapshot: &Snapshot,
    card_of: &[usize],
    requests: &[DeviceRequest],
    least_of: &mut BTreeMap<usize, Option<Units>>,
) -> Demand {
    let mut items = Vec::new();
    let mut least = Some(0_u64);
    let mut unknown = None;
    for (index, request) in requests.iter().enumerate().filter(|(_, request)| request.count > 0) {
        let units = *least_of
            .entry(request.eligible)
            .or_insert_with(|| least_units(snapshot, card_of, request.eligible));
        if units.is_none() && unknown.is_none() {
            unknown = Some(request.label.clone());
        }
        least = least
            .zip(units)
            .map(|(sum, units)| sum.saturating_add(units.saturating_mul(request.count.into())));
        let DeviceRequest { count, eligible, smallest, .. } = *request;
        items.push((units, Item { request: index, count, eligible, smallest }));
    }
    items.sort_by_key(|(units, item)| (std::cmp::Reverse(*units), item.request));
    Demand { items: items.into_iter().map(|(_, item)| item).collect(), least, pods: 0, unknown }
}

/// The least that any device of a set is charged, over all GPUs.
fn least_units(snapshot: &Snapshot, card_of: &[usize], eligible: usize) -> Option<Units> {
    let set = snapshot.device_sets.get(eligible)?;
    let of_gpu = |(gpu, mask): (&Gpu, u64)| {
        looked_at(gpu).zip(0..).filter(|(_, bit)| mask & 1 << bit != 0).map(|(d, _)| d.units).min()
    };
    let mut least = None;
    let mut before = None;
    for ((gpu, card), mask) in snapshot.gpus.iter().zip(card_of).zip(&set.0) {
        // Equal neighbours bring nothing new.
        if before.replace((card, mask)) != Some((card, mask)) {
            let here = of_gpu((gpu, *mask));
            least = least.into_iter().chain(here).min();
        }
    }
    least
}
