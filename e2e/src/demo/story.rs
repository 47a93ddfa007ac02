//! The sovereign reserve in the demo: the cluster is lent to its last GPU, a
//! sovereign job arrives, the fewest lenders leave, and come back when it ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind};
use serde_json::Value;

use super::checks::Expectation;
use super::picture::{self, Picture};
use super::{DEADLINE, Screen, apply, until};
use crate::build::workspace;
use crate::lab::Lab;
use crate::wait::wait_for;

/// Who is lent what is free, each one GPU.
const SMALL: &str = "thesis-";
/// GPUs that the sovereign job claims.
const CLAIMED: usize = 2;
/// What the reserve of the samples promises.
const CLAIMED_WITHIN: Duration = Duration::from_secs(60);
/// How long what was used may take to be in the ledger.
const COUNTED_WITHIN: Duration = Duration::from_secs(120);

/// Tells it, in a lab where the other samples run; then the job claims so many times more.
pub async fn tell(lab: &mut Lab, screen: &mut Screen, claims: usize) -> Result<()> {
    println!();
    apply(lab, screen, &["60-reserve.yaml", "70-lenders.yaml"]).await?;
    let all_lent = |picture: &Picture| {
        let unmet = Expectation::running("students", "render", "40/40").unmet(picture);
        unmet.or_else(|| {
            let unsettled = small(picture, |state| !matches!(state, "Running" | "Waiting"));
            let fewest = running(picture).len() >= 6;
            (!unsettled.is_empty() || !fewest).then(|| format!("not settled yet: {unsettled:?}"))
        })
    };
    let full = until(lab, screen, all_lent).await?;
    let lenders = running(&full);

    apply(lab, screen, &["80-flood.yaml"]).await?;
    let claimed = |picture: &Picture| {
        let unmet = Expectation::running("civil-protection", "flood", "2/2").unmet(picture);
        unmet.or_else(|| {
            let left = running(picture).len();
            (left + CLAIMED != lenders.len()).then(|| format!("{left} of {} lenders run", lenders.len()))
        })
    };
    let picture = until(lab, screen, claimed).await?;
    let stays = Expectation::running("students", "render", "40/40").unmet(&picture);
    ensure!(stays.is_none(), "more left than had to: {}", stays.unwrap_or_default());
    screen.last(&picture);
    let left: Vec<String> = lenders.difference(&running(&picture)).cloned().collect();
    println!(
        "civil-protection/flood runs; for its {CLAIMED} GPUs {} left, and nobody else\n",
        left.join(" and ")
    );

    screen.say("kubectl delete trainingjob flood --namespace civil-protection");
    lab.kubectl(&["delete", "trainingjob", "flood", "--namespace", "civil-protection", "--wait=false"])
        .await?;
    let back = |picture: &Picture| {
        let running = running(picture).len();
        (running < lenders.len()).then(|| format!("{running} of {} lenders run", lenders.len()))
    };
    until(lab, screen, &back).await?;
    println!("the lenders are back");
    if claims > 0 {
        let took = again(lab, claims, &back).await?;
        println!("{}", told(took));
    }

    wait_for(COUNTED_WITHIN, "what was claimed to be in the ledger", || async {
        let reports = lab.kubectl(&["get", "usagereports", "--output", "json"]).await?;
        let reports: Value = serde_json::from_str(&reports)?;
        let claimed = reports["items"].as_array().into_iter().flatten().any(|report| {
            let of = report["spec"]["subject"]["name"] == "civil-protection";
            let lines = report["spec"]["lines"].as_array();
            of && lines.into_iter().flatten().any(|line| line["basis"] == "claimed")
        });
        Ok(claimed.then_some(()))
    })
    .await?;
    for arguments in [&["reserve"][..], &["attest", "--so-far"]] {
        println!("\n$ kubectl vingt {}", arguments.join(" "));
        print!("{}", lab.plugin(arguments).await?);
    }
    println!();
    Ok(())
}

/// Lets the job claim again and again, each time that the cluster is full. Answers how long it took until it ran.
async fn again(
    lab: &Lab,
    claims: usize,
    not_full: impl Fn(&Picture) -> Option<String>,
) -> Result<Vec<Duration>> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("vingt.dev", "v1alpha1", "TrainingJob"));
    let jobs: Api<DynamicObject> = Api::namespaced_with(lab.admin(), "civil-protection", &kind);
    let mut took = Vec::with_capacity(claims);
    for _ in 0..claims {
        let began = Instant::now();
        let sample = workspace().join("e2e/samples/80-flood.yaml");
        lab.kubectl(&["apply", "--filename", &sample.display().to_string()]).await?;
        wait_for(CLAIMED_WITHIN, "the sovereign job to run", || async {
            let job = jobs.get("flood").await?;
            Ok((job.data["status"]["state"] == "Running").then_some(()))
        })
        .await?;
        took.push(began.elapsed());
        jobs.delete("flood", &DeleteParams::default()).await?;
        wait_for(DEADLINE, "the cluster to be full again", || async {
            let gone = jobs.get_opt("flood").await?.is_none();
            Ok((gone && not_full(&picture::take(&lab.admin()).await?).is_none()).then_some(()))
        })
        .await?;
    }
    Ok(took)
}

/// How long claims took, in words.
fn told(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |percent: usize| took.get((took.len() * percent).div_ceil(100).max(1) - 1);
    let seconds = |percent| at(percent).copied().unwrap_or_default().as_secs_f64();
    format!(
        "{} claims on the full cluster: running after {:.1} s (p50), {:.1} s (p99), {:.1} s (the slowest)",
        took.len(),
        seconds(50),
        seconds(99),
        seconds(100)
    )
}

/// Ends the lenders.
pub async fn end(lab: &mut Lab, screen: &mut Screen) -> Result<()> {
    screen.say("kubectl delete trainingjobs --all --namespace students");
    lab.kubectl(&["delete", "trainingjobs", "--all", "--namespace", "students", "--wait=false"]).await?;
    until(lab, screen, |picture| {
        let jobs = picture.jobs.iter().filter(|job| job.namespace == "students").count();
        let holds = |taken: &picture::Taken| taken.job.0 == "students";
        let held = picture.gpus.values().flat_map(|gpu| &gpu.taken).filter(|taken| holds(taken)).count();
        (jobs + held > 0).then(|| format!("{jobs} jobs and {held} devices are left"))
    })
    .await
    .map(drop)
}

/// The small lenders that run.
fn running(picture: &Picture) -> BTreeSet<String> {
    small(picture, |state| state == "Running")
}

/// The small lenders whose state is so.
fn small(picture: &Picture, is: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let jobs = picture.jobs.iter().filter(|job| job.namespace == "students" && job.name.starts_with(SMALL));
    jobs.filter(|job| is(&job.state)).map(|job| job.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_claim_is_among_those_told() {
        let took = (1..=200).rev().map(|tenths| Duration::from_millis(tenths * 100)).collect();
        assert_eq!(
            told(took),
            "200 claims on the full cluster: running after 10.0 s (p50), 19.8 s (p99), 20.0 s (the slowest)"
        );
    }
}
