//! Bad input gets a clear answer, and nothing is lost by it.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use libtest_mimic::Trial;
use nvml_emulator::{Action, Moment};
use serde_json::json;
use vingt_crds::{Tenant, TrainingJob, names};
use vingt_e2e::wait_for;

use crate::agents::published;
use crate::http::User;
use crate::manifests::job;
use crate::space::{SOON, Space, emulator, partitions};
use crate::suite::{Needs, Suite};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("bad input: what the API server refuses, with words", Needs::mig("refused", 0), |s| {
            Box::pin(refused(s))
        }),
        suite.trial("bad input: what is fixed at creation", Needs::mig("fixed", 0), |s| Box::pin(fixed(s))),
        suite.trial("bad input: a template that no pod can be made of", Needs::mig("template", 0), |s| {
            Box::pin(template(s))
        }),
        suite.trial(
            "bad input: forms of claims that are not served say what to write",
            Needs::mig("forms", 1),
            |s| Box::pin(forms(s)),
        ),
        suite.trial("bad input: a tenant that selects another's namespace", Needs::mig("thief", 1), |s| {
            Box::pin(thief(s))
        }),
        suite.trial("bad input: a tenant that is deleted under its jobs", Needs::mig("orphans", 1), |s| {
            Box::pin(tenant_deleted(s))
        }),
        suite.trial("bad input: deletion while preparing", Needs::mig("hasty", 1), |s| Box::pin(hasty(s))),
        suite.trial("bad input: a node that is deleted comes back", Needs::mig("nodegone", 2), |s| {
            Box::pin(node_deleted(s))
        }),
        suite.trial("bad input: a node that falls silent", Needs::mig("silent", 2), |s| {
            Box::pin(node_silent(s))
        }),
    ]
}

const JOB: &str = "
apiVersion: vingt.dev/v1alpha1
kind: TrainingJob
metadata: {name: x}
spec:
  workers: 1
  gpu: {profile: 1g.10gb}
  template: {spec: {containers: [{name: c, image: example.invalid/x}]}}
";

async fn refused(space: &Space<'_>) -> Result<()> {
    let cases = [
        ("workers: 1", "workers: 0", "greater than or equal to 1"),
        ("workers: 1", "workers: 10000", "less than or equal to 4096"),
        ("workers: 1", "workers: -3", "greater than or equal to 1"),
        ("workers: 1", "workers: many", "must be of type integer"),
        ("profile: 1g.10gb", "profile: 1g.10gb, memory: 10Gi", "exactly one of profile"),
        ("profile: 1g.10gb", "profile: 1g.10gb, count: 1", "exactly one of profile"),
        ("profile: 1g.10gb", "", "exactly one of profile"),
        ("profile: 1g.10gb", "profile: big", "not the name of a MIG profile"),
        ("profile: 1g.10gb", "memory: ten gigabytes", "not a positive quantity"),
        ("profile: 1g.10gb", "memory: 10GB", "not a positive quantity"),
        ("profile: 1g.10gb", "memory: \"-1Gi\"", "not a positive quantity"),
        ("profile: 1g.10gb", "memory: \"0\"", "not a positive quantity"),
        ("profile: 1g.10gb", "count: 0", "greater than or equal to 1"),
        ("profile: 1g.10gb", "count: 65", "less than or equal to 64"),
        ("[{name: c, image: example.invalid/x}]", "[]", "at least 1 items"),
        ("containers: [{name: c, image: example.invalid/x}]", "", "containers"),
        (
            "metadata: {name: x}",
            "metadata: {name: aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeefff}",
            "at most 52 characters",
        ),
        ("  workers: 1", "  workers: 1\n  readyTimeoutSeconds: 1", "greater than or equal to 10"),
        ("  workers: 1", "  workers: 1\n  restartPolicy: Sometimes", "OnFailure"),
    ];
    for (what, by, words) in cases {
        let yaml = JOB.replace(what, by);
        ensure!(yaml != JOB, "{what:?} is not in the job");
        let answer = space.try_apply(&yaml).await.with_context(|| yaml.clone())?;
        let said = answer.message();
        ensure!((400..500).contains(&answer.code), "{by:?} was accepted with {}", answer.code);
        ensure!(said.contains(words), "{by:?} is refused without {words:?}: {said}");
    }
    let tenants = [
        ("spec: {namespaces: {}}", "an empty selector would take every namespace"),
        ("spec: {namespaces: {names: [a]}, limitGPUs: lots}", "not a number of GPUs"),
        ("spec: {namespaces: {names: [a]}, limitGPUs: -1}", "not a number of GPUs"),
        (
            "spec: {namespaces: {names: [a]}, limitGPUs: 1, guaranteedGPUs: 2}",
            "must be at least guaranteedGPUs",
        ),
    ];
    for (spec, words) in tenants {
        let yaml =
            format!("{{apiVersion: vingt.dev/v1alpha1, kind: Tenant, metadata: {{name: bad}}, {spec}}}");
        let answer = space.try_apply(&yaml).await?;
        ensure!((400..500).contains(&answer.code), "{spec} was accepted");
        ensure!(answer.message().contains(words), "{spec}: {}", answer.message());
    }
    Ok(())
}

async fn fixed(space: &Space<'_>) -> Result<()> {
    space.apply(&JOB.replace("workers: 1", "suspend: true\n  workers: 1")).await?;
    space.training_is("x", "Suspended").await?;
    let object = space.read(JOB)?.pop().context("no job")?;
    let spec = |patch| json!({"spec": patch});
    let template = json!({"spec": {"containers": [{"name": "c", "image": "example.invalid/y"}]}});
    for (patch, words) in [
        (json!({"workers": 2}), "workers cannot be changed after creation: make a new job"),
        (json!({"gpu": {"profile": "2g.20gb"}}), "gpu cannot be changed after creation: make a new job"),
        (
            json!({"gpu": {"profile": null, "count": 1}}),
            "gpu cannot be changed after creation: make a new job",
        ),
        (json!({"template": template}), "template cannot be changed after creation: make a new job"),
    ] {
        let answer = space.patch(&User::default(), &object, "", spec(patch.clone())).await?;
        ensure!((400..500).contains(&answer.code), "{patch} was accepted");
        ensure!(answer.message().contains(words), "{patch}: {}", answer.message());
    }
    // What may change does.
    let answer = space.patch(&User::default(), &object, "", spec(json!({"priority": 5}))).await?;
    ensure!(answer.code == 200, "priority cannot be changed: {}", answer.message());
    Ok(())
}

async fn template(space: &Space<'_>) -> Result<()> {
    let cases = [
        // Not of the right type; the operator's watch must outlive it.
        ("type", "{spec: {containers: [{name: c, image: 7}]}}", "image"),
        // Of the right type, and still nothing the API server takes.
        (
            "invalid",
            "{spec: {containers: [{name: c, image: x, ports: [{containerPort: 99999}]}]}}",
            "containerPort",
        ),
        ("name", "{spec: {containers: [{name: UPPER, image: x}]}}", "UPPER"),
        ("node", "{spec: {nodeName: node-0, containers: [{name: c, image: x}]}}", "nodeName"),
    ];
    for (name, template, words) in cases {
        space
            .apply(&format!(
                "{{apiVersion: vingt.dev/v1alpha1, kind: TrainingJob, metadata: {{name: {name}}}, \
                 spec: {{workers: 1, gpu: {{profile: 1g.10gb}}, template: {template}}}}}"
            ))
            .await?;
        let said = wait_for(SOON, &format!("job {name} to say what is wrong"), || async {
            let status = space.training(name).await?;
            ensure!(status.why.contains(words), "{} {:?}", status.state, status.why);
            Ok(Some(status))
        })
        .await?;
        ensure!(said.state != "Running" && said.state != "Succeeded", "{name} is {}", said.state);
        ensure!(said.assignments.is_empty() || said.state != "Invalid", "an invalid job holds a plan");
        space.delete::<TrainingJob>(name).await?;
        wait_for(SOON, "the job to be gone", || async {
            Ok(space.api::<TrainingJob>().get_opt(name).await?.is_none().then_some(()))
        })
        .await?;
    }
    space.uses(0).await
}

async fn forms(space: &Space<'_>) -> Result<()> {
    let pod = |name: &str, claims: &str, uses: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeSelector: @nodes, \
             resourceClaims: {claims}, \
             containers: [{{name: c, image: example.invalid/x, resources: {{claims: {uses}}}}}]}}}}"
        )
    };
    // Two partitions in one container: no CUDA program can use the second.
    let two = "[{name: a, resourceClaimTemplateName: mig-1g.10gb}, {name: b, resourceClaimTemplateName: mig-1g.10gb}]";
    space.apply(&pod("two", two, "[{name: a}, {name: b}]")).await?;
    space.waits_for("two", "container").await?;
    // A class that selects our devices without our name gets none.
    space
        .apply(
            "
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: typo}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: mig-9g.99gb.vingt.dev}}]}}
",
        )
        .await?;
    space.apply(&pod("typo", "[{name: gpu, resourceClaimName: typo}]", "[{name: gpu}]")).await?;
    // A claim that nobody made.
    space.apply(&pod("absent", "[{name: gpu, resourceClaimName: absent}]", "[{name: gpu}]")).await?;
    space.waits_for("absent", "absent").await?;
    // A selector that does not compile, or asks for what there is not.
    space
        .apply(
            "
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: picky}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: mig.vingt.dev, selectors: [{cel: {expression: 'device.attributes[\"gpu.vingt.dev\"].profile == \"8g.96gb\"'}}]}}]}}
",
        )
        .await?;
    space.apply(&pod("picky", "[{name: gpu, resourceClaimName: picky}]", "[{name: gpu}]")).await?;
    space.waits_for("picky", "no device").await?;
    let answer = space
        .try_apply(
            "{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {name: any}, spec: {devices: {requests: \
             [{name: gpu, firstAvailable: [{name: a, deviceClassName: mig-1g.10gb.vingt.dev}]}]}}}",
        )
        .await?;
    ensure!(answer.code >= 400 && answer.message().contains("firstAvailable"), "{}", answer.message());
    space.uses(0).await
}

async fn thief(space: &Space<'_>) -> Result<()> {
    space.apply(&job("before", 1, "profile: 1g.10gb")).await?;
    space.training_is("before", "Running").await?;
    let tenants: Api<Tenant> = Api::all(space.admin.clone());
    let name = format!("{}-thief", space.name);
    let yaml = format!(
        "{{apiVersion: vingt.dev/v1alpha1, kind: Tenant, metadata: {{name: {name}}}, \
         spec: {{namespaces: {{names: [@space, kube-system]}}}}}}"
    );
    space.apply(&yaml).await?;
    let told = wait_for(SOON, "the second tenant to be told", || async {
        let status = tenants.get(&name).await?.status.unwrap_or_default();
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready");
        Ok(ready.filter(|ready| ready.status == "False"))
    })
    .await;
    let namespaces: Api<Namespace> = Api::all(space.admin.clone());
    let labels = namespaces.get(&space.name).await?.metadata.labels.unwrap_or_default();
    let system = namespaces.get("kube-system").await?.metadata.labels.unwrap_or_default();
    tenants.delete(&name, &DeleteParams::default()).await?;
    let message = told?.message;
    for words in
        [format!("namespace {} is already tenant {}'s", space.name, space.name), "kube-system".to_owned()]
    {
        ensure!(message.contains(&words), "it is told {message:?}");
    }
    ensure!(labels.get(names::TENANT_LABEL) == Some(&space.name), "the namespace changed hands");
    ensure!(!system.contains_key(names::TENANT_LABEL), "kube-system became a tenant's");
    // Nothing of the first is lost.
    space.training_is("before", "Running").await?;
    space.uses(8).await
}

async fn tenant_deleted(space: &Space<'_>) -> Result<()> {
    space.apply(&job("runs", 2, "profile: 1g.10gb")).await?;
    space.training_is("runs", "Running").await?;
    let held = space.holds(2).await?;
    let tenants: Api<Tenant> = Api::all(space.admin.clone());
    tenants.delete(&space.name, &DeleteParams::default()).await?;
    let namespaces: Api<Namespace> = Api::all(space.admin.clone());
    wait_for(SOON, "the namespace to be nobody's", || async {
        let labels = namespaces.get(&space.name).await?.metadata.labels.unwrap_or_default();
        Ok((!labels.contains_key(names::TENANT_LABEL)).then_some(()))
    })
    .await?;
    space.apply(&job("late", 1, "profile: 1g.10gb")).await?;
    wait_for(SOON, "a new job to say that it is nobody's", || async {
        Ok(space.training("late").await?.why.contains("belongs to no tenant").then_some(()))
    })
    .await?;
    // What ran runs on, and gives everything back when it ends.
    ensure!(
        space.training("runs").await?.state == "Running",
        "the running job is {:?}",
        space.training("runs").await?
    );
    ensure!(space.holds(2).await? == held, "the running job holds something else");
    space.delete::<TrainingJob>("runs").await?;
    space.delete::<TrainingJob>("late").await?;
    wait_for(SOON, "both jobs to be gone", || async {
        let left = space.api::<TrainingJob>().list(&ListParams::default()).await?;
        Ok((left.items.is_empty() && space.pods().await?.is_empty()).then_some(()))
    })
    .await?;
    space.nodes_are_empty().await
}

async fn hasty(space: &Space<'_>) -> Result<()> {
    let node = space.node(0)?;
    let gpus = emulator(node)?;
    for function in ["nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceCreateComputeInstance"] {
        gpus.inject(function, 1, Action::DelayMs(3_000), Moment::After)?;
        space.apply(&job("hasty", 2, "profile: 1g.10gb")).await?;
        wait_for(SOON, "the agent to be in the middle of it", || async {
            Ok(gpus.faults()?.iter().any(|fault| fault.fired_in.is_some()).then_some(()))
        })
        .await?;
        space.delete::<TrainingJob>("hasty").await?;
        wait_for(SOON, "the job and its pods to be gone", || async {
            let gone = space.api::<TrainingJob>().get_opt("hasty").await?.is_none();
            Ok((gone && space.pods().await?.is_empty()).then_some(()))
        })
        .await?;
        gpus.clear_faults()?;
        space.nodes_are_empty().await?;
        space.uses(0).await?;
    }
    // By force, so that the claim goes before the partition does.
    gpus.inject("nvmlGpuInstanceCreateComputeInstance", 1, Action::DelayMs(3_000), Moment::After)?;
    space.apply(&job("hasty", 1, "profile: 1g.10gb")).await?;
    wait_for(SOON, "the agent to be in the middle of it", || async {
        Ok(gpus.faults()?.iter().any(|fault| fault.fired_in.is_some()).then_some(()))
    })
    .await?;
    let pod = space.pods().await?.pop().and_then(|pod| pod.metadata.name).context("no pod")?;
    space.api::<Pod>().delete(&pod, &DeleteParams::default().grace_period(0)).await?;
    space.delete::<TrainingJob>("hasty").await?;
    wait_for(SOON, "the job and its pods to be gone", || async {
        let gone = space.api::<TrainingJob>().get_opt("hasty").await?.is_none();
        Ok((gone && space.pods().await?.is_empty()).then_some(()))
    })
    .await?;
    gpus.clear_faults()?;
    space.nodes_are_empty().await
}

async fn node_deleted(space: &Space<'_>) -> Result<()> {
    space.apply(&job("x", 2, "profile: 3g.40gb")).await?;
    let nodes_of = space.training_is("x", "Running").await?.nodes;
    let node = space.nodes().find(|node| node.name() == nodes_of).context("the gang is on several nodes")?;
    let nodes: Api<Node> = Api::all(space.admin.clone());
    let mut object = nodes.get(node.name()).await?;
    nodes.delete(node.name(), &DeleteParams::default()).await?;
    // The gang goes to the other one, whole.
    let moved = wait_for(SOON, "the gang to run on the other node", || async {
        let status = space.training("x").await?;
        ensure!(
            status.state == "Running" && status.nodes != nodes_of,
            "{} {}: {}",
            status.state,
            status.nodes,
            status.why
        );
        Ok(Some(status))
    })
    .await;
    // As its kubelet would, when it is back.
    object.metadata.resource_version = None;
    object.metadata.uid = None;
    object.metadata.creation_timestamp = None;
    let status = object.status.take();
    nodes.create(&PostParams::default(), &object).await?;
    let patch = kube::api::Patch::Merge(json!({"status": status}));
    nodes.patch_status(node.name(), &kube::api::PatchParams::default(), &patch).await?;
    moved?;
    wait_for(SOON, "the node to publish its devices again", || async {
        Ok((published(space, node.name()).await?.len() == 8).then_some(()))
    })
    .await?;
    wait_for(SOON, "what the gang left there to be gone", || async {
        Ok(partitions(node)?.is_empty().then_some(()))
    })
    .await?;
    space.uses(56).await
}

async fn node_silent(space: &Space<'_>) -> Result<()> {
    space.apply(&job("x", 2, "profile: 3g.40gb")).await?;
    let nodes_of = space.training_is("x", "Running").await?.nodes;
    let node = space.nodes().find(|node| node.name() == nodes_of).context("the gang is on several nodes")?;
    node.power_off().await;
    let result = after_silence(space, &nodes_of).await;
    node.start().await?;
    result?;
    // When it is back, nothing of the gang is left there and it is as good as any.
    wait_for(SOON, "the node to publish its devices again", || async {
        Ok((published(space, node.name()).await?.len() == 8).then_some(()))
    })
    .await?;
    space.delete::<TrainingJob>("x").await?;
    space.delete::<TrainingJob>("y").await?;
    space.nodes_are_empty().await
}

/// Until the control plane believes that the node is gone, its devices stay
/// held; from then on nothing new is placed there.
async fn after_silence(space: &Space<'_>, silent: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(space.admin.clone());
    wait_for(SOON, "the silent node to count as not ready", || async {
        let node = nodes.get(silent).await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|found| found.type_ == "Ready" && found.status != "True").then_some(()))
    })
    .await?;
    space.apply(&job("y", 1, "profile: 3g.40gb")).await?;
    let status = space.training_is("y", "Running").await?;
    ensure!(status.nodes != silent, "placed on a node that is not ready");
    let held = space.held().await?;
    let on_silent = held.values().flatten().filter(|(node, _)| node == silent).count();
    ensure!(
        on_silent == 2,
        "{on_silent} devices of the silent node are held: nobody knows that they are free"
    );
    Ok(())
}
