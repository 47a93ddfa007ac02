//! What somebody with the stock role `edit` tries against running pods, gated
//! pods and a deciding operator. (Each request by itself, without the operator,
//! is in `policies.rs`.)

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use vingt_crds::{Tenant, names};
use vingt_e2e::wait_for;

use crate::http::{Call, User};
use crate::manifests::{job, pod as pod_with};
use crate::space::{SOON, Space, gated};
use crate::suite::{Needs, Suite};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    let limited = |id| Needs { limit: Some("1"), ..Needs::mig(id, 1) };
    vec![
        suite.trial("tenant: cannot take, keep or give itself a device", limited("edit"), |s| {
            Box::pin(edit(s))
        }),
        suite.trial(
            "tenant: a claim of a class of one's own stays fenced",
            Needs { limit: None, ..Needs::mig("fence", 1) },
            |s| Box::pin(fence(s)),
        ),
        suite.trial(
            "tenant: a claim template that is in the way of a ready-made one is named",
            Needs { limit: None, ..Needs::mig("template", 0) },
            |s| Box::pin(template(s)),
        ),
    ]
}

/// Somebody who has the stock role `edit` in the namespace.
async fn alice(space: &Space<'_>) -> Result<User> {
    let name = format!("{}-alice", space.name);
    space
        .apply(&format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: edit}}, \
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}, \
             subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {name}}}]}}"
        ))
        .await?;
    let user: User = serde_json::from_value(json!({"user": name}))?;
    // Bindings take a moment to count.
    let probe =
        space.read("{apiVersion: v1, kind: ConfigMap, metadata: {name: probe}}")?.pop().context("none")?;
    wait_for(SOON, "the role to count", || async {
        let answer = space.create(&user, &probe).await?;
        Ok((answer.code < 300).then_some(()))
    })
    .await?;
    Ok(user)
}

async fn template(space: &Space<'_>) -> Result<()> {
    space
        .apply(
            "
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: gpu}
spec: {spec: {devices: {requests: [{name: mine, exactly: {deviceClassName: gpu.vingt.dev}}]}}}
---
apiVersion: vingt.dev/v1alpha1
kind: Tenant
metadata: {name: @space}
spec: {namespaces: {names: [@space]}}
",
        )
        .await?;
    let tenants: Api<Tenant> = Api::all(space.admin.clone());
    let says = async |status: &str, words: &str| {
        wait_for(SOON, &format!("the tenant to be ready: {status}, {words:?}"), || async {
            let conditions = tenants.get(&space.name).await?.status.unwrap_or_default().conditions;
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            Ok(ready.filter(|ready| ready.status == status && ready.message.contains(words)).map(drop))
        })
        .await
    };
    let words = format!("ResourceClaimTemplate {}/gpu: there is another one of that name", space.name);
    says("False", &words).await?;
    space.delete::<ResourceClaimTemplate>("gpu").await?;
    says("True", "have the claim templates").await
}

fn target(space: &Space<'_>, version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": space.name}})
}

async fn edit(space: &Space<'_>) -> Result<()> {
    let user = alice(space).await?;
    let create = async |yaml: &str| -> Result<u16> {
        let object = space.read(yaml)?.pop().context("no object")?;
        let answer = space.create(&user, &object).await?;
        ensure!(answer.code < 300, "alice cannot make {yaml}: {}", answer.message());
        Ok(answer.code)
    };
    create(&job("runs", 2, "profile: 3g.40gb")).await?;
    space.training_is("runs", "Running").await?;
    create(&job("late", 1, "profile: 1g.10gb")).await?;
    create(&pod_with("gated", "mig-1g.10gb")).await?;
    space.waits_for("gated", "left").await?;

    let worker = space.pods().await?.into_iter().find(|pod| pod.name_any().starts_with("runs-"));
    let worker = worker.context("the gang has no pod")?;
    let claims = space.api::<ResourceClaim>().list(&ListParams::default()).await?.items;
    let of = |prefix: &str| {
        let found = claims.iter().map(ResourceExt::name_any).find(|name| name.starts_with(prefix));
        found.with_context(|| format!("no claim {prefix}"))
    };
    let (held, free) = (of("runs-")?, of("gated-")?);
    let claim = |name: &str| target(space, "resource.k8s.io/v1", "ResourceClaim", name);
    let pod = |name: &str| target(space, "v1", "Pod", name);
    let record = json!({"metadata": {"annotations": {names::DECISION: "{}"}}});
    let no_record = json!({"metadata": {"annotations": {names::DECISION: null}}});
    let allocation = json!({"status": {"allocation": {"devices": {"results": [
        {"request": "gpu", "driver": names::DRIVER, "pool": space.node(0)?.name(), "device": "gpu-0-mig-1g10gb-19-0"},
    ]}}}});
    let none = json!({"status": null});
    let no_finalizer = json!({"metadata": {"finalizers": null}});
    let labels = json!({"metadata": {"labels": {names::TENANT_LABEL: "other"}}});
    let no_gate = json!({"spec": {"schedulingGates": null}});
    let node_name = json!({"spec": {"nodeName": space.node(0)?.name()}});
    let job_label = json!({"metadata": {"labels": {names::TRAINING_JOB_LABEL: "runs"}}});
    let training = target(space, "vingt.dev/v1alpha1", "TrainingJob", "runs");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name}});
    let tries = [
        ("take the gate off", pod("gated"), "", no_gate, "only vingt takes the scheduling gate"),
        ("name the node", pod("gated"), "", node_name, "may not change fields"),
        ("pose as a job's worker", pod("gated"), "", job_label, "vingt.dev/"),
        ("write a decision", claim(&free), "", record.clone(), "decision"),
        ("change a decision", claim(&held), "", record, "decision"),
        ("strip a decision", claim(&held), "", no_record, "decision"),
        ("strip a claim's finalizer", claim(&held), "", no_finalizer.clone(), "finalizer"),
        ("allocate a claim", claim(&free), "status", allocation, "resourceclaims/status"),
        ("deallocate a claim", claim(&held), "status", none, "resourceclaims/status"),
        ("strip a job's finalizer", training.clone(), "", no_finalizer, "finalizer"),
        (
            "write a job's status",
            training,
            "status",
            json!({"status": {"assignments": []}}),
            "trainingjobs/status",
        ),
        ("change the tenant", namespace, "", labels, "namespaces"),
    ];
    for (what, target, subresource, patch, words) in tries {
        let answer = space.patch(&user, &target, subresource, patch).await?;
        ensure!((400..500).contains(&answer.code), "alice may {what}: {}", answer.code);
        ensure!(answer.message().contains(words), "{what}: refused without {words:?}: {}", answer.message());
    }
    for (what, yaml, words) in REFUSED {
        let object = space.read(&yaml.replace("@node", space.node(0)?.name()))?.pop().context("no object")?;
        let answer = space.create(&user, &object).await?;
        ensure!((400..500).contains(&answer.code), "alice may {what}");
        ensure!(answer.message().contains(words), "{what}: refused without {words:?}: {}", answer.message());
    }
    // To delete a claim in use is nobody's business to forbid; it does not go.
    let path = format!("/apis/resource.k8s.io/v1/namespaces/{}/resourceclaims/{held}", space.name);
    let call = Call { method: http::Method::DELETE, path, content: "application/json", body: Value::Null };
    let answer = call.send(&space.admin, &user).await?;
    ensure!(answer.code < 300, "deleting a claim: {}", answer.message());
    let claim = space.api::<ResourceClaim>().get(&held).await?;
    ensure!(claim.status.and_then(|status| status.allocation).is_some(), "the deleted claim lost its device");
    // After all that: as before.
    space.training_is("runs", "Running").await?;
    ensure!(worker.name_any() == space.api::<Pod>().get(&worker.name_any()).await?.name_any());
    ensure!(gated(&space.api::<Pod>().get("gated").await?), "the gate is off");
    space.holds(2).await?;
    space.uses(56).await
}

const REFUSED: [(&str, &str, &str); 5] = [
    (
        "start a pod past the scheduler",
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeName: @node, \
          resourceClaims: [{name: gpu, resourceClaimTemplateName: mig-1g.10gb}], \
          containers: [{name: c, image: x, resources: {claims: [{name: gpu}]}}]}}",
        "may not name its node",
    ),
    (
        "tolerate the fence",
        "{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {name: a}, spec: {devices: {requests: \
          [{name: gpu, exactly: {deviceClassName: mig-1g.10gb.vingt.dev, tolerations: \
          [{key: vingt.dev/managed, operator: Exists}]}}]}}}",
        "vingt.dev/managed",
    ),
    (
        "tolerate everything",
        "{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {name: a}, spec: {devices: {requests: \
          [{name: gpu, exactly: {deviceClassName: mig-1g.10gb.vingt.dev, tolerations: [{operator: Exists}]}}]}}}",
        "key",
    ),
    (
        "ask by an extended resource",
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: x, resources: \
          {limits: {deviceclass.resource.kubernetes.io/mig-1g.10gb.vingt.dev: 1}}}]}}",
        "resourceClaimTemplateName: mig-1g.10gb",
    ),
    (
        "publish a slice",
        "{apiVersion: resource.k8s.io/v1, kind: ResourceSlice, metadata: {name: a}, spec: {driver: gpu.vingt.dev, \
          nodeName: @node, pool: {name: @node, generation: 99, resourceSliceCount: 1}, devices: [{name: gpu-0}]}}",
        "resourceslices",
    ),
];

/// Outside of tenants' namespaces nothing is gated, so the fence alone holds.
async fn fence(space: &Space<'_>) -> Result<()> {
    space
        .apply(
            "
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: anything-@space}
spec: {selectors: [{cel: {expression: 'true'}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: broad}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: anything-@space}}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: broad}
spec:
  nodeSelector: @nodes
  resourceClaims: [{name: gpu, resourceClaimName: broad}]
  containers: [{name: c, image: example.invalid/x, resources: {claims: [{name: gpu}]}}]
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  nodeSelector: @nodes
  containers: [{name: c, image: example.invalid/x}]
",
        )
        .await?;
    // Nothing of vingt's is in the way of a pod outside; the fence is in the
    // way of one that takes any device there is.
    space.pod_is("plain", "Running").await?;
    let pod = wait_for(SOON, "kube-scheduler to find no device", || async {
        let pod = space.api::<Pod>().get("broad").await?;
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let refused = conditions.into_iter().flatten().any(|found| {
            found.type_ == "PodScheduled"
                && found
                    .message
                    .as_deref()
                    .is_some_and(|message| message.contains("cannot allocate all claims"))
        });
        Ok(refused.then_some(pod))
    })
    .await?;
    ensure!(!gated(&pod), "a pod outside tenants' namespaces is gated");
    space.holds(0).await?;
    let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
        "metadata": {"name": format!("anything-{}", space.name)}});
    let path = format!(
        "/apis/resource.k8s.io/v1/deviceclasses/{}",
        class["metadata"]["name"].as_str().unwrap_or_default()
    );
    let call = Call { method: http::Method::DELETE, path, content: "application/json", body: Value::Null };
    call.send(&space.admin, &User::default()).await.map(drop)
}
