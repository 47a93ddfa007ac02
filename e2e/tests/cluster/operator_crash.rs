//! The operator dies by `kill -9` before its first write and after each of its
//! writes, from the creation of a gang and a pod to their end: the gang is
//! whole or not there, nothing is given out twice, what is billed is what was
//! allocated, and all goes on after the restart. It has a lab of its own, whose operator talks through a proxy that
//! knows its writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use libtest_mimic::Trial;
use vingt_crds::{DecisionRecord, TrainingJob, names};
use vingt_e2e::cut_proxy::{CutProxy, Side};
use vingt_e2e::{Lab, LabConfig, wait_for};

use crate::audit::Auditor;
use crate::dump;
use crate::ledger::Seen;
use crate::manifests::{self, job};
use crate::space::{SOON, Space, gated};
use crate::suite::{Suite, start};

/// A walk that takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(1800);
/// More writes than this for one gang and one pod is a loop.
const TOO_MANY: usize = 150;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.plain("operator: killed in each gap between its writes", || Box::pin(crash()))]
}

async fn crash() -> Result<()> {
    let config = LabConfig {
        virtual_nodes: 1,
        gpus_per_node: 2,
        cut_proxy: true,
        ..LabConfig::small("t-crash", env!("CARGO_BIN_EXE_lab"))
    };
    let lab = start(config).await?;
    let result = tokio::time::timeout(LONGEST, in_lab(&lab)).await;
    let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("not done after {LONGEST:?}")));
    let stopped = lab.stop().await;
    result.and(stopped)
}

async fn in_lab(lab: &Lab) -> Result<()> {
    let folders = lab.nodes().iter().map(|node| (node.name().to_owned(), node.folder().join("gpu")));
    let auditor = Auditor::new(lab.admin(), folders.collect());
    let watch = tokio::spawn(auditor.clone().watch());
    let space = Space::make(lab, &auditor, "cut", vec![0], Some("")).await?;
    let (seen, counting) = Seen::watch(lab.admin());
    let walked = walk(&space, &seen).await;
    counting.abort();
    if walked.is_err() {
        eprintln!("{}", dump::of(&space).await);
    }
    watch.abort();
    walked.and(space.remove().await)
}

async fn walk(space: &Space<'_>, seen: &Seen) -> Result<()> {
    let proxy = space.lab.cut_proxy().context("a lab without proxy")?;
    let started = Instant::now();
    let mut cuts = 0;
    // A write that is lost leaves what the one before it left, so a cut after each covers all gaps
    // but the first.
    let first = [(1, Side::Before)];
    for (nth, side) in first.into_iter().chain((1..=TOO_MANY).map(|nth| (nth, Side::After))) {
        let what = format!("killed {side:?} write {nth}");
        let cut = once(space, proxy, nth, side).await.with_context(|| what.clone())?;
        seen.compare(&space.admin, &space.name).await.with_context(|| what)?;
        let Some(write) = cut else {
            let seconds = started.elapsed().as_secs_f64();
            let looks = space.auditor.seen().0;
            eprintln!("          {cuts} cut points walked in {seconds:.0} s, audited {looks} times");
            let (uses, unit_ms) = seen.compare(&space.admin, &space.name).await?;
            eprintln!("          {uses} uses, {unit_ms} unit-ms billed and allocated, difference 0");
            ensure!(cuts >= 20, "only {cuts} writes for a gang of four and a pod");
            return Ok(());
        };
        cuts += 1;
        eprintln!("          cut {cuts:3}  {side:?} {nth} {write}");
    }
    anyhow::bail!("a gang and a pod took more than {TOO_MANY} writes")
}

/// One life of a gang and a pod with one cut; answers at which write it was, or
/// nothing if all was done before it came to that.
async fn once(space: &Space<'_>, proxy: &CutProxy, nth: usize, side: Side) -> Result<Option<String>> {
    let letter = if side == Side::Before { 'b' } else { 'a' };
    let (gang, pod) = (format!("g{nth}{letter}"), format!("p{nth}{letter}"));
    proxy.arm(nth, side);
    space.apply(&job(&gang, 4, "profile: 2g.20gb")).await?;
    space.apply(&manifests::pod(&pod, "mig-1g.10gb")).await?;
    let seen = AtomicBool::new(false);
    wait_for(SOON, "the gang and the pod to run", || async {
        when_cut(space, proxy, &gang, &seen).await?;
        let job = space.training(&gang).await?;
        let found = space.api::<Pod>().get(&pod).await?.status.and_then(|status| status.phase);
        Ok((job.state == "Running" && found.as_deref() == Some("Running")).then_some(()))
    })
    .await?;
    space.holds(5).await?;
    space.auditor.look().await?;
    space.auditor.verdict(0)?;
    space.delete::<TrainingJob>(&gang).await?;
    space.delete::<Pod>(&pod).await?;
    wait_for(SOON, "the gang and the pod to be gone", || async {
        let gone = space.api::<TrainingJob>().get_opt(&gang).await?.is_none();
        Ok((gone && space.pods().await?.is_empty()).then_some(()))
    })
    .await?;
    space.nodes_are_empty().await?;
    wait_for(SOON, "all claims to be gone", || async {
        let left = space.api::<ResourceClaim>().list(&ListParams::default()).await?;
        Ok(left.items.is_empty().then_some(()))
    })
    .await?;
    space.uses(0).await?;
    proxy.disarm();
    Ok(proxy.happened().map(|write| format!("{} {}", write.method, write.path)))
}

/// The first time after the cut: keeps the operator down, and looks at what it
/// left.
async fn when_cut(space: &Space<'_>, proxy: &CutProxy, gang: &str, seen: &AtomicBool) -> Result<()> {
    if proxy.happened().is_none() || seen.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let operator = space.lab.operator();
    operator.hold();
    let whole = whole_or_none(space, gang).await;
    operator.release();
    // `wait_for` takes an error for "not yet"; this one is for ever.
    if let Err(error) = whole {
        space.auditor.accuse(format!("{error:#}"));
    }
    Ok(())
}

/// If one worker may start, all have their devices.
async fn whole_or_none(space: &Space<'_>, gang: &str) -> Result<()> {
    let workers = ListParams::default().labels(&format!("{}={gang}", names::TRAINING_JOB_LABEL));
    let pods = space.api::<Pod>().list(&workers).await?.items;
    let live: Vec<&Pod> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    let free = live.iter().filter(|pod| !gated(pod)).count();
    if free == 0 {
        return Ok(());
    }
    ensure!(live.len() == 4, "{free} workers of {gang} may start, and there are {} of 4", live.len());
    let claims: Api<ResourceClaim> = space.api();
    for pod in live {
        let status = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
        let claim = status.into_iter().flatten().find_map(|status| status.resource_claim_name.as_ref());
        let name = claim.context("a worker without claim")?;
        let claim = claims.get_opt(name).await?;
        let why = match claim.as_ref().map(DecisionRecord::verified) {
            Some(Ok(_)) => continue,
            Some(Err(why)) => why.to_string(),
            None => "it is gone".to_owned(),
        };
        // A worker that left meanwhile has given its device back.
        let now = space.api::<Pod>().get_opt(&pod.name_any()).await?;
        let stays =
            now.is_some_and(|now| now.uid() == pod.uid() && now.metadata.deletion_timestamp.is_none());
        ensure!(!stays, "{free} workers of {gang} may start, but of claim {name}: {why}");
    }
    Ok(())
}
