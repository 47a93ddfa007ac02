//! Agents that die, that find their driver missing, or that find somebody
//! else's things on their GPUs; and kubelets that take their slices away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;
use nvml_emulator::{Action, Moment};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use vingt_agent::nvml::{Placement, Session};
use vingt_crds::names;
use vingt_e2e::emulator::LIBRARY;
use vingt_e2e::helm::NAMESPACE;
use vingt_e2e::virtual_node::VirtualNode;
use vingt_e2e::wait_for;

use crate::http::{Call, User};
use crate::manifests::{job, pod};
use crate::nodes::Nodes;
use crate::space::{SOON, Space, emulator, partitions};
use crate::suite::{Needs, Suite};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    let whole = |id| Needs { nodes: Nodes { mig: 0, whole: 1 }, ..Needs::mig(id, 0) };
    vec![
        suite.trial("agent: killed while it prepares, and started again", Needs::mig("agentkill", 1), |s| {
            Box::pin(killed(s))
        }),
        suite.trial("agent: away while pods end; they end when it is back", Needs::mig("away", 1), |s| {
            Box::pin(away(s))
        }),
        suite.trial(
            "agent: slices that the kubelet deletes come back, and pods run on",
            Needs::mig("slices", 1),
            |s| Box::pin(slices(s)),
        ),
        suite.trial(
            "agent: somebody else's partition is left alone and not published",
            Needs::mig("foreign", 1),
            |s| Box::pin(foreign(s)),
        ),
        suite.trial("agent: a GPU in use at its start is published when it is free", whole("inuse"), |s| {
            Box::pin(in_use(s))
        }),
        suite.trial(
            "agent: without an NVML library, and with one that is too old",
            Needs::mig("library", 1),
            |s| Box::pin(library(s)),
        ),
    ]
}

/// What a node publishes: devices by counter set, of the newest generation, or
/// nothing while that is not complete.
pub async fn published(space: &Space<'_>, node: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let slices: Api<ResourceSlice> = Api::all(space.admin.clone());
    let all = slices.list(&ListParams::default()).await?.items;
    let ours = all.into_iter().map(|slice| slice.spec).filter(|spec| spec.driver == names::DRIVER);
    let pool: Vec<_> = ours.filter(|spec| spec.pool.name == node).collect();
    let newest = pool.iter().map(|spec| spec.pool.generation).max().unwrap_or_default();
    let pool: Vec<_> = pool.into_iter().filter(|spec| spec.pool.generation == newest).collect();
    let complete =
        pool.first().is_some_and(|spec| usize::try_from(spec.pool.resource_slice_count) == Ok(pool.len()));
    if !complete {
        return Ok(BTreeMap::new());
    }
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for device in pool.iter().flat_map(|spec| spec.devices.iter().flatten()) {
        let set = device.consumes_counters.iter().flatten().map(|consumed| consumed.counter_set.clone());
        found.entry(set.collect()).or_default().insert(device.name.clone());
    }
    Ok(found)
}

/// A page of the node's agent: status line and text.
async fn page(space: &Space<'_>, node: &VirtualNode, path: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(space.admin.clone(), NAMESPACE);
    let all = pods.list(&ListParams::default().fields(&format!("spec.nodeName={}", node.name()))).await?;
    let agent = all
        .items
        .into_iter()
        .find(|pod| pod.metadata.name.as_deref().is_some_and(|name| name.starts_with("vingt-agent")));
    let address = agent.and_then(|pod| pod.status).and_then(|status| status.pod_ip).context("no agent")?;
    // Loopback addresses show as others in Kubernetes, which refuses them.
    let address = address.replacen("100.", "127.", 1);
    let mut stream = tokio::net::TcpStream::connect((address, 9400)).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// Waits until a page of the agent says all this.
async fn page_says(space: &Space<'_>, node: &VirtualNode, path: &str, words: &[&str]) -> Result<()> {
    wait_for(SOON, &format!("{path} of the agent of {} to say {words:?}", node.name()), || async {
        let text = page(space, node, path).await?;
        ensure!(words.iter().all(|word| text.contains(word)), "it says {text}");
        Ok(Some(()))
    })
    .await
}

async fn killed(space: &Space<'_>) -> Result<()> {
    let node = space.node(0)?;
    let gpus = emulator(node)?;
    // Between the GPU instance and its compute instance, where most is to lose.
    for (nth, function) in
        ["nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceCreateComputeInstance"]
            .into_iter()
            .enumerate()
    {
        gpus.inject(function, 1, Action::DelayMs(60_000), Moment::After)?;
        let before = node.agent().processes();
        let name = format!("p{nth}");
        space.apply(&pod(&name, "mig-3g.40gb")).await?;
        wait_for(SOON, "the agent to be in the middle of it", || async {
            Ok(gpus.faults()?.iter().any(|fault| fault.fired_in.is_some()).then_some(()))
        })
        .await?;
        node.agent().kill();
        gpus.clear_faults()?;
        space.pod_is(&name, "Running").await?;
        ensure!(node.agent().processes() != before, "the agent is still the one that was to be killed");
        space.holds(nth + 1).await?;
    }
    Ok(())
}

async fn away(space: &Space<'_>) -> Result<()> {
    let node = space.node(0)?;
    space.apply(&pod("stays", "mig-1g.10gb")).await?;
    space.apply(&pod("goes", "mig-1g.10gb")).await?;
    space.pod_is("stays", "Running").await?;
    space.pod_is("goes", "Running").await?;
    node.agent().hold();
    space.delete::<Pod>("goes").await?;
    wait_for(SOON, "the deleted pod to be on its way out", || async {
        let pod = space.api::<Pod>().get_opt("goes").await?;
        Ok(pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()).then_some(()))
    })
    .await?;
    space.apply(&pod("comes", "mig-1g.10gb")).await?;
    // Nobody gives back what the agent does not: the pod stays, with its claim.
    space.pod_is("stays", "Running").await?;
    ensure!(space.api::<Pod>().get_opt("goes").await?.is_some(), "the pod is gone, its partition is not");
    ensure!(partitions(node)?.len() == 2, "partitions changed without an agent");
    node.agent().release();
    wait_for(SOON, "the deleted pod to be gone", || async {
        Ok(space.api::<Pod>().get_opt("goes").await?.is_none().then_some(()))
    })
    .await?;
    space.pod_is("comes", "Running").await?;
    space.holds(2).await.map(drop)
}

async fn slices(space: &Space<'_>) -> Result<()> {
    let node = space.node(0)?;
    space.apply(&pod("runs", "mig-2g.20gb")).await?;
    space.pod_is("runs", "Running").await?;
    let (before, held) = (published(space, node.name()).await?, space.holds(1).await?);
    let serials = partitions(node)?;
    ensure!(!before.is_empty(), "{} publishes nothing", node.name());
    let same = || async { Ok((published(space, node.name()).await? == before).then_some(())) };
    node.restart_kubelet().await?;
    wait_for(SOON, "the slices to be back after the kubelet's restart", same).await?;
    // One by one, too, as the kubelet may; nobody else may.
    let api: Api<ResourceSlice> = Api::all(space.admin.clone());
    let of_node = ListParams::default().fields(&format!("spec.nodeName={}", node.name()));
    let one =
        api.list(&of_node).await?.items.pop().and_then(|slice| slice.metadata.name).context("no slice")?;
    let path = format!("/apis/resource.k8s.io/v1/resourceslices/{one}");
    let call = Call { method: http::Method::DELETE, path, content: "application/json", body: Value::Null };
    let refused = call.send(&space.admin, &User::default()).await?;
    ensure!(refused.message().contains("To take a node out of use, cordon it"), "{}", refused.message());
    let kubelet = json!({"user": format!("system:node:{}", node.name()), "groups": ["system:nodes"]});
    let answer = call.send(&space.admin, &serde_json::from_value(kubelet)?).await?;
    ensure!(answer.code < 300, "the kubelet may not delete a slice: {}", answer.message());
    wait_for(SOON, "the one slice to be back", || async {
        let count = api.list(&of_node).await?.items.len();
        Ok((count == before.len() + 1 && published(space, node.name()).await? == before).then_some(()))
    })
    .await?;
    ensure!(space.holds(1).await? == held && partitions(node)? == serials, "the pod's partition changed");
    let pod = space.pod_is("runs", "Running").await?;
    let restarts = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    ensure!(restarts.iter().all(|container| container.restart_count == 0), "the pod was restarted");
    // The node is as good as before.
    space.apply(&pod_of("more")).await?;
    space.pod_is("more", "Running").await.map(drop)
}

fn pod_of(name: &str) -> String {
    pod(name, "mig-1g.10gb")
}

async fn foreign(space: &Space<'_>) -> Result<()> {
    let node = space.node(0)?;
    let before = published(space, node.name()).await?;
    // A copy of the library: nodes share one file, and a process has it once.
    let library = node.folder().join("gpu/libnvidia-ml.somebody.so");
    fs::copy(node.folder().join("gpu").join(LIBRARY), &library)?;
    let made = Foreign::make(&library)?;
    let device = "gpu-0-mig-3g40gb-9-4";
    let serial = partitions(node)?.get(device).context("no partition was made")?.serial;
    space.auditor.expect_foreign(node.name(), serial);

    let rest = wait_for(SOON, "its space to be published no more", || async {
        let now = published(space, node.name()).await?;
        Ok((!now.is_empty() && now != before).then_some(now))
    })
    .await?;
    let zero = rest.get("gpu-0").cloned().unwrap_or_default();
    ensure!(zero.contains("gpu-0-mig-3g40gb-9-0"), "what is free is not published: {zero:?}");
    let start = |device: &str| device.rsplit('-').next().and_then(|start| start.parse::<u32>().ok());
    ensure!(zero.iter().all(|device| start(device).is_some_and(|start| start < 4)), "{zero:?}");
    ensure!(rest["gpu-1"] == before["gpu-1"], "another GPU is published otherwise");
    page_says(space, node, "/metrics", &["vingt_agent_foreign_partitions 1"]).await?;

    // Sixteen halves less one.
    space.apply(&job("fifteen", 15, "profile: 3g.40gb")).await?;
    space.training_is("fifteen", "Running").await?;
    let cut = partitions(node)?;
    ensure!(cut.len() == 16, "{} partitions", cut.len());
    // Half a GPU is half a GPU, whoever has the other half.
    space.uses(15 * 28).await?;
    space.apply(&job("late", 1, "profile: 3g.40gb")).await?;
    let why = wait_for(SOON, "one more to wait", || async {
        let why = space.training("late").await?.why;
        Ok((!why.is_empty()).then_some(why))
    })
    .await?;
    ensure!(why.contains("needs 1 × 3g.40gb"), "it says {why:?}");
    let theirs = cut.get(device).map(|partition| partition.serial);
    ensure!(theirs == Some(serial), "the foreign partition is another one: {theirs:?}");
    // Whoever made it takes it away, and all is as before.
    made.destroy(&library)?;
    space.training_is("late", "Running").await?;
    ensure!(published(space, node.name()).await? == before, "not all is published again");
    Ok(())
}

/// A partition that somebody else made, on the upper half of GPU 0.
struct Foreign {
    gpu: String,
    instance: u32,
    compute: u32,
}

impl Foreign {
    fn make(library: &Path) -> Result<Self> {
        let session = Session::open(library.as_os_str())?;
        let gpu = session.inventory()?.by_minor(0).context("no GPU")?.clone();
        let profile = gpu.profiles.iter().find(|profile| profile.name == "3g.40gb").context("no 3g.40gb")?;
        let instance = session.create_gpu_instance(&gpu.uuid, profile.id, Placement { start: 4, size: 4 })?;
        let made = session.create_compute_instance(&gpu.uuid, instance, profile.multiprocessors)?;
        Ok(Self { gpu: gpu.uuid, instance, compute: made.id })
    }

    fn destroy(&self, library: &Path) -> Result<()> {
        let session = Session::open(library.as_os_str())?;
        session.destroy_compute_instance(&self.gpu, self.instance, self.compute)?;
        Ok(session.destroy_gpu_instance(&self.gpu, self.instance)?)
    }
}

async fn in_use(space: &Space<'_>) -> Result<()> {
    let node = space.node(0)?;
    let gpus = emulator(node)?;
    let before = published(space, node.name()).await?;
    ensure!(before.contains_key("gpu-0"), "no GPU 0 in {before:?}");
    node.agent().hold();
    let pid = std::process::id();
    gpus.add_process(0, None, pid, 1 << 30)?;
    node.agent().release();
    wait_for(SOON, "the GPU in use not to be published", || async {
        let now = published(space, node.name()).await?;
        Ok((now.len() == before.len() - 1 && !now.contains_key("gpu-0")).then_some(()))
    })
    .await?;
    page_says(space, node, "/metrics", &["vingt_agent_withheld{reason=\"in-use\"} 1"]).await?;
    space.apply(&job("all", 1, "count: 8")).await?;
    let why = wait_for(SOON, "a job for all of them to say why it waits", || async {
        let why = space.training("all").await?.why;
        Ok((!why.is_empty()).then_some(why))
    })
    .await?;
    ensure!(why.contains("needs 8 GPUs"), "it says {why:?}");
    gpus.remove_process(pid)?;
    space.training_is("all", "Running").await?;
    ensure!(published(space, node.name()).await? == before, "not all is published again");
    space.holds(8).await.map(drop)
}

async fn library(space: &Space<'_>) -> Result<()> {
    let node = space.node(0)?;
    let library = node.folder().join("gpu").join(LIBRARY);
    let aside = library.with_extension("aside");
    space.apply(&pod("runs", "mig-1g.10gb")).await?;
    space.pod_is("runs", "Running").await?;
    fs::rename(&library, &aside)?;
    node.agent().kill();
    let result = without_library(space, node, &library).await;
    // Whatever came of it: the node is wanted by others.
    let _ = fs::remove_file(&library);
    fs::rename(&aside, &library)?;
    node.agent().kill();
    result?;
    page_says(space, node, "/readyz", &["200 OK"]).await?;
    // Pods ran on, and what waited starts.
    space.pod_is("runs", "Running").await?;
    space.apply(&pod_of("more")).await?;
    space.pod_is("more", "Running").await?;
    space.holds(2).await.map(drop)
}

async fn without_library(space: &Space<'_>, node: &VirtualNode, library: &Path) -> Result<()> {
    let words = ["503", "cannot load the NVIDIA library", "install the driver"];
    page_says(space, node, "/readyz", &words).await?;
    page_says(space, node, "/healthz", &["200 OK"]).await?;
    let pod = space.pod_is("runs", "Running").await?;
    ensure!(pod.metadata.deletion_timestamp.is_none(), "a running pod is ended for it");

    // A driver of long ago: it starts, and knows nothing of MIG.
    let source = library.with_extension("c");
    fs::write(
        &source,
        "int nvmlInit_v2(void) { return 0; }\nint nvmlInitWithFlags(unsigned f) { return 0; }\n\
         int nvmlShutdown(void) { return 0; }\nconst char *nvmlErrorString(int e) { return \"\"; }\n",
    )?;
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([library, source.as_path()])
        .stdin(Stdio::null())
        .output()
        .await
        .context("cannot run cc, which Rust needs anyway")?;
    ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    node.agent().kill();
    page_says(space, node, "/readyz", &["503", "is too old: it has no", "install driver 525 or newer"]).await
}
