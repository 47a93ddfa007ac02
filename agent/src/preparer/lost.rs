//! Prepared devices that are gone without our doing. They are noticed here and
//! given up; that they are made anew is up to the claim's next prepare.

use super::prepare::is_there;
use super::{Inner, Preparer, Refusal};
use crate::journal::{Created, DeviceEntry, Entry, State};
use crate::nvml::{Inventory, Session};

impl Preparer {
    /// Compares what is prepared with a reading; what is gone is never taken for ours again, even if
    /// somebody makes the like of it.
    pub async fn note_lost(&self, inventory: &Inventory) {
        for (uid, entry) in self.inner.parts.journal.entries().iter() {
            let gone = |device: &DeviceEntry| {
                matches!(device.created, Created::Partition { .. }) && !there(inventory, device)
            };
            if entry.state != State::Prepared || !entry.devices.iter().any(gone) {
                continue;
            }
            let lock = self.inner.lock_of(uid);
            // Somebody is at it, and looks for themselves.
            let Ok(_alone) = lock.try_lock() else { continue };
            if let Err(error) = self.inner.look_again(uid).await {
                tracing::warn!(uid, %error, "it cannot be told whether a prepared device is gone");
            }
        }
    }
}

impl Inner {
    /// With the claim's lock held: the entry may be younger than the reading.
    async fn look_again(&self, uid: &str) -> Result<(), Refusal> {
        let inventory = self.parts.nvml.call(Session::inventory).await?;
        match self.parts.journal.entry(uid) {
            Some(entry) if entry.state == State::Prepared => {
                self.lose(uid, &entry, &inventory).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Whether any device of a prepared claim is gone. Partitions that are gone are given up; a spec
    /// would give a restarted container whatever has their numbers now.
    pub(super) async fn lose(
        &self,
        uid: &str,
        entry: &Entry,
        inventory: &Inventory,
    ) -> Result<bool, Refusal> {
        let gone: Vec<usize> =
            (0..entry.devices.len()).filter(|index| !there(inventory, &entry.devices[*index])).collect();
        if gone.is_empty() {
            return Ok(false);
        }
        let made = |index: &&usize| matches!(entry.devices[**index].created, Created::Partition { .. });
        let lost: Vec<usize> = gone.iter().filter(made).copied().collect();
        if !lost.is_empty() {
            let give_up = |entry: &mut Entry| {
                for index in &lost {
                    entry.devices[*index].created = Created::Lost;
                }
            };
            self.parts.journal.change_entry(uid, give_up).await?;
        }
        for index in &lost {
            self.parts.metrics.partition_lost();
            let device = &entry.devices[*index].decided.device;
            tracing::warn!(uid, device, "a prepared partition is gone; the next prepare makes it anew");
        }
        self.parts.cdi.remove(uid)?;
        Ok(true)
    }
}

/// Whether a device is there, or may be: on a GPU that cannot be read.
fn there(inventory: &Inventory, device: &DeviceEntry) -> bool {
    inventory.gpu(device.target.gpu()).map_or(!inventory.unreadable.is_empty(), |gpu| is_there(gpu, device))
}
