//! What the kubelet normally asks for and sometimes cannot any more: claims
//! that ended while it had forgotten them, and ends that did not succeed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{ClaimRef, Inner, Preparer, Refusal};
use crate::journal::{Entry, State};
use crate::target::Target;

/// How often a prepared claim is looked up.
const LOOK_UP: Duration = Duration::from_secs(120);
/// How long a claim must have been gone. The kubelet, which knows when the containers have ended,
/// tries every 11 to 15 s and so has had many chances.
const GONE_FOR: Duration = Duration::from_secs(120);

/// What the sweeper remembers from one round to the next.
#[derive(Default)]
pub struct Sweep {
    looked_up: BTreeMap<String, Instant>,
    gone_since: BTreeMap<String, Instant>,
}

impl Preparer {
    /// One round: finishes what is half taken back, and takes back what no claim holds any more.
    pub async fn sweep(&self, memory: &mut Sweep) {
        let entries = self.inner.parts.journal.entries();
        memory.looked_up.retain(|uid, _| entries.contains_key(uid));
        memory.gone_since.retain(|uid, _| entries.contains_key(uid));
        for uid in entries.keys() {
            let lock = self.inner.lock_of(uid);
            // Somebody is at it: no need to look.
            let Ok(_alone) = lock.try_lock() else { continue };
            // Read again: it may have gone on since the list was made.
            let Some(entry) = self.inner.parts.journal.entry(uid) else { continue };
            let result = match entry.state {
                State::Preparing | State::RollingBack => self.inner.roll_back(uid).await,
                State::Unpreparing => self.inner.take_back(uid).await,
                State::Prepared => self.inner.check(uid, &entry, memory).await,
            };
            if let Err(error) = result {
                tracing::warn!(uid, %error, "still not settled");
            }
        }
    }
}

impl Inner {
    async fn check(&self, uid: &str, entry: &Entry, memory: &mut Sweep) -> Result<(), Refusal> {
        let now = Instant::now();
        let due = memory.looked_up.get(uid).is_none_or(|last| now - *last >= LOOK_UP);
        let gone_since = memory.gone_since.get(uid).copied();
        if !due && gone_since.is_none_or(|since| now - since < GONE_FOR) {
            return Ok(());
        }
        let claim =
            ClaimRef { namespace: entry.namespace.clone(), name: entry.name.clone(), uid: uid.to_owned() };
        memory.looked_up.insert(uid.to_owned(), now);
        if self.is_live(&claim).await? {
            memory.gone_since.remove(uid);
            return Ok(());
        }
        let since = *memory.gone_since.entry(uid.to_owned()).or_insert(now);
        if now - since < GONE_FOR {
            return Ok(());
        }
        // A partition in use cannot be destroyed; a whole GPU would just be given to the next.
        for device in &entry.devices {
            if let Target::Gpu { gpu, .. } = &device.target
                && self.gpu_if_there(gpu).await?.is_some_and(|gpu| gpu.processes > 0)
            {
                return Err(Refusal::new(
                    "in-use",
                    format_args!("claim {claim} is gone, but its GPU is in use"),
                ));
            }
        }
        tracing::warn!(%claim, "the claim is gone and the kubelet has not unprepared it: taken back");
        self.take_back(uid).await
    }
}
