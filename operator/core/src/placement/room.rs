//! What nodes have left of CPU, memory, pods and the rest, as columns of
//! numbers: no names are compared while places are looked for. Which pods may
//! go to a node at all is not known here.

use super::filter::Objection;
use crate::model::{Node, PodShape, Resources};

/// More of anything counts as this much, so that sums of a cycle stay exact.
const MOST: i64 = 1 << 56;

const PODS: usize = 2;

/// The first columns, CPU and memory, are weighed against each other and against GPUs.
const WEIGHED: usize = 2;

/// What is left of a node is counted in parts of what it has.
pub(super) const PARTS: i64 = 1024;

/// A node on which CPU or memory are ahead of its GPUs in running out by no more is in balance.
const TOLERATED: i64 = PARTS / 16;

/// What there is on each node, and what each shape takes of it.
#[derive(Clone, Debug)]
pub(super) struct Room<'a> {
    /// Of each column: `cpu`, `memory`, `pods`, then what else pods ask for.
    names: Vec<&'a str>,
    /// For each node, a row of what it has left; less than nothing where more is asked for than there is.
    left: Vec<i64>,
    /// For each node, its CPU and its memory.
    all: Vec<[i64; WEIGHED]>,
    /// For each shape, what a pod takes: column and amount, never 0.
    takes: Vec<Vec<(usize, i64)>>,
}

impl<'a> Room<'a> {
    /// Of `nodes` as they are, or as if no pod ran.
    pub fn new(nodes: &[Node], shapes: &[&'a PodShape], emptied: bool) -> Self {
        let mut names = vec!["cpu", "memory", "pods"];
        let mut others: Vec<&str> =
            shapes.iter().flat_map(|shape| shape.resources.other.keys().map(String::as_str)).collect();
        others.sort_unstable();
        others.dedup();
        names.extend(others);
        let row = |resources: &Resources| -> Vec<i64> {
            names.iter().map(|name| amount(resources, name)).collect()
        };
        let takes = |shape: &&PodShape| {
            let mut need = row(&shape.resources);
            // A pod takes its place among the node's pods, whatever it says.
            need[PODS] = need[PODS].max(1);
            need.into_iter().enumerate().filter(|(_, need)| *need > 0).collect()
        };
        let left = |node: &Node| -> Vec<i64> {
            let held = if emptied { vec![0; names.len()] } else { row(&node.requested) };
            row(&node.allocatable).into_iter().zip(held).map(|(all, held)| all - held).collect()
        };
        let all = nodes.iter().map(|node| {
            [node.allocatable.cpu_milli, node.allocatable.memory_bytes]
                .map(|all| i64::try_from(all).map_or(MOST, |all| all.min(MOST)))
        });
        let (all, left) = (all.collect(), nodes.iter().flat_map(left).collect());
        Self { takes: shapes.iter().map(takes).collect(), left, all, names }
    }

    /// How many pods of a shape fit on a node, and what they run out of first.
    pub fn pods(&self, node: u32, shape: usize) -> (u64, Objection<'a>) {
        self.pods_in(self.left(node), shape)
    }

    /// The same where so much is left.
    pub fn pods_in(&self, row: &[i64], shape: usize) -> (u64, Objection<'a>) {
        // Kubernetes lets a pod that asks for none of a resource onto a node that is out of it.
        let times = self.takes[shape].iter().map(|&(column, need)| (row[column].max(0) / need, column));
        let (times, first) = times.min().unwrap_or((i64::MAX, PODS));
        (times.unsigned_abs(), Objection::Short(self.names[first]))
    }

    /// How far CPU or memory of a node are ahead of its GPUs in running out, of which `gpus` parts are left: what of its
    /// GPUs nobody could use if pods took the same of everything. 0 is in balance, or more of the rest is left.
    pub fn shortage(&self, node: u32, gpus: i64) -> i64 {
        self.shortage_with(node, &[], gpus)
    }

    /// By how much one pod of a shape makes that worse, if it leaves the node out of balance: `before` and `after`
    /// parts of its GPUs are left. 0 is not at all.
    ///
    /// This descends the gradient of what is stranded, as FGD (USENIX ATC 2023) does for GPUs that the jobs of a mix
    /// cannot use, with the pod that takes the same part of everything as the mix.
    pub fn strands(&self, node: u32, shape: usize, before: i64, after: i64) -> i64 {
        let then = self.shortage_with(node, &self.takes[shape], after);
        if then <= TOLERATED { 0 } else { (then - self.shortage(node, before)).max(0) }
    }

    /// Whether a node is out of balance for want of CPU or memory, when `gpus` parts of its GPUs are left.
    pub fn is_short(&self, node: u32, gpus: i64) -> bool {
        self.shortage(node, gpus) > TOLERATED
    }

    fn shortage_with(&self, node: u32, takes: &[(usize, i64)], gpus: i64) -> i64 {
        let row = self.left(node);
        let all = &self.all[node as usize];
        (0..WEIGHED).fold(0, |worst, column| {
            if all[column] == 0 {
                return worst;
            }
            let take = takes.iter().find(|(taken, _)| *taken == column).map_or(0, |(_, take)| *take);
            let left = (row[column] - take).max(0);
            worst.max(gpus - part(left, all[column]))
        })
    }

    /// Takes what `pods` pods of a shape need from a node, even if it does not have it.
    pub fn take(&mut self, node: u32, shape: usize, pods: u32) {
        self.change(node, shape, -i64::from(pods));
    }

    /// Gives it back.
    pub fn give(&mut self, node: u32, shape: usize, pods: u32) {
        self.change(node, shape, i64::from(pods));
    }

    /// What a node of the snapshot has left, without what was placed or kept since.
    pub fn at_first(&self, node: &Node) -> Vec<i64> {
        let left = |name: &&str| amount(&node.allocatable, name) - amount(&node.requested, name);
        self.names.iter().map(left).collect()
    }

    /// Adds what a pod of a shape takes to what is left.
    pub fn add(&self, left: &mut [i64], shape: usize) {
        for &(column, need) in &self.takes[shape] {
            left[column] = left[column].saturating_add(need);
        }
    }

    fn change(&mut self, node: u32, shape: usize, times: i64) {
        let width = self.names.len();
        let row = &mut self.left[node as usize * width..][..width];
        for &(column, need) in &self.takes[shape] {
            row[column] = row[column].saturating_add(need.saturating_mul(times));
        }
    }

    /// What a node has left of each column.
    pub fn left(&self, node: u32) -> &[i64] {
        &self.left[node as usize * self.names.len()..][..self.names.len()]
    }
}

fn amount(resources: &Resources, name: &str) -> i64 {
    let amount = match name {
        "cpu" => resources.cpu_milli,
        "memory" => resources.memory_bytes,
        "pods" => resources.pods,
        name => resources.other.get(name).copied().unwrap_or(0),
    };
    i64::try_from(amount).map_or(MOST, |amount| amount.min(MOST))
}

/// How many parts of `all` are left.
pub(super) fn part(left: i64, all: i64) -> i64 {
    match left.checked_mul(PARTS) {
        Some(parts) => parts / all.max(1),
        None => left / (all / PARTS).max(1),
    }
}
