//! The sovereign reserve in a real cluster: what is lent leaves for who draws on
//! it and comes back, and what cannot leave is not let into its way. The ledger
//! has trials of its own.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use libtest_mimic::Trial;
use vingt_crds::{Basis, SovereignReserve, Tenant, TrainingJob, names};
use vingt_e2e::wait_for;

use crate::manifests::gang;
use crate::scheduling::{in_lab, last, waits};
use crate::space::{SOON, Space};
use crate::suite::Suite;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.plain("reserve: what is lent leaves for a sovereign job, and comes back", move || {
        Box::pin(in_lab("reserve", |space| Box::pin(claimed(space))))
    })]
}

/// May be asked to leave within the reserve's grace.
const LENT: &str = "checkpoint: {graceSeconds: 2}";

async fn claimed(space: &Space<'_>) -> Result<()> {
    let state = format!("{}-state", space.name);
    space
        .apply(&format!(
            "
apiVersion: v1
kind: Namespace
metadata: {{name: {state}}}
---
apiVersion: vingt.dev/v1alpha1
kind: Tenant
metadata: {{name: {state}}}
spec: {{namespaces: {{names: [{state}]}}, class: sovereign}}
---
apiVersion: vingt.dev/v1alpha1
kind: SovereignReserve
metadata: {{name: {state}}}
spec:
  instantClaim: {{withinSeconds: 20, graceSeconds: 5, shapes: [{{profile: 3g.40gb, count: 1}}]}}
"
        ))
        .await?;
    let result = taken(space, &state).await;
    let admin = || space.admin.clone();
    Api::<SovereignReserve>::all(admin()).delete(&state, &DeleteParams::default()).await?;
    let namespaces: Api<Namespace> = Api::all(admin());
    namespaces.delete(&state, &DeleteParams::default()).await?;
    let gone = || async { Ok(namespaces.get_opt(&state).await?.is_none().then_some(())) };
    wait_for(SOON, "the sovereign namespace to be gone", gone).await?;
    Api::<Tenant>::all(admin()).delete(&state, &DeleteParams::default()).await?;
    result
}

async fn taken(space: &Space<'_>, state: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(space.admin.clone());
    wait_for(SOON, "the sovereign namespace to be a tenant's", || async {
        let labels = namespaces.get(state).await?.metadata.labels.unwrap_or_default();
        Ok((labels.get(names::TENANT_LABEL).map(String::as_str) == Some(state)).then_some(()))
    })
    .await?;
    let reserves: Api<SovereignReserve> = Api::all(space.admin.clone());
    wait_for(SOON, "the reserve to have tokens", || async {
        let status = reserves.get(state).await?.status.unwrap_or_default();
        Ok(status.tokens.filter(|tokens| tokens.unit_ms > 0).map(drop))
    })
    .await?;
    // Three halves may be held by who stays; the fourth is promised, and only lent.
    space.apply(&gang("stays", 3, "profile: 3g.40gb", "checkpoint: {graceSeconds: 60}")).await?;
    space.training_is("stays", "Running").await?;
    space.apply(&gang("slow", 1, "profile: 3g.40gb", "checkpoint: {graceSeconds: 60}")).await?;
    waits(space, "slow", "what a sovereign reserve promises could not be delivered").await?;
    space.apply(&gang("lent", 1, "profile: 3g.40gb", LENT)).await?;
    space.training_is("lent", "Running").await?;
    space.holds(4).await?;
    wait_for(SOON, "the reserve to say what is lent", || async {
        let lent = reserves.get(state).await?.status.unwrap_or_default().lent.unwrap_or_default();
        Ok((lent.units == 28 && lent.to.first().is_some_and(|to| to.tenant == space.name)).then_some(()))
    })
    .await?;

    let jobs: Api<TrainingJob> = Api::namespaced(space.admin.clone(), state);
    let own = gang("own", 1, "profile: 3g.40gb", "")
        .replace("{name: own}", &format!("{{name: own, namespace: {state}}}"));
    space.apply(&own).await?;
    let status = wait_for(SOON, "the sovereign job to run", || async {
        let status = jobs.get("own").await?.status.unwrap_or_default();
        Ok((status.state == "Running").then_some(status))
    })
    .await?;
    ensure!(status.basis == Basis::Claimed, "it runs as {:?}", status.basis);
    let by = format!("TrainingJob/{state}/own");
    let lent = space.training("lent").await?;
    let (count, eviction) = last(&lent)?;
    ensure!(count == 1 && eviction.reason == "Claimed" && eviction.by == by, "{count}: {eviction:?}");
    ensure!(space.training("stays").await?.state == "Running", "one that stays has left");
    let tokens = || async {
        let status = reserves.get(state).await?.status.unwrap_or_default();
        Ok::<_, anyhow::Error>(status.tokens.map_or(0, |tokens| tokens.unit_ms))
    };
    let before = tokens().await?;
    wait_for(SOON, "tokens to be spent", || async { Ok((tokens().await? < before).then_some(())) }).await?;
    jobs.delete("own", &DeleteParams::default()).await?;
    space.training_is("lent", "Running").await?;
    space.holds(4).await.map(drop)
}
