//! A policy as tables: for each demand the classes in the order in which they
//! are tried, for each state and demand the device.

use crate::states::set::Bits;
use crate::states::{Class, Cluster, Demand, GpuSet, Space, State};

use super::Policy;

/// A place on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// The GPU.
    pub gpu: usize,
    /// The device, by its number on the card.
    pub device: usize,
    /// The state of the GPU after it is cut.
    pub after: State,
}

/// Decisions of a policy, looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    demands: usize,
    /// For each demand, classes it fits into, the cheapest first, with a number that equals share.
    order: Vec<Vec<(Class, u16)>>,
    /// For each state and demand the cheapest device and the state it leads to.
    device: Vec<(u8, State)>,
    /// For each class and demand the cost of the cheapest device.
    cost: Vec<f64>,
    /// For each class and demand, where its [`Space::targets`] begin among the prices.
    first_price: Vec<u32>,
    /// What it costs to get to each of them.
    prices: Vec<f64>,
}

const NO_DEVICE: u8 = u8::MAX;

impl Ranking {
    /// The decisions that `policy` takes on the states of `space`.
    pub fn new(space: &Space, policy: &dyn Policy) -> Self {
        let demands = space.demands();
        let mut cost = vec![f64::INFINITY; space.classes() * demands];
        let mut first_price = Vec::with_capacity(cost.len());
        let mut prices = Vec::new();
        for class in space.every_class() {
            for demand in 0..demands {
                let first = prices.len();
                first_price.push(u32::try_from(first).unwrap_or(u32::MAX));
                let targets = space.targets(class, demand).iter();
                prices.extend(targets.map(|&to| policy.cost(space, demand, class, to)));
                cost[usize::from(class.0) * demands + demand] =
                    prices[first..].iter().copied().fold(f64::INFINITY, f64::min);
            }
        }
        let order = (0..demands).map(|demand| order(space, demand, &cost)).collect();
        let mut device = vec![(NO_DEVICE, State(0)); space.states() * demands];
        let mut best = vec![f64::INFINITY; demands];
        for (index, row) in device.chunks_mut(demands.max(1)).enumerate() {
            let state = State(u32::try_from(index).unwrap_or(u32::MAX));
            let from = space.class(state);
            best.fill(f64::INFINITY);
            for (way, sort) in space.cards()[space.card(state)].devices.iter().enumerate() {
                let Some(after) = space.put(state, way) else { continue };
                for demand in Bits(sort.serves) {
                    let price = policy.cost(space, demand, from, space.class(after));
                    if price < best[demand] {
                        best[demand] = price;
                        row[demand] = (u8::try_from(way).unwrap_or(NO_DEVICE), after);
                    }
                }
            }
        }
        Self { demands, order, device, cost, first_price, prices }
    }

    /// The place that `demand` gets in `cluster`, if it fits anywhere.
    #[inline]
    pub fn choose(&self, cluster: &Cluster, demand: Demand) -> Option<Spot> {
        let order = &self.order[demand];
        let first = order.iter().position(|&(class, _)| cluster.present(class))?;
        let group = order[first].1;
        let mut gpu = cluster.members(order[first].0).first()?;
        for &(class, its_group) in &order[first + 1..] {
            if its_group != group {
                break;
            }
            if cluster.present(class) {
                gpu = cluster.members(class).first().map_or(gpu, |other| gpu.min(other));
            }
        }
        self.spot(cluster, demand, gpu)
    }

    /// The same among the GPUs of `eligible`, which has the bound of the cluster's sets.
    pub fn choose_among(&self, cluster: &Cluster, demand: Demand, eligible: &GpuSet) -> Option<Spot> {
        let mut found: Option<(u16, usize)> = None;
        for &(class, group) in &self.order[demand] {
            if found.is_some_and(|(best, _)| best != group) {
                break;
            }
            if cluster.present(class)
                && let Some(gpu) = cluster.members(class).first_common(eligible)
            {
                found = Some((group, found.map_or(gpu, |(_, other)| gpu.min(other))));
            }
        }
        self.spot(cluster, demand, found?.1)
    }

    /// The same, but not on `gpu`.
    pub fn choose_except(&self, cluster: &Cluster, demand: Demand, gpu: usize) -> Option<Spot> {
        let mut present = self.order[demand].iter().filter(|(class, _)| cluster.present(*class));
        let other =
            present.find_map(|&(class, _)| cluster.members(class).iter().find(|&other| other != gpu))?;
        self.spot(cluster, demand, other)
    }

    /// The place that `demand` gets on `gpu`, if it fits there.
    #[inline]
    pub fn spot(&self, cluster: &Cluster, demand: Demand, gpu: usize) -> Option<Spot> {
        let (device, after) = self.device_in(cluster.state(gpu), demand)?;
        Some(Spot { gpu, device, after })
    }

    /// The device that `demand` gets on a GPU in `state`, and the state that this leads to.
    #[inline]
    pub fn device_in(&self, state: State, demand: Demand) -> Option<(usize, State)> {
        let (device, after) = self.device[state.0 as usize * self.demands + demand];
        (device != NO_DEVICE).then_some((usize::from(device), after))
    }

    /// What it costs to place `demand` on a GPU in `class`; infinite where it does not fit.
    #[inline]
    pub fn cost(&self, class: Class, demand: Demand) -> f64 {
        self.cost[usize::from(class.0) * self.demands + demand]
    }

    /// What it costs to bring a GPU of `space`, from which this was made, from class `from` to class `to` by placing
    /// `demand`; infinite where that cannot be.
    pub fn price(&self, space: &Space, demand: Demand, from: Class, to: Class) -> f64 {
        let first = self.first_price[usize::from(from.0) * self.demands + demand] as usize;
        let target = space.targets(from, demand).binary_search(&to);
        target.map_or(f64::INFINITY, |target| self.prices[first + target])
    }

    /// The classes into which `demand` fits, the cheapest first; equals share a number.
    pub fn order(&self, demand: Demand) -> &[(Class, u16)] {
        &self.order[demand]
    }
}

fn order(space: &Space, demand: Demand, cost: &[f64]) -> Vec<(Class, u16)> {
    let of = |class: Class| cost[usize::from(class.0) * space.demands() + demand];
    let mut classes: Vec<Class> =
        space.every_class().filter(|&class| space.fits(class) >> demand & 1 == 1).collect();
    classes.sort_by(|&a, &b| of(a).total_cmp(&of(b)));
    let mut group = 0;
    let mut last = f64::NAN;
    classes
        .into_iter()
        .map(|class| {
            let price = of(class);
            // Sums of weights in another order are equal but for rounding.
            if price - last > 1e-9 {
                group += 1;
            }
            last = price;
            (class, group)
        })
        .collect()
}
