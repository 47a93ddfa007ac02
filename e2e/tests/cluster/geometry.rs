//! What the nodes' slices say of their GPUs, for the auditor: read here anew,
//! not by the operator's code.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::resource::v1::{Counter, Device, ResourceSlice};
use vingt_core::model::{self, Gpu, NodeIndex, Snapshot};
use vingt_crds::names;

/// GPUs by node and counter set. It only grows: what a node no longer
/// publishes may still be held.
#[derive(Debug, Default)]
pub struct Geometry {
    gpus: BTreeMap<(String, String), Counters>,
}

type Amounts = BTreeMap<String, u64>;

#[derive(Debug, Default)]
struct Counters {
    /// The most there ever was.
    capacity: Amounts,
    devices: BTreeMap<String, Amounts>,
}

impl Geometry {
    /// Takes in what the slices say.
    pub fn learn(&mut self, slices: &[ResourceSlice]) -> Result<()> {
        let ours = slices.iter().map(|slice| &slice.spec).filter(|spec| spec.driver == names::DRIVER);
        for spec in ours {
            let Some(node) = spec.node_name.clone() else {
                bail!("a slice of {} names no node", names::DRIVER)
            };
            for set in spec.shared_counters.iter().flatten() {
                let gpu = self.gpus.entry((node.clone(), set.name.clone())).or_default();
                for (name, value) in amounts(&set.counters)? {
                    let known = gpu.capacity.entry(name).or_default();
                    // Fewer engines are published while somebody else has a part of it.
                    *known = value.max(*known);
                }
            }
            for device in spec.devices.iter().flatten() {
                self.learn_device(&node, device)?;
            }
        }
        Ok(())
    }

    fn learn_device(&mut self, node: &str, device: &Device) -> Result<()> {
        let fenced = device.taints.iter().flatten().any(|taint| taint.key == names::FENCE_TAINT);
        if !fenced {
            bail!("device {} of node {node} has no fence", device.name);
        }
        let consumed = device.consumes_counters.as_deref().unwrap_or_default();
        let [consumed] = consumed else {
            bail!("device {} of node {node} takes counters of {} sets", device.name, consumed.len());
        };
        let gpu = self.gpus.entry((node.to_owned(), consumed.counter_set.clone())).or_default();
        gpu.devices.insert(device.name.clone(), amounts(&consumed.counters)?);
        Ok(())
    }

    /// The same, as the core's auditor wants it.
    pub fn snapshot(&self) -> Snapshot {
        let names: BTreeSet<&String> = self.gpus.keys().map(|(node, _)| node).collect();
        let index: BTreeMap<&String, u32> = names.iter().copied().zip(0..).collect();
        let nodes = names.iter().map(|name| model::Node { name: (*name).clone(), ..Default::default() });
        let gpus = self.gpus.iter().map(|((node, name), counters)| {
            let devices = counters.devices.iter().map(|(name, consumes)| model::Device {
                name: name.clone(),
                consumes: counters
                    .capacity
                    .keys()
                    .map(|key| consumes.get(key).copied().unwrap_or(0))
                    .collect(),
                ..Default::default()
            });
            Gpu {
                node: NodeIndex(index[node]),
                name: name.clone(),
                capacity: counters.capacity.values().copied().collect(),
                devices: devices.collect(),
                ..Default::default()
            }
        });
        Snapshot { nodes: nodes.collect(), gpus: gpus.collect(), ..Default::default() }
    }

    /// What a device costs: its dominant share of compute and memory slices, of
    /// 56, rounded up. Nothing if no such device was ever published.
    pub fn units(&self, node: &str, device: &str) -> Option<u64> {
        let mut all = self.gpus.iter().filter(|((of, _), _)| of == node).map(|(_, gpu)| gpu);
        let gpu = all.find(|gpu| gpu.devices.contains_key(device))?;
        let consumes = &gpu.devices[device];
        let share = |counted: &dyn Fn(&str) -> bool| {
            let sum = |amounts: &Amounts| -> u64 {
                amounts.iter().filter(|(name, _)| counted(name)).map(|(_, value)| *value).sum()
            };
            (model::UNITS_PER_GPU * sum(consumes)).div_ceil(sum(&gpu.capacity).max(1))
        };
        let compute = share(&|name| name == names::device::COMPUTE_SLICES);
        Some(compute.max(share(&|name| name.starts_with(names::device::MEMORY_SLICE_PREFIX))))
    }
}

fn amounts(counters: &BTreeMap<String, Counter>) -> Result<Amounts> {
    let read = |(name, counter): (&String, &Counter)| Ok((name.clone(), quantity(&counter.value.0)?));
    counters.iter().map(read).collect()
}

/// A quantity that is a whole number.
fn quantity(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => bail!("a counter in {other}: {text}"),
    };
    let number: u64 = digits.parse().with_context(|| format!("a counter that is no whole number: {text}"))?;
    Ok(number * factor)
}
