//! Telling the API server when claims ended, until it knows: the annotation
//! `vingt.dev/ended` on the claim, from which the ledger reads the end of what
//! is charged. What it is charged is not decided here.

use std::time::Duration;

use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use vingt_crds::DecisionRecord;

use super::{ClaimRef, Inner, Preparer, Refusal};
use crate::claims::Unavailable;
use crate::journal::Ended;

/// How long it is waited after a failure, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often a claim that changes meanwhile is written again before others have their turn.
const ATTEMPTS: u32 = 5;

impl Preparer {
    /// Tells the ends that are recorded, until `stop` is cancelled.
    pub async fn tell_ends(&self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let told = self.tell_ends_once().await;
            let next = async {
                if told {
                    self.journal().end_recorded().await;
                } else {
                    tokio::time::sleep(pause).await;
                }
            };
            tokio::select! {
                () = next => {}
                () = stop.cancelled() => return,
            }
            pause = if told { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        }
    }

    /// Tries once to tell every end that is recorded. Returns whether none is left.
    pub async fn tell_ends_once(&self) -> bool {
        let mut told = true;
        for ended in self.journal().untold() {
            let result = match self.inner.tell(&ended).await {
                Ok(()) => self.journal().drop_end(&ended.claim, ended.start).await.map_err(Refusal::from),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = result {
                let (claim, namespace) = (&ended.name, &ended.namespace);
                tracing::warn!(%namespace, %claim, %error, "the end of a claim cannot be told yet");
                told = false;
            }
        }
        told
    }
}

impl Inner {
    /// Succeeds once the claim says when it ended, or nobody will ask for it.
    async fn tell(&self, ended: &Ended) -> Result<(), Unavailable> {
        for _ in 0..ATTEMPTS {
            let claim = self.parts.claims.get(&ended.namespace, &ended.name).await?;
            let Some(claim) = claim.filter(|claim| self.waits_for(claim, &ended.claim, ended.start)) else {
                return Ok(());
            };
            if vingt_crds::ended(&claim.metadata).is_some_and(|known| known >= ended.end)
                || self.parts.claims.end(&claim, ended.end).await?
            {
                return Ok(());
            }
        }
        Err(Unavailable("the claim changes all the time".to_owned()))
    }

    /// Whether a claim is the one that was used since `start`, by a decision for this node.
    fn waits_for(&self, claim: &ResourceClaim, uid: &str, start: Timestamp) -> bool {
        claim.metadata.uid.as_deref() == Some(uid)
            && DecisionRecord::of(claim)
                .is_ok_and(|record| record.node == self.parts.node && record.start == start)
    }

    /// Ends a claim of which nothing was made: the kubelet says that nothing more will be.
    pub(super) async fn end_unprepared(&self, claim: &ClaimRef) -> Result<(), Refusal> {
        // There is nothing to give back, so nothing fails; what is not told is noticed by the operator.
        let found = match self.parts.claims.get(&claim.namespace, &claim.name).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%claim, %error, "whether it was charged is not known");
                return Ok(());
            }
        };
        let Some((found, record)) = found.and_then(|found| {
            let record = DecisionRecord::of(&found).ok()?;
            Some((found, record))
        }) else {
            return Ok(());
        };
        let told = vingt_crds::ended(&found.metadata).is_some();
        if told || !self.waits_for(&found, &claim.uid, record.start) {
            return Ok(());
        }
        let now = Timestamp::now();
        let ended = Ended {
            claim: claim.uid.clone(),
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            tenant: record.tenant,
            workload: record.workload,
            units: record.units,
            start: record.start,
            end: Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now),
        };
        Ok(self.parts.journal.record_end(ended).await?)
    }
}
