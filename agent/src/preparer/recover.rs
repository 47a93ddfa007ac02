//! The agent's start: what the last one left half done is finished or rolled
//! back, and what it had ready is found again. Nothing is destroyed that the
//! journal does not name.

use std::collections::BTreeMap;
use std::io;

use k8s_openapi::api::resource::v1::ResourceClaim;

use super::prepare::own_instance;
use super::{Inner, Preparer, Refusal};
use crate::cdi::CdiDevice;
use crate::claims;
use crate::journal::{Created, DeviceEntry, Entries, Entry, Found, State};
use crate::nvml::{Inventory, Session};
use crate::target::Target;

impl Preparer {
    /// Brings journal, NVML and specs in line; to be called once, before the kubelet is served.
    ///
    /// Fails where NVML or, for a lost journal, the API server cannot be asked: nothing has been
    /// given up then, and it may be called again. What merely cannot be finished yet, because a
    /// process still holds it, is left to [`Self::sweep`].
    pub async fn recover(&self, found: &Found) -> Result<(), Refusal> {
        self.inner.recover(found).await
    }
}

impl Inner {
    async fn recover(&self, found: &Found) -> Result<(), Refusal> {
        let inventory = self.parts.nvml.call(Session::inventory).await?;
        match found {
            Found::Whole { rebooted: false } => {}
            Found::Whole { rebooted: true } => self.after_reboot().await?,
            Found::Nothing | Found::Corrupt(_) => self.adopt(&inventory).await?,
        }
        for (uid, entry) in self.parts.journal.entries().iter() {
            let lock = self.lock_of(uid);
            let _alone = lock.lock().await;
            let result = match entry.state {
                State::Prepared => self.find_again(uid, entry, &inventory).await,
                State::Preparing | State::RollingBack => self.roll_back(uid).await,
                State::Unpreparing => self.take_back(uid).await,
            };
            if let Err(error) = result {
                tracing::warn!(uid, %error, "a claim of the last run is not settled yet");
            }
        }
        Ok(())
    }

    /// Partitions outlive neither a boot nor the driver: those that are there now were made by
    /// others since, even if they are in all the same as ours were, UUID included.
    async fn after_reboot(&self) -> Result<(), Refusal> {
        let change = |entries: &mut Entries| -> io::Result<()> {
            for device in entries.values_mut().flat_map(|entry| &mut entry.devices) {
                if matches!(device.target, Target::Partition { .. }) {
                    device.created = Created::Lost;
                }
            }
            Ok(())
        };
        self.parts.journal.change(change).await?;
        tracing::info!("the node has booted, or the driver was loaded, since the journal was written");
        Ok(())
    }

    /// A prepared claim keeps what it has; its spec is written again, since `/var/run` may have been
    /// emptied and the driver replaced.
    async fn find_again(&self, uid: &str, entry: &Entry, inventory: &Inventory) -> Result<(), Refusal> {
        if self.lose(uid, entry, inventory).await? {
            return Ok(());
        }
        Ok(self.parts.cdi.write(uid, &super::prepare::cdi_devices(&entry.devices)?)?)
    }

    /// Rebuilds a lost journal: partitions that match an allocated and rightly decided claim of
    /// this node are taken to be that claim's; all others are somebody else's.
    async fn adopt(&self, inventory: &Inventory) -> Result<(), Refusal> {
        let claims = self.parts.claims.allocated().await?;
        let adopted: BTreeMap<String, Entry> =
            claims.iter().filter_map(|claim| self.adoptable(claim, inventory)).collect();
        if adopted.is_empty() {
            return Ok(());
        }
        for (uid, entry) in &adopted {
            tracing::warn!(
                uid,
                claim = entry.name,
                namespace = entry.namespace,
                "adopted from its decision record"
            );
        }
        let change = |entries: &mut Entries| -> io::Result<()> {
            for (uid, entry) in adopted {
                entries.entry(uid).or_insert(entry);
            }
            Ok(())
        };
        Ok(self.parts.journal.change(change).await?)
    }

    fn adoptable(&self, claim: &ResourceClaim, inventory: &Inventory) -> Option<(String, Entry)> {
        let uid = claim.metadata.uid.clone()?;
        let record = claims::decision(claim, &self.parts.node).ok()?;
        let mut devices = Vec::new();
        for decided in &record.devices {
            let target = Target::of(&decided.device, inventory).ok()?;
            let created = match &target {
                // Nothing on the GPU tells whose it is; the spec does.
                Target::Gpu { .. } if self.parts.cdi.exists(&uid) => Created::Nothing,
                Target::Gpu { .. } => return None,
                Target::Partition { gpu, .. } => {
                    let unknown = DeviceEntry {
                        decided: decided.clone(),
                        target: target.clone(),
                        created: Created::Intended,
                    };
                    let instance = own_instance(inventory.gpu(gpu)?, &unknown, false)?;
                    let compute = instance.compute.first()?;
                    Created::Partition {
                        gpu_instance: instance.id,
                        compute_instance: compute.id,
                        uuid: compute.uuid.clone(),
                    }
                }
            };
            devices.push(DeviceEntry { decided: decided.clone(), target, created });
        }
        let entry = Entry {
            namespace: claim.metadata.namespace.clone()?,
            name: claim.metadata.name.clone()?,
            tenant: record.tenant,
            workload: record.workload,
            units: record.units,
            start: record.start,
            state: State::Prepared,
            devices,
        };
        // Whether its spec names the right capabilities is not known: written anew.
        let spec: Option<Vec<CdiDevice>> = super::prepare::cdi_devices(&entry.devices).ok();
        if let Some(Err(error)) = spec.map(|devices| self.parts.cdi.write(&uid, &devices)) {
            tracing::warn!(uid, %error, "the spec of an adopted claim cannot be written");
        }
        Some((uid, entry))
    }
}
