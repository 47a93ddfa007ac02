//! Unprepare, and the way back from a failed prepare: compute instance, GPU
//! instance, CDI spec, journal. Destroyed is only what the journal says is
//! ours; what is gone already counts as done.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::prepare::own_instance;
use super::{ClaimRef, Inner, Refusal};
use crate::journal::{Created, DeviceEntry, Ended, State};
use crate::nvml::{Fault, Session, code};
use crate::target::Target;

/// How long a partition that is still in use is waited for: processes of a killed container take
/// a moment to leave, and the driver another.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Inner {
    pub(super) async fn unprepare(&self, claim: &ClaimRef) -> Result<(), Refusal> {
        let Some(entry) = self.parts.journal.entry(&claim.uid) else {
            // Never prepared, or ended before: at most a spec is left.
            self.parts.cdi.remove(&claim.uid)?;
            return self.end_unprepared(claim).await;
        };
        match entry.state {
            State::Prepared | State::Unpreparing => self.take_back(&claim.uid).await,
            State::Preparing | State::RollingBack => {
                self.roll_back(&claim.uid).await?;
                Ok(self.parts.journal.record_end(Ended::of(&claim.uid, &entry, Timestamp::now())).await?)
            }
        }
    }

    /// Undoes a preparation; the claim itself may go on.
    pub(super) async fn roll_back(&self, uid: &str) -> Result<(), Refusal> {
        self.dismantle(uid, State::RollingBack).await?;
        self.parts.journal.forget(uid).await?;
        self.reached("roll back: forgotten");
        self.freed.notify_waiters();
        Ok(())
    }

    /// Ends a claim, and records when.
    pub(super) async fn take_back(&self, uid: &str) -> Result<(), Refusal> {
        self.dismantle(uid, State::Unpreparing).await?;
        if let Some(entry) = self.parts.journal.entry(uid) {
            self.parts.journal.end(uid, Ended::of(uid, &entry, Timestamp::now())).await?;
        }
        self.reached("unprepare: forgotten");
        self.freed.notify_waiters();
        Ok(())
    }

    async fn dismantle(&self, uid: &str, state: State) -> Result<(), Refusal> {
        // Begun before, so that a compute instance may be missing by our own doing.
        let halved = self.parts.journal.entry(uid).is_some_and(|entry| entry.state != State::Prepared);
        self.parts.journal.change_entry(uid, |entry| entry.state = state).await?;
        self.reached("unprepare: intent journalled, nothing destroyed");
        let Some(entry) = self.parts.journal.entry(uid) else { return Ok(()) };
        let deadline = Instant::now() + PATIENCE;
        for device in &entry.devices {
            self.destroy(device, halved, deadline).await?;
        }
        self.reached("unprepare: devices destroyed, spec still there");
        self.parts.cdi.remove(uid)?;
        self.reached("unprepare: spec removed, not journalled");
        Ok(())
    }

    async fn destroy(&self, device: &DeviceEntry, halved: bool, deadline: Instant) -> Result<(), Refusal> {
        let Target::Partition { gpu: uuid, .. } = &device.target else { return Ok(()) };
        if matches!(device.created, Created::Nothing | Created::Lost) {
            return Ok(());
        }
        // What was on a GPU that is gone is gone.
        let Some(gpu) = self.gpu_if_there(uuid).await? else { return Ok(()) };
        let Some(instance) = own_instance(&gpu, device, halved) else { return Ok(()) };
        let id = instance.id;
        for compute in &instance.compute {
            let (on, compute) = (uuid.clone(), compute.id);
            self.insist(deadline, move |session| session.destroy_compute_instance(&on, id, compute)).await?;
            self.reached("unprepare: compute instance destroyed, GPU instance still there");
        }
        let on = uuid.clone();
        self.insist(deadline, move |session| session.destroy_gpu_instance(&on, id)).await?;
        self.reached("unprepare: GPU instance destroyed, journal does not know");
        Ok(())
    }

    /// Calls until the thing is no longer in use, or the deadline has passed.
    async fn insist<F>(&self, deadline: Instant, call: F) -> Result<(), Refusal>
    where
        F: Fn(&Session) -> Result<(), Fault> + Clone + Send + 'static,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.parts.nvml.call(call.clone()).await {
                Ok(()) => return Ok(()),
                Err(fault) if fault.is(code::IN_USE) && Instant::now() + pause < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(fault) if fault.is(code::IN_USE) => return Err(Refusal::new("in-use", fault)),
                Err(fault) => return Err(fault.into()),
            }
        }
    }
}
