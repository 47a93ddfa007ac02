//! The ledger against what the API server showed: every use of a claim, from
//! its decision record to the end that was told, seen by a watch; and what the
//! usage reports come to. The difference is 0, unit-millisecond for
//! unit-millisecond.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use libtest_mimic::Trial;
use vingt_core::ledger::{Report, Subject, verify};
use vingt_crds::{DecisionRecord, TrainingJob, UsageReport, names};
use vingt_e2e::wait_for;

use crate::manifests::{self, job};
use crate::space::{SOON, Space};
use crate::suite::{Needs, Suite};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.trial(
        "ledger: what was held is in the report, to the millisecond",
        Needs::mig("ledger", 1),
        |space| Box::pin(counted(space)),
    )]
}

/// The uses of claims that were seen.
#[derive(Default)]
pub struct Seen {
    uses: Mutex<BTreeMap<(String, i64), Use>>,
}

#[derive(Clone, Debug)]
struct Use {
    tenant: String,
    units: u64,
    /// What was told, in milliseconds since 1970.
    end_ms: Option<i64>,
    /// Neither record nor finalizer is on the claim any more.
    released: bool,
}

impl Seen {
    /// Watches all claims from now on, until the task is dropped.
    pub fn watch(client: Client) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let seen = Arc::new(Self::default());
        let to = seen.clone();
        let task = tokio::spawn(async move {
            let events = watcher(Api::<ResourceClaim>::all(client), watcher::Config::default());
            let mut events = Box::pin(events.default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(claim) | watcher::Event::InitApply(claim)) => to.note(&claim),
                    Ok(watcher::Event::Delete(claim)) => to.released(&claim, None),
                    // What it missed shows as a difference.
                    Ok(_) | Err(_) => {}
                }
            }
        });
        (seen, task)
    }

    fn uses(&self) -> MutexGuard<'_, BTreeMap<(String, i64), Use>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, claim: &ResourceClaim) {
        let Ok(record) = DecisionRecord::of(claim) else { return self.released(claim, None) };
        let (start_ms, end) = (record.start.as_millisecond(), vingt_crds::ended(&claim.metadata));
        let key = (record.claim.clone(), start_ms);
        {
            let mut uses = self.uses();
            let (tenant, units) = (record.tenant, record.units);
            let of_it = uses.entry(key).or_insert(Use { tenant, units, end_ms: None, released: false });
            of_it.end_ms = end.map(Timestamp::as_millisecond).or(of_it.end_ms);
        }
        self.released(claim, Some(start_ms));
    }

    /// All uses of the claim but the one that began then are over and done with.
    fn released(&self, claim: &ResourceClaim, but: Option<i64>) {
        let uid = claim.metadata.uid.as_deref().unwrap_or_default();
        for ((of, start_ms), of_it) in self.uses().iter_mut() {
            of_it.released |= of == uid && Some(*start_ms) != but;
        }
    }

    /// Waits until every use that was seen is let go, and compares them with the reports. Answers how many uses
    /// there were, and what they come to.
    pub async fn compare(&self, client: &Client, tenant: &str) -> Result<(usize, u64)> {
        wait_for(SOON, "all claims to be let go by the ledger", || async {
            let left = self.uses().values().filter(|of_it| of_it.tenant == tenant && !of_it.released).count();
            Ok((left == 0).then_some(()))
        })
        .await?;
        let reports = reports(client).await?;
        let subject = Subject::tenant(tenant);
        let of_it: Vec<&Report> = reports.iter().filter(|report| report.subject == subject).collect();
        let by_rule: u64 = of_it.iter().map(|report| report.ended_by_rule).sum();
        ensure!(by_rule == 0, "{by_rule} uses ended by the rule: their agents told nothing");
        let billed: i64 =
            of_it.iter().flat_map(|report| report.lines.values()).map(|amount| amount.net()).sum();
        let mut allocated = 0;
        let uses = self.uses().clone();
        let uses: Vec<_> = uses.into_iter().filter(|(_, of_it)| of_it.tenant == tenant).collect();
        for ((uid, start_ms), of_it) in &uses {
            let Some(end_ms) = of_it.end_ms else {
                anyhow::bail!("claim {uid} was let go, and nobody told its end")
            };
            allocated += of_it.units * u64::try_from((end_ms - start_ms).max(0))?;
        }
        let difference = billed - i64::try_from(allocated)?;
        ensure!(
            difference == 0,
            "{billed} unit-ms are billed, {allocated} were allocated: a difference of {difference} over {uses:?}"
        );
        Ok((uses.len(), allocated))
    }
}

/// All reports; they are verified.
async fn reports(client: &Client) -> Result<Vec<Report>> {
    let stored = Api::<UsageReport>::all(client.clone()).list(&ListParams::default()).await?.items;
    let read = |report: UsageReport| Ok(serde_json::from_value(serde_json::to_value(report.spec)?)?);
    let reports: Vec<Report> = stored.into_iter().map(read).collect::<Result<_>>()?;
    if let Err(faults) = verify(&reports) {
        anyhow::bail!("the reports do not hold: {faults:?}");
    }
    Ok(reports)
}

async fn counted(space: &Space<'_>) -> Result<()> {
    let (seen, watch) = Seen::watch(space.admin.clone());
    let result = live(space, &seen).await;
    watch.abort();
    result
}

async fn live(space: &Space<'_>, seen: &Seen) -> Result<()> {
    // A gang, a pod, and a claim of one's own that is used twice.
    space.apply(&job("gang", 2, "profile: 2g.20gb")).await?;
    space.apply(&manifests::pod("pod", "mig-1g.10gb")).await?;
    space
        .apply(
            "
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: own}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: mig-1g.10gb.vingt.dev}}]}}
",
        )
        .await?;
    for user in ["first", "second"] {
        space
            .apply(&format!(
                "
apiVersion: v1
kind: Pod
metadata: {{name: {user}}}
spec:
  nodeSelector: @nodes
  resourceClaims: [{{name: gpu, resourceClaimName: own}}]
  containers: [{{name: c, image: example.invalid/x, resources: {{claims: [{{name: gpu}}]}}}}]
"
            ))
            .await?;
        space.pod_is(user, "Running").await?;
        space.delete::<Pod>(user).await?;
        let what = format!("the use by {user} to be counted, and the claim free");
        wait_for(SOON, &what, || async {
            let claim = space.api::<ResourceClaim>().get("own").await?;
            let finalizers = claim.metadata.finalizers.clone().unwrap_or_default();
            let held = finalizers.iter().any(|finalizer| finalizer == names::LEDGER_FINALIZER);
            Ok((!held && DecisionRecord::of(&claim).is_err()).then_some(()))
        })
        .await?;
    }
    space.training_is("gang", "Running").await?;
    space.pod_is("pod", "Running").await?;
    space.delete::<TrainingJob>("gang").await?;
    space.delete::<Pod>("pod").await?;
    // A finalizer is all that is left of a claim whose pod is gone; it goes by itself.
    wait_for(SOON, "the claims of pods to be gone", || async {
        let left = space.api::<ResourceClaim>().list(&ListParams::default()).await?.items;
        Ok((left.len() == 1).then_some(()))
    })
    .await?;
    let (uses, unit_ms) = seen.compare(&space.admin, &space.name).await?;
    ensure!(uses >= 5, "only {uses} uses were seen");
    eprintln!("          {uses} uses, {unit_ms} unit-ms billed and allocated, difference 0");
    Ok(())
}
