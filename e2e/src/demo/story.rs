//! The sovereign reserve in the demo: the cluster is lent to its last GPU, a
//! sovereign job arrives, the fewest lenders leave, and come back when it ends.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::checks::Expectation;
use super::picture::Picture;
use super::{Screen, apply, until};
use crate::lab::Lab;
use crate::wait::wait_for;

/// Who is lent what is free, each one GPU.
const SMALL: &str = "thesis-";
/// GPUs that the sovereign job claims.
const CLAIMED: usize = 2;
/// How long what was used may take to be in the ledger.
const COUNTED_WITHIN: Duration = Duration::from_secs(60);

/// Tells it, in a lab where the other samples run.
pub async fn tell(lab: &mut Lab, screen: &mut Screen) -> Result<()> {
    println!();
    apply(lab, screen, &["60-reserve.yaml", "70-lenders.yaml"]).await?;
    let all_lent = |picture: &Picture| {
        let unmet = Expectation::running("students", "render", "40/40").unmet(picture);
        unmet.or_else(|| {
            let unsettled = small(picture, |state| !matches!(state, "Running" | "Waiting"));
            let fewest = small(picture, |state| state == "Running").len() >= 6;
            (!unsettled.is_empty() || !fewest).then(|| format!("not settled yet: {unsettled:?}"))
        })
    };
    let full = until(lab, screen, all_lent).await?;
    let lenders = small(&full, |state| state == "Running");

    apply(lab, screen, &["80-flood.yaml"]).await?;
    let claimed = |picture: &Picture| {
        let unmet = Expectation::running("civil-protection", "flood", "2/2").unmet(picture);
        unmet.or_else(|| {
            let left = small(picture, |state| state == "Running").len();
            (left + CLAIMED != lenders.len()).then(|| format!("{left} of {} lenders run", lenders.len()))
        })
    };
    let picture = until(lab, screen, claimed).await?;
    let stays = Expectation::running("students", "render", "40/40").unmet(&picture);
    ensure!(stays.is_none(), "more left than had to: {}", stays.unwrap_or_default());
    screen.last(&picture);
    let left: Vec<String> = small(&full, |state| state == "Running")
        .difference(&small(&picture, |state| state == "Running"))
        .cloned()
        .collect();
    println!(
        "civil-protection/flood runs; for its {CLAIMED} GPUs {} left, and nobody else\n",
        left.join(" and ")
    );

    screen.say("kubectl delete trainingjob flood --namespace civil-protection");
    lab.kubectl(&["delete", "trainingjob", "flood", "--namespace", "civil-protection", "--wait=false"])
        .await?;
    let back = |picture: &Picture| {
        let running = small(picture, |state| state == "Running").len();
        (running < lenders.len()).then(|| format!("{running} of {} lenders run", lenders.len()))
    };
    until(lab, screen, back).await?;
    println!("the lenders are back");

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

/// Ends the lenders.
pub async fn end(lab: &mut Lab, screen: &mut Screen) -> Result<()> {
    screen.say("kubectl delete trainingjobs --all --namespace students");
    lab.kubectl(&["delete", "trainingjobs", "--all", "--namespace", "students", "--wait=false"]).await?;
    until(lab, screen, |picture| {
        let jobs = picture.jobs.iter().filter(|job| job.namespace == "students").count();
        let holds = |taken: &super::picture::Taken| taken.job.0 == "students";
        let held = picture.gpus.values().flat_map(|gpu| &gpu.taken).filter(|taken| holds(taken)).count();
        (jobs + held > 0).then(|| format!("{jobs} jobs and {held} devices are left"))
    })
    .await
    .map(drop)
}

/// The small lenders whose state is so.
fn small(picture: &Picture, is: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let jobs = picture.jobs.iter().filter(|job| job.namespace == "students" && job.name.starts_with(SMALL));
    jobs.filter(|job| is(&job.state)).map(|job| job.name.clone()).collect()
}
