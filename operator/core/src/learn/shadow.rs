//! Policies that play along on paper: each has a cluster of its own, gets the
//! same jobs, and shows what it would have placed. The table in use is one of
//! them, so that all are compared on equal terms.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use crate::simulate::{Job, Placer, Player, Random, Table};

/// Arrivals that are compared at a time.
const BLOCK: usize = 100;

/// Blocks that are looked at.
const BLOCKS: usize = 20;

/// Standard errors by which one must lead another to be believed.
const BELIEVED: f64 = 3.0;

/// Some policies on the same jobs.
#[derive(Clone, Debug)]
pub struct Shadows {
    players: Vec<Player>,
    worth: Vec<f64>,
    /// For each block, the worth that each player placed.
    blocks: VecDeque<Vec<f64>>,
    in_block: usize,
    /// When jobs leave that the real cluster did not take: nobody knows how long they would have lived.
    ends: BinaryHeap<Reverse<(u64, u32)>>,
    paper: BTreeSet<u32>,
    random: Random,
}

impl Shadows {
    /// Each of `tables` on empty GPUs of `cards`, with at most `moves` for each placed job.
    pub fn new(tables: &[Arc<Table>], cards: &[usize], worth: &[f64], moves: f64, seed: u64) -> Self {
        Self {
            players: tables.iter().map(|table| Player::new(table, cards, worth, moves)).collect(),
            worth: worth.to_vec(),
            blocks: VecDeque::from([vec![0.0; tables.len()]]),
            in_block: 0,
            ends: BinaryHeap::new(),
            paper: BTreeSet::new(),
            random: Random::new(seed),
        }
    }

    /// Player `index` decides by `table` from now on; what it did before is not held against it.
    pub fn switch(&mut self, index: usize, table: &Arc<Table>) {
        self.players[index].switch(table);
    }

    /// Forgets who placed what.
    pub fn forget(&mut self) {
        self.blocks = VecDeque::from([vec![0.0; self.players.len()]]);
        self.in_block = 0;
    }

    /// Job `id` arrives; `placed` says whether the real cluster took it, `life` how long its like live on average.
    pub fn arrived(&mut self, now: f64, id: u32, job: Job, placed: bool, life: f64) {
        self.end_until(now);
        let mut taken = false;
        for (index, player) in self.players.iter_mut().enumerate() {
            if player.arrive(now, id, job) {
                taken = true;
                if let Some(block) = self.blocks.back_mut() {
                    block[index] += self.worth[job.demand];
                }
            }
        }
        if taken && !placed {
            let end = now + life * self.random.exponential();
            // Times are not negative, so their bits are in the same order.
            self.ends.push(Reverse((end.to_bits(), id)));
            self.paper.insert(id);
        }
        self.in_block += 1;
        if self.in_block == BLOCK {
            self.in_block = 0;
            self.blocks.push_back(vec![0.0; self.players.len()]);
            if self.blocks.len() > BLOCKS + 1 {
                self.blocks.pop_front();
            }
        }
    }

    /// Job `id` leaves the real cluster.
    pub fn left(&mut self, now: f64, id: u32, job: Job) {
        if !self.paper.contains(&id) {
            self.players.iter_mut().for_each(|player| player.depart(now, id, job));
        }
    }

    fn end_until(&mut self, now: f64) {
        while let Some(&Reverse((end, id))) = self.ends.peek() {
            if f64::from_bits(end) > now {
                return;
            }
            self.ends.pop();
            self.paper.remove(&id);
            // Who it was does not matter to a player that only has its number.
            let job = Job { demand: 0, movable: false };
            self.players.iter_mut().for_each(|player| player.depart(now, id, job));
        }
    }

    /// Whether player `a` has placed more than `b`, in standard errors; 0 before there is enough to compare.
    #[allow(clippy::cast_precision_loss)] // numbers of blocks
    pub fn lead(&self, a: usize, b: usize) -> f64 {
        let complete = self.blocks.len() - 1;
        if complete < BLOCKS / 4 {
            return 0.0;
        }
        let differences = || self.blocks.iter().take(complete).map(|block| block[a] - block[b]);
        let mean = differences().sum::<f64>() / complete as f64;
        let variance = differences().map(|x| (x - mean).powi(2)).sum::<f64>() / (complete - 1) as f64;
        let error = (variance / complete as f64).sqrt();
        if error > 0.0 { mean / error } else { mean.signum() * if mean == 0.0 { 0.0 } else { f64::MAX } }
    }

    /// The player that leads `current` beyond doubt, and by most.
    pub fn better_than(&self, current: usize) -> Option<usize> {
        (0..self.players.len())
            .map(|index| (index, self.lead(index, current)))
            .filter(|&(_, lead)| lead > BELIEVED)
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(index, _)| index)
    }
}
