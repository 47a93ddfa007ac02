//! One move for a job that fits nowhere: a running job is lifted and put down
//! elsewhere, so that what it blocked alone is free.

use crate::states::set::Bits;
use crate::states::{Class, Cluster, Demand, Space};

use super::{Ranking, Spot, Values};

/// A move, and the place that it makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Move {
    /// The GPU on which a job is lifted.
    pub from: usize,
    /// The device it holds there.
    pub device: usize,
    /// Where it is put down; if on the same GPU, then after `place` was taken.
    pub to: Spot,
    /// Where the job that waited is put.
    pub place: Spot,
    /// By how much the cluster's value drops.
    pub cost: f64,
}

/// GPUs of one class that are looked at: those of a class differ only in which jobs may be moved.
const GPUS_OF_A_CLASS: usize = 64;

/// The cheapest move that makes room for `demand`, which fits nowhere, by `values`, from which `ranking` was made.
/// Bit `i` of `movable[gpu]` says that the job that holds device `i` of the GPU may be moved.
pub fn cheapest(
    cluster: &Cluster,
    ranking: &Ranking,
    values: &Values,
    demand: Demand,
    movable: &[u64],
) -> Option<Move> {
    let space = cluster.space().clone();
    let value = |class: Class| values.of_class(class);
    // For each demand that might be lifted: the two best other places, asked for once.
    let mut places: Vec<Option<[Option<Spot>; 2]>> = vec![None; space.demands()];
    let mut best: Option<Move> = None;
    for (word, &bits) in cluster.present_classes().iter().enumerate() {
        for bit in Bits(bits) {
            let class = Class(u16::try_from(word << 6 | bit).unwrap_or(u16::MAX));
            for gpu in cluster.members(class).iter().take(GPUS_OF_A_CLASS) {
                let state = cluster.state(gpu);
                for device in Bits(movable[gpu] & space.blockers(state, demand)) {
                    let Some((to, after)) = ranking.device_in(space.take(state, device), demand) else {
                        continue;
                    };
                    let loss = value(class) - value(space.class(after));
                    let Some(lifted) = demand_of(&space, space.card(state), device) else { continue };
                    let place = Spot { gpu, device: to, after };
                    let mut offer = |to: Spot, loss_there: f64| {
                        let cost = loss + loss_there;
                        if best.is_none_or(|best| cost < best.cost) {
                            best = Some(Move { from: gpu, device, to, place, cost });
                        }
                    };
                    if let Some((back, last)) = ranking.device_in(after, lifted) {
                        let to = Spot { gpu, device: back, after: last };
                        offer(to, value(space.class(after)) - value(space.class(last)));
                    }
                    let places = places[lifted].get_or_insert_with(|| {
                        let first = ranking.choose(cluster, lifted);
                        [first, first.and_then(|first| ranking.choose_except(cluster, lifted, first.gpu))]
                    });
                    if let Some(to) = places.iter().flatten().find(|to| to.gpu != gpu) {
                        let drop = value(space.class(cluster.state(to.gpu))) - value(space.class(to.after));
                        offer(*to, drop);
                    }
                }
            }
        }
    }
    best
}

fn demand_of(space: &Space, card: usize, device: usize) -> Option<Demand> {
    Bits(space.cards()[card].devices[device].serves).next()
}
