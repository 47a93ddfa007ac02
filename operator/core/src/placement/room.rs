//! What nodes have left of CPU, memory, pods and the rest, as columns of
//! numbers: no names are compared while places are looked for. Which pods may
//! go to a node at all is not known here.

use super::filter::Objection;
use crate::model::{Node, PodShape, Resources};

/// More of anything counts as this much, so that sums of a cycle stay exact.
const MOST: i64 = 1 << 56;

const PODS: usize = 2;

/// What there is on each node, and what each shape takes of it.
#[derive(Clone, Debug)]
pub(super) struct Room<'a> {
    /// Of each column: `cpu`, `memory`, `pods`, then what else pods ask for.
    names: Vec<&'a str>,
    /// For each node, a row of what it has left; less than nothing where more is asked for than there is.
    left: Vec<i64>,
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
        let left = nodes.iter().flat_map(left).collect();
        Self { takes: shapes.iter().map(takes).collect(), left, names }
    }

    /// How many pods of a shape fit on a node, and what they run out of first.
    pub fn pods(&self, node: u32, shape: usize) -> (u64, Objection<'a>) {
        let row = self.row(node);
        // Kubernetes lets a pod that asks for none of a resource onto a node that is out of it.
        let times = self.takes[shape].iter().map(|&(column, need)| (row[column].max(0) / need, column));
        let (times, first) = times.min().unwrap_or((i64::MAX, PODS));
        (times.unsigned_abs(), Objection::Short(self.names[first]))
    }

    /// Takes what `pods` pods of a shape need from a node, even if it does not have it.
    pub fn take(&mut self, node: u32, shape: usize, pods: u32) {
        self.change(node, shape, -i64::from(pods));
    }

    /// Gives it back.
    pub fn give(&mut self, node: u32, shape: usize, pods: u32) {
        self.change(node, shape, i64::from(pods));
    }

    fn change(&mut self, node: u32, shape: usize, times: i64) {
        let width = self.names.len();
        let row = &mut self.left[node as usize * width..][..width];
        for &(column, need) in &self.takes[shape] {
            row[column] = row[column].saturating_add(need.saturating_mul(times));
        }
    }

    fn row(&self, node: u32) -> &[i64] {
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
