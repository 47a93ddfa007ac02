//! The sovereign reserve through the real API server: its balance is told, and
//! every order is answered at once, in words.

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;
use vingt_crds::{OrderState, SovereignOrder, SovereignOrderStatus, SovereignReserve, Tenant};
use vingt_e2e::wait_for;

use crate::space::{SOON, Space};
use crate::suite::{Needs, Suite};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.trial(
        "reserve: its balance is told, and orders are answered",
        Needs::mig("reserve", 1),
        |space| {
            Box::pin(async move {
                let reserves: Api<SovereignReserve> = Api::all(space.admin.clone());
                let result = answered(space, &reserves).await;
                reserves.delete(&space.name, &DeleteParams::default()).await?;
                result
            })
        },
    )]
}

async fn answered(space: &Space<'_>, reserves: &Api<SovereignReserve>) -> Result<()> {
    let reserve: SovereignReserve = serde_json::from_value(json!({
        "apiVersion": "vingt.dev/v1alpha1", "kind": "SovereignReserve", "metadata": {"name": space.name},
        "spec": {"nodeSelector": {"matchLabels": {"lab.vingt.dev/trial": space.name}}, "fraction": "10%",
            "instantClaim": {"shapes": [{"profile": "3g.40gb", "count": 1}]}},
    }))?;
    reserves.create(&kube::api::PostParams::default(), &reserve).await?;
    let status = wait_for(SOON, "the reserve to be ready", || async {
        let status = reserves.get(&space.name).await?.status.unwrap_or_default();
        let ready = status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
        Ok((ready && status.tokens.is_some()).then_some(status))
    })
    .await?;
    ensure!(status.installed_gpus == 8, "{} GPUs are installed", status.installed_gpus);
    let tokens = status.tokens.context("no tokens")?.unit_ms;
    // 10 % of 8 GPUs, 56 units each, over 30 days: a new reserve has a full bucket.
    ensure!(tokens == 8 * 56 * 30 * 24 * 3_600_000 / 10, "{tokens} tokens");

    let tenants: Api<Tenant> = Api::all(space.admin.clone());
    let class = Patch::Merge(json!({"spec": {"class": "sovereign"}}));
    tenants.patch(&space.name, &PatchParams::default(), &class).await?;
    for (name, profile, state) in
        [("half", "3g.40gb", OrderState::Accepted), ("none", "9g.99gb", OrderState::Refused)]
    {
        let status = ask(space, name, profile).await?;
        ensure!(status.state == Some(state) && !status.reason.is_empty(), "order {name}: {status:?}");
    }
    Ok(())
}

/// Asks for a partition for an hour of the day after tomorrow.
async fn ask(space: &Space<'_>, name: &str, profile: &str) -> Result<SovereignOrderStatus> {
    let from = k8s_openapi::jiff::Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_hours(48);
    let until = from + k8s_openapi::jiff::SignedDuration::from_hours(1);
    let order = json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "SovereignOrder", "metadata": {"name": name},
        "spec": {"reserve": "@space", "shapes": [{"profile": profile, "count": 1}],
            "from": format!("{from:.0}"), "until": format!("{until:.0}")}});
    space.apply(&order.to_string()).await?;
    wait_for(SOON, &format!("order {name} to be answered"), || async {
        let status = space.api::<SovereignOrder>().get(name).await?.status.unwrap_or_default();
        Ok(status.state.is_some().then_some(status))
    })
    .await
}
