//! The snapshot kept up to date as jobs start and leave: what a live cluster's
//! watches would show. Refuses what could not be.

use crate::model::{
    DeviceIndex, PodPlacement, PodShape, Resources, Running, Snapshot, UNITS_PER_GPU, Units, Workload,
};

use super::{JobOutcome, Point};

/// Takes the devices and the node's resources for pods of `shape`; says what does not fit.
pub(in crate::simulate) fn hold(
    snapshot: &mut Snapshot,
    pods: &[PodPlacement],
    shape: usize,
) -> Result<Units, String> {
    let mut units: Units = 0;
    for pod in pods {
        for device in pod.devices.iter().flatten() {
            units = units.saturating_add(hold_device(snapshot, *device)?);
        }
        let pod_shape = snapshot.shapes.get(shape).ok_or("no such shape")?;
        let node = snapshot.nodes.get_mut(pod.node.0 as usize).ok_or("no such node")?;
        add(&mut node.requested, pod_shape);
    }
    Ok(units)
}

fn hold_device(snapshot: &mut Snapshot, device: DeviceIndex) -> Result<Units, String> {
    let gpu = snapshot.gpus.get_mut(device.gpu.0 as usize).ok_or("no such GPU")?;
    let found = gpu.devices.get(usize::from(device.device)).ok_or("no such device")?;
    if gpu.held >> device.device & 1 == 1 {
        return Err(format!("{} of {} is held already", found.name, gpu.name));
    }
    let fits = gpu.used.iter().zip(&gpu.capacity).zip(&found.consumes);
    if !fits.into_iter().all(|((used, all), more)| used.saturating_add(*more) <= *all) {
        return Err(format!("{} of {} overlaps what is held", found.name, gpu.name));
    }
    for (used, more) in gpu.used.iter_mut().zip(&found.consumes) {
        *used += more;
    }
    gpu.held |= 1 << device.device;
    Ok(found.units)
}

/// Gives back what [`hold`] took.
pub(in crate::simulate) fn release(snapshot: &mut Snapshot, pods: &[PodPlacement], shape: usize) {
    for pod in pods {
        for device in pod.devices.iter().flatten() {
            let Some(gpu) = snapshot.gpus.get_mut(device.gpu.0 as usize) else { continue };
            let Some(found) = gpu.devices.get(usize::from(device.device)) else { continue };
            for (used, less) in gpu.used.iter_mut().zip(&found.consumes) {
                *used = used.saturating_sub(*less);
            }
            gpu.held &= !(1 << device.device);
        }
        if let (Some(node), Some(shape)) =
            (snapshot.nodes.get_mut(pod.node.0 as usize), snapshot.shapes.get(shape))
        {
            subtract(&mut node.requested, shape);
        }
    }
}

/// What the devices of a pod are charged.
pub(in crate::simulate) fn units_of(snapshot: &Snapshot, pod: &PodPlacement) -> Units {
    let units = |device: &DeviceIndex| {
        let gpu = snapshot.gpus.get(device.gpu.0 as usize);
        gpu.and_then(|gpu| gpu.devices.get(usize::from(device.device))).map_or(0, |device| device.units)
    };
    pod.devices.iter().flatten().map(units).sum()
}

fn add(to: &mut Resources, shape: &PodShape) {
    let more = &shape.resources;
    to.cpu_milli = to.cpu_milli.saturating_add(more.cpu_milli);
    to.memory_bytes = to.memory_bytes.saturating_add(more.memory_bytes);
    to.pods = to.pods.saturating_add(more.pods.max(1));
    for (name, amount) in &more.other {
        let slot = to.other.entry(name.clone()).or_default();
        *slot = slot.saturating_add(*amount);
    }
}

fn subtract(from: &mut Resources, shape: &PodShape) {
    let less = &shape.resources;
    from.cpu_milli = from.cpu_milli.saturating_sub(less.cpu_milli);
    from.memory_bytes = from.memory_bytes.saturating_sub(less.memory_bytes);
    from.pods = from.pods.saturating_sub(less.pods.max(1));
    for (name, amount) in &less.other {
        if let Some(slot) = from.other.get_mut(name) {
            *slot = slot.saturating_sub(*amount);
        }
    }
}

/// Units of all GPUs on which anything may be placed.
pub(super) fn capacity(snapshot: &Snapshot) -> Units {
    snapshot.gpus.iter().filter(|gpu| !gpu.devices.is_empty()).count() as Units * UNITS_PER_GPU
}

/// The cluster as it is.
pub(super) fn point(snapshot: &Snapshot, at_ms: i64) -> Point {
    let used = snapshot.tenants.values().map(|tenant| tenant.used).sum();
    let mut point = Point { at_ms, used, waiting: snapshot.waiting.len(), ..Point::default() };
    for gpu in snapshot.gpus.iter().filter(|gpu| !gpu.blocked) {
        let Some(largest) = gpu.devices.iter().max_by_key(|device| device.units) else { continue };
        // The scarcest counter counts: what others than vingt hold is in it, too.
        let free = |(used, all): (&u64, &u64)| {
            all.saturating_sub(*used).saturating_mul(UNITS_PER_GPU).checked_div(*all)
        };
        let held = (0..64).zip(&gpu.devices).filter(|(bit, _)| gpu.held >> bit & 1 == 1);
        let held: Units = held.map(|(_, device)| device.units).sum();
        let free = if gpu.held == 0 {
            gpu.used.iter().zip(&gpu.capacity).filter_map(free).min().unwrap_or(0)
        } else {
            UNITS_PER_GPU.saturating_sub(held)
        };
        let fits = gpu.used.iter().zip(&gpu.capacity).zip(&largest.consumes);
        let fits = fits.into_iter().all(|((used, all), more)| used.saturating_add(*more) <= *all);
        point.free += free;
        point.fragments += if fits { 0 } else { free };
    }
    point
}

/// What each pod of a workload asks for, in words.
pub(super) fn profile(snapshot: &Snapshot, shape: usize) -> String {
    let Some(shape) = snapshot.shapes.get(shape) else { return String::new() };
    let words = |request: &crate::model::DeviceRequest| match request.count {
        1 => request.label.clone(),
        count => format!("{count} × {}", request.label),
    };
    shape.requests.iter().filter(|request| request.count > 0).map(words).collect::<Vec<_>>().join(" + ")
}

/// The beginning of a job's story.
pub(super) fn story(snapshot: &Snapshot, workload: &Workload) -> JobOutcome {
    JobOutcome {
        key: workload.key.clone(),
        tenant: workload.tenant.clone(),
        profile: profile(snapshot, workload.shape),
        queued_ms: workload.queued_ms,
        ..JobOutcome::default()
    }
}

/// When progress was last saved, of something admitted then that saves it whenever it has run `every_ms`.
pub(in crate::simulate) fn saved_ms(running: &Running, every_ms: Option<i64>, now_ms: i64) -> Option<i64> {
    let every = every_ms.filter(|every| *every > 0)?;
    let ran = now_ms.saturating_sub(running.admitted_ms);
    (ran >= every).then(|| running.admitted_ms + ran / every * every)
}
