//! A cluster with jobs on it, on which a policy plays: a place for each job
//! or, where there is none, one move that makes one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::{Policy, Price, Ranking, Spot, Values, moves};
use crate::states::{Cluster, Space};

use super::loss::Placer;
use super::trace::Job;

/// A policy, ready to decide.
#[derive(Clone, Debug)]
pub struct Table {
    /// The states it is about.
    pub space: Arc<Space>,
    /// Its decisions.
    pub ranking: Ranking,
    /// The values it comes from, if it does; only then it can tell what a move costs.
    pub values: Option<Values>,
}

impl Table {
    /// Of a rule.
    pub fn of_rule(space: &Arc<Space>, policy: &dyn Policy) -> Arc<Self> {
        Arc::new(Self { space: space.clone(), ranking: Ranking::new(space, policy), values: None })
    }

    /// Of values.
    pub fn of_values(space: &Arc<Space>, values: Values) -> Arc<Self> {
        let values = values.spanning(crate::policy::price::SPAN);
        Arc::new(Self { space: space.clone(), ranking: Ranking::new(space, &values), values: Some(values) })
    }
}

/// The cluster and its jobs.
#[derive(Clone, Debug)]
pub struct Player {
    table: Arc<Table>,
    cluster: Cluster,
    spots: HashMap<u32, Spot, std::hash::BuildHasherDefault<ById>>,
    owner: Vec<u32>,
    movable: Vec<u64>,
    /// What a job of each demand is worth, in slices.
    worth: Arc<[f64]>,
    price: Price,
    moves: u64,
}

/// Devices of a GPU have numbers below this.
const DEVICES: usize = 64;

impl Player {
    /// Empty GPUs of `cards`, decided on by `table`. At most `moves` jobs are moved for each that is placed.
    pub fn new(table: &Arc<Table>, cards: &[usize], worth: &[f64], moves: f64) -> Self {
        Self {
            table: table.clone(),
            cluster: Cluster::new(table.space.clone(), cards),
            spots: HashMap::default(),
            owner: vec![0; cards.len() * DEVICES],
            movable: vec![0; cards.len()],
            worth: worth.into(),
            price: Price::new(moves),
            moves: 0,
        }
    }

    /// Decides by another table from now on.
    pub fn switch(&mut self, table: &Arc<Table>) {
        if !Arc::ptr_eq(&self.table.space, &table.space) {
            self.cluster = self.cluster.on(table.space.clone());
        }
        self.table = table.clone();
    }

    /// The table it decides by.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether job `id` has a place.
    pub fn holds(&self, id: u32) -> bool {
        self.spots.contains_key(&id)
    }

    fn hold(&mut self, id: u32, spot: Spot, movable: bool) {
        self.cluster.set(spot.gpu, spot.after);
        self.owner[spot.gpu * DEVICES + spot.device] = id;
        self.movable[spot.gpu] |= u64::from(movable) << spot.device;
        self.spots.insert(id, spot);
    }

    fn release(&mut self, gpu: usize, device: usize) {
        self.cluster.take(gpu, device);
        self.movable[gpu] &= !(1 << device);
    }

    fn move_for(&mut self, id: u32, job: Job) -> bool {
        let worth = self.worth[job.demand];
        let table = self.table.clone();
        let Some(values) = table.values.as_ref().filter(|_| self.price.allows(worth)) else { return false };
        let found = moves::cheapest(&self.cluster, &table.ranking, values, job.demand, &self.movable);
        let Some(found) = found.filter(|found| self.price.accepts(worth, found.cost)) else { return false };
        let moved = self.owner[found.from * DEVICES + found.device];
        self.release(found.from, found.device);
        self.hold(id, found.place, job.movable);
        self.hold(moved, found.to, true);
        self.price.moved();
        self.moves += 1;
        true
    }
}

impl Placer for Player {
    fn arrive(&mut self, _: f64, id: u32, job: Job) -> bool {
        let placed = match self.table.ranking.choose(&self.cluster, job.demand) {
            Some(spot) => {
                self.hold(id, spot, job.movable);
                true
            }
            None => self.move_for(id, job),
        };
        if placed {
            self.price.placed();
        }
        placed
    }

    fn depart(&mut self, _: f64, id: u32, _: Job) {
        if let Some(spot) = self.spots.remove(&id) {
            self.release(spot.gpu, spot.device);
        }
    }

    fn moves(&self) -> u64 {
        self.moves
    }
}

/// Numbers of jobs are spread by a multiplication; nobody chooses them with ill intent.
#[derive(Clone, Copy, Debug, Default)]
struct ById(u64);

impl std::hash::Hasher for ById {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
