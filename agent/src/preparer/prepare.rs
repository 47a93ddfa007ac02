//! Prepare: decision checked, journal, partition, CDI spec, journal.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Answer, ClaimRef, Inner, Ready, Refusal};
use crate::cdi::{self, CdiDevice};
use crate::claims;
use crate::inventory;
use crate::journal::{Created, DeviceEntry, Entries, Entry, State};
use crate::nvml::{Gpu, Instance, MigMode, Session, code};
use crate::target::Target;

/// How long a claim waits for its place to become free. The kubelet gives a call 45 s, and after
/// an error tries again only a minute later.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often a waiting claim looks, besides when it is told that something was freed.
const LOOK: Duration = Duration::from_secs(2);

/// Why a claim cannot be entered in the journal.
enum NotReserved {
    /// Others hold the place.
    Held(Vec<ClaimRef>),
    Journal(std::io::Error),
}

impl From<std::io::Error> for NotReserved {
    fn from(error: std::io::Error) -> Self {
        Self::Journal(error)
    }
}

impl Inner {
    pub(super) async fn prepare(&self, claim: &ClaimRef, cancel: &CancellationToken) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        let entry = self.decided(claim).await?;
        if let Some(old) = self.parts.journal.entry(&claim.uid) {
            // The same names can mean other GPUs: minor numbers shift when a GPU dies.
            let means = |device: &DeviceEntry| (device.decided.clone(), device.target.clone());
            let same =
                old.start == entry.start && old.devices.iter().map(means).eq(entry.devices.iter().map(means));
            match old.state {
                State::Prepared if same && self.intact(&claim.uid, &old).await? => {
                    return Ok(ready(&claim.uid, &old));
                }
                // Decided anew while the kubelet owed us an end, or interrupted at its end.
                State::Prepared if !same => self.take_back(&claim.uid).await?,
                State::Unpreparing => self.take_back(&claim.uid).await?,
                // Left behind by a failure or a reboot: cleared away, then made anew.
                State::Prepared | State::Preparing | State::RollingBack => self.roll_back(&claim.uid).await?,
            }
        }
        self.reserve(claim, &entry, deadline, cancel).await?;
        self.reached("prepare: intent journalled, nothing made");
        // The pods of a shared claim come and go: it has not ended after all.
        self.parts.journal.drop_end(&claim.uid, entry.start).await?;
        match self.make(&claim.uid, deadline, cancel).await {
            Ok(entry) => Ok(ready(&claim.uid, &entry)),
            Err(refusal) => {
                // What cannot be rolled back now stays in the journal, and is tried again later.
                if let Err(error) = self.roll_back(&claim.uid).await {
                    tracing::warn!(%claim, %error, "a failed preparation is not rolled back yet");
                }
                Err(refusal)
            }
        }
    }

    /// Whether everything that was made for a prepared claim is still there; the spec is then written again.
    async fn intact(&self, uid: &str, entry: &Entry) -> Result<bool, Refusal> {
        for device in &entry.devices {
            match self.gpu_if_there(device.target.gpu()).await? {
                Some(gpu) if is_there(&gpu, device) => {}
                _ => return Ok(false),
            }
        }
        // Always: the driver's files may be others than when it was written.
        self.parts.cdi.write(uid, &cdi_devices(&entry.devices)?)?;
        Ok(true)
    }

    /// The claim's decision, as the entry that its preparation begins with.
    async fn decided(&self, claim: &ClaimRef) -> Result<Entry, Refusal> {
        let found = self.parts.claims.get(&claim.namespace, &claim.name).await?;
        let gone = || Refusal::new("claim-gone", format_args!("claim {claim} does not exist any more"));
        let object =
            found.filter(|object| object.metadata.uid.as_deref() == Some(&claim.uid)).ok_or_else(gone)?;
        let record = claims::decision(&object, &self.parts.node)
            .map_err(|why| Refusal::new("undecided", format_args!("claim {claim}: {why}")))?;
        let inventory = self.parts.nvml.call(Session::geometry).await?;
        let devices = record.devices.iter().map(|decided| {
            let target = Target::of(&decided.device, &inventory)
                .map_err(|why| Refusal::new("unknown-device", format_args!("claim {claim}: {why}")))?;
            Ok(DeviceEntry { decided: decided.clone(), target, created: Created::Nothing })
        });
        Ok(Entry {
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            tenant: record.tenant.clone(),
            workload: record.workload.clone(),
            units: record.units,
            start: record.start,
            state: State::Preparing,
            devices: devices.collect::<Result<_, Refusal>>()?,
        })
    }

    /// Enters the claim in the journal, once no other claim holds its place.
    async fn reserve(
        &self,
        claim: &ClaimRef,
        entry: &Entry,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<(), Refusal> {
        loop {
            let freed = self.freed.notified();
            let reserved = self.parts.journal.change(|entries| reserve_in(entries, claim, entry)).await;
            let holders = match reserved {
                Ok(()) => return Ok(()),
                Err(NotReserved::Journal(error)) => return Err(error.into()),
                Err(NotReserved::Held(holders)) => holders,
            };
            for holder in &holders {
                self.refuse_if_live(holder).await?;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let names: Vec<String> = holders.iter().map(ToString::to_string).collect();
                let message =
                    format!("its place is still held by {}, which is not taken back yet", names.join(", "));
                return Err(Refusal::new("occupied", message));
            }
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep(left.min(LOOK)) => {}
                () = cancel.cancelled() => return Err(cancelled()),
            }
        }
    }

    /// Fails if the holder of a place is a live claim of this node: waiting would not help.
    async fn refuse_if_live(&self, holder: &ClaimRef) -> Result<(), Refusal> {
        if self.parts.journal.entry(&holder.uid).is_none_or(|entry| entry.state != State::Prepared) {
            return Ok(());
        }
        if self.is_live(holder).await? {
            let message = format!("its place is held by claim {holder}, which is prepared and allocated");
            return Err(Refusal::new("conflict", message));
        }
        Ok(())
    }

    /// Whether a claim exists and is allocated to this node, or somebody has reserved it.
    pub(super) async fn is_live(&self, claim: &ClaimRef) -> Result<bool, Refusal> {
        let found = self.parts.claims.get(&claim.namespace, &claim.name).await?;
        let same = found.filter(|object| object.metadata.uid.as_deref() == Some(&claim.uid));
        Ok(same.is_some_and(|object| claims::is_held(&object, &self.parts.node)))
    }

    /// Makes all devices of a reserved claim, and its spec.
    async fn make(&self, uid: &str, deadline: Instant, cancel: &CancellationToken) -> Result<Entry, Refusal> {
        let entry = self.reserved(uid)?;
        for (index, device) in entry.devices.iter().enumerate() {
            match &device.target {
                Target::Gpu { gpu, .. } => self.make_whole(gpu, deadline, cancel).await?,
                Target::Partition { .. } => self.make_partition(uid, index, &device.target).await?,
            }
        }
        let entry = self.reserved(uid)?;
        self.reached("prepare: devices made, no spec");
        self.parts.cdi.write(uid, &cdi_devices(&entry.devices)?)?;
        self.reached("prepare: spec written, not journalled");
        self.parts.journal.change_entry(uid, |entry| entry.state = State::Prepared).await?;
        self.reached("prepare: journalled as prepared");
        Ok(entry)
    }

    fn reserved(&self, uid: &str) -> Result<Entry, Refusal> {
        let missing = || Refusal::new("internal", "the claim's journal entry is gone");
        self.parts.journal.entry(uid).ok_or_else(missing)
    }

    async fn make_whole(
        &self,
        uuid: &str,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<(), Refusal> {
        loop {
            let gpu = self.gpu(uuid).await?;
            if gpu.processes == 0 {
                return match gpu.mig {
                    MigMode::Disabled | MigMode::Unsupported => Ok(()),
                    MigMode::Enabled if !gpu.instances.is_empty() => Err(Refusal::new(
                        "foreign-partition",
                        format_args!("GPU {uuid} has partitions, so it cannot be given whole"),
                    )),
                    MigMode::Enabled => self.switch_mode(&gpu, false).await,
                    MigMode::Pending => Err(mode_pending(uuid)),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message =
                    format!("GPU {uuid} is in use by {} processes that vingt did not place", gpu.processes);
                return Err(Refusal::new("in-use", message));
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK)) => {}
                () = cancel.cancelled() => return Err(cancelled()),
            }
        }
    }

    async fn make_partition(&self, uid: &str, index: usize, target: &Target) -> Result<(), Refusal> {
        let Target::Partition { gpu: card, profile_id, placement, multiprocessors, .. } = target.clone()
        else {
            return Ok(());
        };
        let gpu = self.gpu(&card).await?;
        match gpu.mig {
            MigMode::Enabled => {}
            MigMode::Disabled => self.switch_mode(&gpu, true).await?,
            MigMode::Pending => return Err(mode_pending(&card)),
            MigMode::Unsupported => {
                return Err(Refusal::new("no-mig", format_args!("GPU {card} has no MIG")));
            }
        }
        if let Some(other) = gpu.instances.iter().find(|instance| instance.placement.overlaps(placement)) {
            let message = format!(
                "GPU instance {} of {card} lies in the way, at memory slice {}, and was not made by vingt",
                other.id, other.placement.start
            );
            return Err(Refusal::new("foreign-partition", message));
        }
        self.note(uid, index, Created::Intended).await?;
        self.reached("prepare: no GPU instance yet");
        let on = card.clone();
        let create = move |session: &Session| session.create_gpu_instance(&on, profile_id, placement);
        let gpu_instance = match self.parts.nvml.call(create).await {
            Ok(id) => id,
            Err(fault) => {
                if fault.is(code::INSUFFICIENT_RESOURCES) {
                    // Whatever lies there now is somebody else's, made since we looked: hands off.
                    self.note(uid, index, Created::Lost).await?;
                }
                return Err(fault.into());
            }
        };
        self.reached("prepare: GPU instance made, not journalled");
        self.note(uid, index, Created::GpuInstance { gpu_instance }).await?;
        self.reached("prepare: GPU instance journalled, no compute instance");
        let create =
            move |session: &Session| session.create_compute_instance(&card, gpu_instance, multiprocessors);
        let compute = self.parts.nvml.call(create).await?;
        self.reached("prepare: compute instance made, not journalled");
        let created = Created::Partition { gpu_instance, compute_instance: compute.id, uuid: compute.uuid };
        self.note(uid, index, created).await?;
        Ok(())
    }

    async fn note(&self, uid: &str, index: usize, created: Created) -> Result<(), Refusal> {
        let note = |entry: &mut Entry| {
            if let Some(device) = entry.devices.get_mut(index) {
                device.created = created;
            }
        };
        Ok(self.parts.journal.change_entry(uid, note).await?)
    }

    async fn gpu(&self, uuid: &str) -> Result<Gpu, Refusal> {
        let uuid = uuid.to_owned();
        Ok(self.parts.nvml.call(move |session| session.gpu(&uuid)).await?)
    }

    /// The GPU; `None` if it is certain that it is gone.
    pub(super) async fn gpu_if_there(&self, uuid: &str) -> Result<Option<Gpu>, Refusal> {
        let uuid = uuid.to_owned();
        Ok(self.parts.nvml.call(move |session| session.gpu_if_there(&uuid)).await?)
    }

    async fn switch_mode(&self, gpu: &Gpu, on: bool) -> Result<(), Refusal> {
        let refused = |why: &str| {
            let word = if on { "on" } else { "off" };
            Err(Refusal::new(
                "mode-switch",
                format_args!("GPU {} needs MIG mode {word}, but {why}", gpu.uuid),
            ))
        };
        if !self.parts.allow_mig_mode_switch {
            return refused("switching it is not allowed on this node (--allow-mig-mode-switch)");
        }
        if !gpu.switches_mig_live {
            return refused("its architecture cannot switch without a reset");
        }
        if gpu.processes > 0 {
            return refused("processes use it");
        }
        let uuid = gpu.uuid.clone();
        self.reached("prepare: MIG mode not yet switched");
        self.parts.nvml.call(move |session| session.set_mig_mode(&uuid, on)).await?;
        self.reached("prepare: MIG mode switched");
        Ok(())
    }
}

fn reserve_in(entries: &mut Entries, claim: &ClaimRef, entry: &Entry) -> Result<(), NotReserved> {
    let conflicts = |other: &Entry| {
        let pairs =
            other.devices.iter().flat_map(|theirs| entry.devices.iter().map(move |ours| (theirs, ours)));
        pairs.into_iter().any(|(theirs, ours)| theirs.target.conflicts(&ours.target))
    };
    let others = entries.iter().filter(|(uid, other)| **uid != claim.uid && conflicts(other));
    let holders: Vec<ClaimRef> = others
        .map(|(uid, other)| ClaimRef {
            namespace: other.namespace.clone(),
            name: other.name.clone(),
            uid: uid.clone(),
        })
        .collect();
    if !holders.is_empty() {
        return Err(NotReserved::Held(holders));
    }
    entries.insert(claim.uid.clone(), entry.clone());
    Ok(())
}

/// The instance that was made for a device, if it is there: told by profile, place, id and UUID.
///
/// The driver gives all of these again to whatever is made in the same place. That somebody else has
/// removed ours and put theirs there, within one boot and behind our back, cannot be seen.
///
/// `halved`: whether it may have lost its compute instance to us. If not, a bare GPU instance is
/// somebody else's that is not finished: its id is the same for all in this place.
pub(super) fn own_instance<'a>(gpu: &'a Gpu, device: &DeviceEntry, halved: bool) -> Option<&'a Instance> {
    let ours = std::iter::once(device.target.clone()).collect();
    let there = gpu.instances.iter().find(|instance| inventory::is_ours(gpu, instance, &ours))?;
    let same = match &device.created {
        Created::Nothing | Created::Lost => false,
        Created::Intended => there.compute.len() <= 1,
        Created::GpuInstance { gpu_instance } => there.id == *gpu_instance && there.compute.len() <= 1,
        Created::Partition { gpu_instance, uuid, .. } => match there.compute.as_slice() {
            [] => halved && there.id == *gpu_instance,
            [compute] => compute.uuid == *uuid,
            _ => false,
        },
    };
    same.then_some(there)
}

/// Whether a prepared device is what it was, by the same minor number.
pub(super) fn is_there(gpu: &Gpu, device: &DeviceEntry) -> bool {
    let made = match &device.target {
        Target::Gpu { .. } => true,
        Target::Partition { .. } => {
            own_instance(gpu, device, false).is_some_and(|instance| !instance.compute.is_empty())
        }
    };
    made && gpu.uuid == device.target.gpu() && gpu.minor == device.target.minor()
}

pub(super) fn cdi_devices(devices: &[DeviceEntry]) -> Result<Vec<CdiDevice>, Refusal> {
    devices
        .iter()
        .map(|device| {
            let partition = match (&device.target, &device.created) {
                (Target::Gpu { .. }, _) => None,
                (Target::Partition { .. }, Created::Partition { gpu_instance, compute_instance, .. }) => {
                    Some((*gpu_instance, *compute_instance))
                }
                (Target::Partition { .. }, _) => {
                    let message = format!("device {} is not made", device.decided.device);
                    return Err(Refusal::new("internal", message));
                }
            };
            Ok(CdiDevice { device: device.decided.device.clone(), minor: device.target.minor(), partition })
        })
        .collect()
}

fn ready(uid: &str, entry: &Entry) -> Vec<Ready> {
    let ready = |device: &DeviceEntry| Ready {
        decided: device.decided.clone(),
        cdi_id: cdi::device_id(uid, &device.decided.device),
    };
    entry.devices.iter().map(ready).collect()
}

fn cancelled() -> Refusal {
    Refusal::new("cancelled", "the claim is being unprepared")
}

fn mode_pending(uuid: &str) -> Refusal {
    Refusal::new("mode-pending", format_args!("a change of MIG mode of GPU {uuid} waits for a reset"))
}
