//! `InferenceJobs`: keeps their Deployment, Service and claim template as the
//! spec says, and writes their status. Their replicas are decided like
//! anybody's pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use vingt_crds::InferenceJob;

use super::api::{Failure, Target, Writer};
use super::events::{Announcement, job_reference};
use super::pods::one;
use super::{Engine, ensure, foreign, owned_by};
use crate::jobs::objects::{self, GENERATION, Parent, deployed_replicas};
use crate::jobs::server::{self, Replicas};
use crate::jobs::template::claim_template_name;
use crate::snapshot::members::Members;
use crate::snapshot::no_tenant;
use crate::snapshot::pods::pod_workload;
use crate::tenants::Tenancy;
use crate::world::{Change, Deployment, Key, Owned, ServiceKind, TemplateKind, View};

impl Engine {
    /// Looks after all servers; `waits` says why pods wait.
    pub(super) fn follow_servers(
        &mut self,
        tenancy: &Tenancy,
        members: &Members,
        waits: &BTreeMap<Key, String>,
        now: Timestamp,
    ) {
        let jobs: Vec<_> =
            self.world.inference_jobs.iter().map(|(key, job)| (key.clone(), job.clone())).collect();
        for (key, job) in jobs.into_iter().filter(|(_, job)| job.metadata.deletion_timestamp.is_none()) {
            let tenant = tenancy.tenant(&key.namespace);
            let object = format!("InferenceJob/{key}");
            let told_of = job.status.as_ref().and_then(|status| status.observed_generation);
            if told_of != job.metadata.generation && !self.busy.contains(&object) {
                // What was refused before says nothing of a new spec.
                self.failed.remove(&object);
                self.refusals.remove(&object);
            }
            let deployment = objects::deployment(&job);
            let homeless = tenant.is_none().then(|| no_tenant(&key.namespace));
            if let (Ok(deployment), None) = (&deployment, &homeless)
                && self.stale_server(&key, &job)
                && self.free(&object)
            {
                self.write_server(object.clone(), &key, &job, deployment.clone());
            }
            let (mut invalid, mut waits_for) = (deployment.err(), homeless);
            match self.refusals.get(&object) {
                Some(Failure::Invalid(why)) => invalid = Some(why.clone()),
                Some(failure) => waits_for = Some(failure.words().to_owned()),
                None => {}
            }
            let known = self.replicas(&key, members, waits);
            let mut status =
                server::next(&job, &known, tenant, invalid.as_deref(), waits_for.as_deref(), now);
            let gated = members.replicas(&key).iter().map(pod_workload).collect::<Vec<_>>();
            let first = self.forecasts.first(gated.iter().map(String::as_str));
            let old = status.expected_start.take();
            status.expected_start = first
                .filter(|_| status.waiting_since.is_some())
                .and_then(|first| self.forecasts.say(first, old.as_ref(), now.as_millisecond()));
            self.tell_server(&key, &job, &status);
        }
    }

    /// Whether an object of the server is missing or not as the spec says.
    fn stale_server(&self, key: &Key, job: &InferenceJob) -> bool {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let generation = job.metadata.generation.unwrap_or(0).to_string();
        let wanted = i32::try_from(deployed_replicas(job)).unwrap_or(i32::MAX);
        let deployment = self.world.deployments.get(key).is_some_and(|deployment| {
            deployment.owner.as_ref().is_some_and(|owner| owner.uid == uid)
                && deployment.replicas == wanted
                && deployment.marks.get(GENERATION) == Some(&generation)
        });
        let service =
            self.world.services.get(key).filter(|s| s.owner.as_ref().is_some_and(|owner| owner.uid == uid));
        let service = match (job.spec.port, service) {
            (Some(_), Some(service)) => service.marks.get(GENERATION) == Some(&generation),
            (None, None) => true,
            _ => false,
        };
        let template =
            self.world.templates.get(&Key::new(&key.namespace, &claim_template_name(&key.name))).is_some();
        let deleting = self.world.deployments.get(key).is_some_and(|deployment| deployment.deleting);
        !(deleting || deployment && service && template)
    }

    fn write_server(&mut self, object: String, key: &Key, job: &Arc<InferenceJob>, deployment: Value) {
        let (key, job) = (key.clone(), job.clone());
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let service_uid =
            self.world.services.get(&key).filter(|s| s.owner.as_ref().is_some_and(|owner| owner.uid == uid));
        let superfluous = service_uid.filter(|_| job.spec.port.is_none()).map(|service| service.uid.clone());
        self.start(object, |writer| async move {
            let mut changes = Vec::new();
            let result = async {
                let parent = Parent::inference(&job);
                let template_key = Key::new(&key.namespace, &claim_template_name(&key.name));
                let target = Target::object::<ResourceClaimTemplate>(&template_key);
                changes.push(
                    ensure::<Owned<TemplateKind>>(
                        &writer,
                        &target,
                        &parent.claim_template(&job.spec.gpu),
                        &uid,
                    )
                    .await?,
                );
                let target = Target::object::<core::Service>(&key);
                if let Some(port) = job.spec.port {
                    changes.push(
                        apply::<Owned<ServiceKind>>(&writer, &target, &parent.service(Some(port)), &uid)
                            .await?,
                    );
                } else if let Some(uid) = superfluous {
                    writer.delete(&target, &uid).await?;
                }
                let target = Target::object::<apps::Deployment>(&key);
                changes.push(apply::<Deployment>(&writer, &target, &deployment, &uid).await?);
                Ok(())
            }
            .await;
            (changes, result)
        });
    }

    fn replicas(&self, key: &Key, members: &Members, waits: &BTreeMap<Key, String>) -> Replicas {
        let mut known = Replicas::default();
        let pods = members.replicas(key).iter().filter_map(|pod| Some((pod, self.world.pods.get(pod)?)));
        for (pod_key, pod) in pods.filter(|(_, pod)| !pod.ended && !pod.deleting) {
            known.there += 1;
            known.ready += u32::from(pod.ready);
            known.nodes.extend(pod.node.clone());
            if pod.gated() {
                known.gated += 1;
                let why = waits
                    .get(pod_key)
                    .cloned()
                    .or_else(|| Some(pod.waiting().to_owned()).filter(|why| !why.is_empty()));
                known.why = known.why.take().or(why);
            } else if let Some((message, _)) = &pod.unschedulable
                && pod.node.is_none()
            {
                known.why = known
                    .why
                    .take()
                    .or_else(|| Some(format!("kube-scheduler cannot place a replica: {message}")));
            }
        }
        known
    }

    fn tell_server(&mut self, key: &Key, job: &Arc<InferenceJob>, new: &vingt_crds::InferenceJobStatus) {
        let old = job.status.clone().unwrap_or_default();
        if Some(new) == job.status.as_ref() {
            return;
        }
        let object = format!("InferenceJob/{key}/status");
        let only_words =
            old.state == new.state && old.ready == new.ready && !old.state.is_empty() && old.why != new.why;
        if !self.free_for_words(&object) || (only_words && !self.may_tell(&object, false)) {
            return;
        }
        if old.state != new.state {
            tracing::info!(job = %key, from = %old.state, to = %new.state, why = %new.why, "state");
            let about = job_reference("InferenceJob", key, &job.metadata);
            let note = if new.why.is_empty() {
                format!("{} replicas are ready", new.ready)
            } else {
                new.why.clone()
            };
            let announcement = if matches!(new.state.as_str(), "Running" | "Starting" | "Suspended") {
                Announcement::normal(about, &new.state, "Reconcile", note)
            } else {
                Announcement::warning(about, &new.state, "Reconcile", note)
            };
            self.announce(&object, announcement);
        }
        let body = json!({
            "apiVersion": "vingt.dev/v1alpha1", "kind": "InferenceJob",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": job.metadata.uid, "resourceVersion": job.metadata.resource_version},
            "status": new,
        });
        let target = Target::status::<InferenceJob>(key);
        self.start(object, |writer| async move { one(writer.apply::<InferenceJob>(&target, &body).await) });
    }
}

/// Applies an object, unless one of that name belongs to somebody else.
async fn apply<V: View>(
    writer: &Writer,
    target: &Target,
    object: &Value,
    owner_uid: &str,
) -> Result<Change, Failure> {
    match writer.read(target).await {
        Ok(there) if !owned_by(&there, owner_uid) => return Err(foreign(target)),
        Ok(_) | Err(Failure::Stale) => {}
        Err(failure) => return Err(failure),
    }
    writer.apply::<V>(target, object).await
}
