//! What must hold for the demo to succeed, and the proofs that what the API
//! server says is also what the GPUs' library and the containers say.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::picture::{self, Picture, Taken, partitions};
use crate::lab::Lab;
use crate::wait::wait_for;

/// A job of the samples and how it must end up.
pub struct Expectation {
    namespace: &'static str,
    name: &'static str,
    /// `Running` with all of them ready, or `Waiting` with a reason.
    state: &'static str,
    ready: &'static str,
}

/// What the sample for the real node leads to, if there is one.
pub fn on_the_real_node(real_node: bool) -> Vec<Expectation> {
    let proof = real_node.then(|| Expectation::running("serving", "proof", "2/2"));
    proof.into_iter().collect()
}

/// What the other samples lead to.
pub fn everywhere() -> Vec<Expectation> {
    vec![
        Expectation::running("research", "sweep", "4/4"),
        Expectation::running("research", "pretrain", "2/2"),
        Expectation::running("serving", "chat", "3/3"),
        Expectation::running("serving", "embedder", "2/2"),
        Expectation { namespace: "research", name: "too-big", state: "Waiting", ready: "" },
    ]
}

impl Expectation {
    /// It runs, with all that it wants ready.
    pub const fn running(namespace: &'static str, name: &'static str, ready: &'static str) -> Self {
        Self { namespace, name, state: "Running", ready }
    }

    /// What is not as it must be yet.
    pub fn unmet(&self, picture: &Picture) -> Option<String> {
        let (namespace, name) = (self.namespace, self.name);
        let found = picture.jobs.iter().find(|job| job.namespace == namespace && job.name == name);
        let Some(job) = found else { return Some(format!("{namespace}/{name} is not there")) };
        if job.state != self.state || (!self.ready.is_empty() && job.ready != self.ready) {
            let is = format!("{} {} {}", job.state, job.ready, job.why);
            let wanted = format!("{} {}", self.state, self.ready);
            return Some(format!("{namespace}/{name} is \"{}\", not \"{}\"", is.trim(), wanted.trim()));
        }
        if self.state == "Waiting" && job.why.is_empty() {
            return Some(format!("{namespace}/{name} does not say why it waits"));
        }
        None
    }
}

/// Compares what is allocated with what NVML shows on every virtual node.
/// Answers how many partitions there are.
pub async fn nvml_agrees(lab: &Lab, picture: &Picture) -> Result<usize> {
    let mut count = 0;
    for node in lab.nodes() {
        let mut shown: Vec<(String, String)> = partitions(&lab.nvml_view(node).await?)
            .into_iter()
            .map(|(gpu, profile, _)| (gpu, profile))
            .collect();
        let mut allocated: Vec<(String, String)> = taken_on(picture, node.name())
            .filter_map(|taken| Some((taken.gpu_uuid.clone(), taken.profile.clone()?)))
            .collect();
        shown.sort();
        allocated.sort();
        ensure!(
            shown == allocated,
            "{}: NVML shows the partitions {shown:?}, but allocated are {allocated:?}",
            node.name()
        );
        count += shown.len();
    }
    Ok(count)
}

fn taken_on<'a>(picture: &'a Picture, node: &'a str) -> impl Iterator<Item = &'a Taken> {
    let gpus = picture.gpus.iter().filter(move |((name, _), _)| name == node);
    gpus.flat_map(|(_, gpu)| gpu.taken.iter())
}

/// Looks inside the containers of the real node: each must see exactly one GPU
/// with exactly its own partition. Answers a line per container.
pub async fn containers_hold_their_own(lab: &Lab, picture: &Picture) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut uuids = BTreeSet::new();
    let node = lab.real_node().context("there is no real node")?;
    let here: Vec<&Taken> = taken_on(picture, node).collect();
    ensure!(!here.is_empty(), "nothing is allocated on the real node {node}");
    for taken in here {
        let (namespace, _) = &taken.job;
        let shown = lab
            .kubectl(&[
                "exec",
                "--namespace",
                namespace,
                &taken.pod,
                "--",
                "vingt-agent",
                "devices",
                "--output",
                "json",
            ])
            .await?;
        let shown: Value = serde_json::from_str(&shown).context("not the output of `devices`")?;
        let gpus = shown.as_array().map_or(0, Vec::len);
        let found = partitions(&shown);
        let [(gpu, profile, uuid)] = found.as_slice() else {
            anyhow::bail!("{namespace}/{} sees {} partitions, not one", taken.pod, found.len());
        };
        ensure!(gpus == 1, "{namespace}/{} sees {gpus} GPUs, not one", taken.pod);
        ensure!(
            *gpu == taken.gpu_uuid && Some(profile) == taken.profile.as_ref(),
            "{namespace}/{} was given {:?} on {} but sees {profile} on {gpu}",
            taken.pod,
            taken.profile,
            taken.gpu_uuid
        );
        ensure!(uuids.insert(uuid.clone()), "two containers see the same partition {uuid}");
        lines.push(format!("{namespace}/{} sees {profile} {uuid} and nothing else", taken.pod));
    }
    Ok(lines)
}

/// Deletes a training job and waits until its partitions are gone from the
/// GPUs. Answers how long that took.
pub async fn goes_back_to_nothing(lab: &Lab, namespace: &str, name: &str) -> Result<Duration> {
    let started = std::time::Instant::now();
    lab.kubectl(&["delete", "trainingjob", name, "--namespace", namespace, "--wait=false"]).await?;
    wait_for(Duration::from_secs(60), "the partitions of a deleted job to go", || async {
        let picture = picture::take(&lab.admin()).await?;
        let job = (namespace.to_owned(), name.to_owned());
        let mut taken = picture.gpus.values().flat_map(|gpu| gpu.taken.iter());
        ensure!(!taken.any(|taken| taken.job == job), "devices are still allocated to it");
        nvml_agrees(lab, &picture).await?;
        Ok(Some(()))
    })
    .await?;
    Ok(started.elapsed())
}
