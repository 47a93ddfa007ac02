//! Snapshots of clusters that could be: with more GPUs, with other
//! guarantees, with a job gone.

use vingt_core::Snapshot;
use vingt_core::model::{DeviceIndex, Gpu, Node, NodeIndex, Resources, UNITS_PER_GPU, Units};

/// The label that says a node's name.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Adds `count` GPUs on nodes of their own, each like the node that has the most, and empty. The error
/// says that there is none to copy.
pub fn add_gpus(snapshot: &mut Snapshot, count: u32) -> Result<(), String> {
    let usable = |index: usize| {
        snapshot.nodes.get(index).is_some_and(|node| node.schedulable).then(|| {
            let of_it = (0..snapshot.gpus.len()).filter(|at| snapshot.gpus[*at].node.0 as usize == index);
            of_it.filter(|at| !snapshot.gpus[*at].blocked && !snapshot.gpus[*at].devices.is_empty()).collect()
        })
    };
    let all: Vec<Vec<usize>> =
        (0..snapshot.nodes.len()).map(|index| usable(index).unwrap_or_default()).collect();
    let most = all.iter().map(Vec::len).max().unwrap_or(0);
    let Some(model) = all.iter().position(|gpus| gpus.len() == most).filter(|_| most > 0) else {
        return Err("there is no node with GPUs whose like could be added".to_owned());
    };
    let mut left = count as usize;
    let mut number = 0;
    while left > 0 {
        number += 1;
        let name = format!("added-{number}");
        if snapshot.nodes.iter().any(|node| node.name == name) {
            continue;
        }
        let more = left.min(most);
        left -= more;
        let like = snapshot.nodes[model].clone();
        let mut labels = like.labels;
        labels.entry(HOSTNAME.to_owned()).and_modify(|hostname| hostname.clone_from(&name));
        let node = NodeIndex(u32::try_from(snapshot.nodes.len()).unwrap_or(u32::MAX));
        snapshot.nodes.push(Node { name, labels, requested: Resources::default(), ..like });
        for &at in &all[model][..more] {
            let like = snapshot.gpus[at].clone();
            let devices = like
                .devices
                .iter()
                .map(|device| vingt_core::model::Device { tainted: false, ..device.clone() });
            let (used, devices) = (vec![0; like.capacity.len()], devices.collect());
            snapshot.gpus.push(Gpu { node, used, held: 0, devices, ..like });
            for set in &mut snapshot.device_sets {
                let mask = set.0.get(at).copied().unwrap_or(0);
                set.0.push(mask);
            }
        }
    }
    Ok(())
}

/// Takes out what runs at this index, with all that it holds.
pub fn remove_running(snapshot: &mut Snapshot, index: usize) {
    if index >= snapshot.running.len() {
        return;
    }
    let gone = snapshot.running.remove(index);
    for pod in &gone.pods {
        for device in pod.devices.iter().flatten() {
            free(snapshot, *device);
        }
        let shape = snapshot.shapes.get(gone.shape).map(|shape| shape.resources.clone()).unwrap_or_default();
        if let Some(node) = snapshot.nodes.get_mut(pod.node.0 as usize) {
            let requested = &mut node.requested;
            requested.cpu_milli = requested.cpu_milli.saturating_sub(shape.cpu_milli);
            requested.memory_bytes = requested.memory_bytes.saturating_sub(shape.memory_bytes);
            requested.pods = requested.pods.saturating_sub(1);
            for (name, less) in &shape.other {
                if let Some(amount) = requested.other.get_mut(name) {
                    *amount = amount.saturating_sub(*less);
                }
            }
        }
    }
    if let Some(tenant) = snapshot.tenants.get_mut(&gone.tenant) {
        tenant.used = tenant.used.saturating_sub(gone.units);
    }
}

fn free(snapshot: &mut Snapshot, at: DeviceIndex) {
    let Some(gpu) = snapshot.gpus.get_mut(at.gpu.0 as usize) else { return };
    let Some(device) = gpu.devices.get(usize::from(at.device)) else { return };
    for (used, less) in gpu.used.iter_mut().zip(&device.consumes) {
        *used = used.saturating_sub(*less);
    }
    gpu.held &= !1_u64.checked_shl(at.device.into()).unwrap_or(0);
}

/// `tenant=gpus` as a tenant and units.
pub fn share(text: &str) -> Result<(String, Units), String> {
    let (tenant, gpus) = text.split_once('=').ok_or("write it as TENANT=GPUS, for example research=8")?;
    let gpus: f64 = gpus.parse().map_err(|_| format!("{gpus:?} is not a number of GPUs"))?;
    if tenant.is_empty() || !(0.0..=1e6).contains(&gpus) {
        return Err("write it as TENANT=GPUS, with a number of GPUs from 0 on".to_owned());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    // in range
    let units = (gpus * UNITS_PER_GPU as f64).round() as Units;
    Ok((tenant.to_owned(), units))
}

#[cfg(test)]
mod tests {
    use vingt_core::model::{PodPlacement, Running};
    use vingt_core::simulate::fleet::{Sort, fleet, shape};

    use super::*;

    #[test]
    fn added_gpus_are_like_those_there_are_and_can_be_used() {
        let mut snapshot = fleet(1, 8, Sort::H100Either);
        shape(&mut snapshot, 8, "gpu", &Resources::default()).unwrap();
        snapshot.gpus[0].used[0] = 7;
        snapshot.nodes[0].requested.cpu_milli = 5;
        add_gpus(&mut snapshot, 12).unwrap();
        let names: Vec<&str> = snapshot.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["node-0000", "added-1", "added-2"]);
        assert_eq!(snapshot.nodes[1].labels[HOSTNAME], "added-1");
        assert_eq!(snapshot.nodes[1].requested, Resources::default());
        let of = |node: u32| snapshot.gpus.iter().filter(|gpu| gpu.node.0 == node).count();
        assert_eq!((of(0), of(1), of(2)), (8, 8, 4));
        assert!(snapshot.gpus[8..].iter().all(|gpu| gpu.used.iter().all(|used| *used == 0)));
        assert_eq!(snapshot.device_sets[0].0.len(), 20);
        assert!(snapshot.device_sets[0].0.iter().all(|mask| *mask == snapshot.device_sets[0].0[0]));
        assert!(add_gpus(&mut Snapshot::default(), 8).unwrap_err().contains("no node"));
    }

    #[test]
    fn what_is_taken_out_holds_nothing_any_more() {
        let mut snapshot = fleet(1, 1, Sort::H100);
        let shape = shape(&mut snapshot, 1, "gpu", &Resources::default()).unwrap();
        let device = DeviceIndex { gpu: vingt_core::model::GpuIndex(0), device: 0 };
        let empty = snapshot.clone();
        snapshot.gpus[0].held = 1;
        snapshot.gpus[0].used = snapshot.gpus[0].capacity.clone();
        snapshot.nodes[0].requested.pods = 1;
        snapshot.tenants.get_mut("default").unwrap().used = 56;
        let pods = vec![PodPlacement { node: NodeIndex(0), devices: vec![vec![device]] }];
        snapshot.running.push(Running {
            tenant: "default".into(),
            shape,
            pods,
            units: 56,
            ..Running::default()
        });
        remove_running(&mut snapshot, 0);
        assert_eq!(snapshot, empty);
        remove_running(&mut snapshot, 0);
        assert_eq!(snapshot, empty, "there is nothing more");
    }

    #[test]
    fn shares_are_a_tenant_and_a_number() {
        assert_eq!(share("research=8"), Ok(("research".to_owned(), 448)));
        assert_eq!(share("a=0.5"), Ok(("a".to_owned(), 28)));
        assert_eq!(share("a=x").unwrap_err(), "\"x\" is not a number of GPUs");
        assert!(
            share("a").is_err() && share("=1").is_err() && share("a=-1").is_err() && share("a=nan").is_err()
        );
    }
}
