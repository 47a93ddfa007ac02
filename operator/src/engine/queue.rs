//! The queue: `TrainingJobs` as waiting workloads. Before one is planned the
//! API server is asked, once, whether it would accept its Job.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use tokio::time::Instant;
use vingt_core::lifecycle::not_before_ms;
use vingt_core::model::{DeviceRequest, PodShape, Workload};
use vingt_crds::{ConditionType, GpuRequest, PodTemplate, TrainingJob, TrainingJobStatus, names};

use super::api::Target;
use super::{Engine, Verdict};
use crate::jobs::facts::{self, gang_workload};
use crate::jobs::objects;
use crate::jobs::status::{INVALID, Record};
use crate::snapshot::ask::{MAX_COUNT, class_selectors};
use crate::snapshot::running::grace_of_gang;
use crate::snapshot::{no_tenant, pods};
use crate::tenants::Tenancy;
use crate::world::{Key, node_terms, requests, tolerations};

/// When a job whose objects were refused is asked about again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl Engine {
    /// The gang as a waiting workload, and what its workers need; none while it is being checked. The
    /// error is what its status says instead.
    pub(super) fn queue(
        &mut self,
        key: &Key,
        job: &Arc<TrainingJob>,
        tenancy: &Tenancy,
        now_ms: i64,
    ) -> Result<Option<(Workload, PodShape)>, Record> {
        if !self.checked(key, job)? {
            let refusal = self.refusals.get(&gang_workload(key));
            return refusal.map_or(Ok(None), |failure| Err(Record::Waits(failure.words().to_owned())));
        }
        let Some(tenant) = tenancy.tenant(&key.namespace) else {
            return Err(Record::Waits(no_tenant(&key.namespace)));
        };
        let spec = &job.spec;
        let shape = self.gang_shape(job)?;

        let no_status = TrainingJobStatus::default();
        let status = job.status.as_ref().unwrap_or(&no_status);
        let evicted = facts::condition(&status.conditions, ConditionType::Evicted)
            .filter(|evicted| evicted.status == "True" && status.withdrawals > 0);
        let not_before_ms = evicted.map_or(0, |evicted| {
            not_before_ms(status.withdrawals, evicted.last_transition_time.0.as_millisecond())
        });
        if not_before_ms > now_ms {
            self.look_again_at_ms(not_before_ms);
        }
        let created = || job.metadata.creation_timestamp.as_ref();
        let queued = status.queued_at.as_ref().or(status.waiting_since.as_ref()).or_else(created);
        let workload = Workload {
            key: gang_workload(key),
            tenant: tenant.to_owned(),
            priority: spec.priority,
            queued_ms: queued.map_or(now_ms, |time| time.0.as_millisecond()),
            not_before_ms,
            avoid: status.avoid_nodes.iter().cloned().collect(),
            pods: spec.workers,
            lasting: !spec.preemptible,
            grace_ms: grace_of_gang(job),
            order: spec.order.as_ref().map(|name| format!("{}/{name}", key.namespace)),
            runs_ms: spec.active_deadline_seconds.map(|seconds| {
                // What it has run already does not start anew.
                let ran_ms = status
                    .first_admitted_at
                    .as_ref()
                    .map_or(0, |first| now_ms.saturating_sub(first.0.as_millisecond()).max(0));
                seconds.saturating_mul(1000).saturating_sub(ran_ms).max(0)
            }),
            topology: facts::topology(job),
            ..Workload::default()
        };
        Ok(Some((workload, shape)))
    }

    /// What a worker of a gang needs; the error is what the job's status says of what cannot be.
    pub(super) fn gang_shape(&mut self, job: &TrainingJob) -> Result<PodShape, Record> {
        let request = self.request(&job.spec.gpu)?;
        Ok(PodShape { requests: vec![request], ..self.shape(&job.metadata, &job.spec.template) })
    }

    /// What a pod of a job asks of GPUs.
    pub(super) fn request(&mut self, gpu: &GpuRequest) -> Result<DeviceRequest, Record> {
        let mut asked = objects::asked(gpu);
        if asked.count > MAX_COUNT {
            let why = format!("spec.gpu.count: a worker can have at most {MAX_COUNT} GPUs, for a claim can");
            return Err(Record::Invalid(why));
        }
        let mut selectors = class_selectors(&asked.class, &self.world.classes).map_err(Record::Waits)?;
        selectors.append(&mut asked.selectors);
        asked.selectors = selectors;
        let mut request = pods::request(&asked, &mut self.layout).map_err(Record::Waits)?;
        request.label = if gpu.count.is_some() { "gpu".to_owned() } else { gpu.to_string() };
        Ok(request)
    }

    /// What a pod of a job needs besides its devices; it is read from the template once.
    pub(super) fn shape(&mut self, meta: &ObjectMeta, template: &PodTemplate) -> PodShape {
        let uid = meta.uid.clone().unwrap_or_default();
        let generation = meta.generation;
        if let Some((_, shape)) = self.shapes.get(&uid).filter(|(of, _)| *of == generation) {
            return shape.clone();
        }
        let pod = template.parse().ok().and_then(|template| template.spec).unwrap_or_default();
        let shape = PodShape {
            resources: requests::of_pod(&pod),
            node_terms: node_terms(&pod),
            tolerations: tolerations(&pod),
            pinned: None,
            requests: vec![],
        };
        self.shapes.insert(uid, (generation, shape.clone()));
        shape
    }

    /// Whether the API server has seen the Job and would accept it, and the job
    /// has its finalizer; if not, asks it. The error says what is wrong with the job.
    fn checked(&mut self, key: &Key, job: &Arc<TrainingJob>) -> Result<bool, Record> {
        let generation = job.metadata.generation;
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let now = Instant::now();
        let fresh = |verdict: &&Verdict| {
            // Policies and quotas change: what is refused is asked about again after a while.
            let stands = verdict.refusal.is_none() || now.duration_since(verdict.at) < ASK_AGAIN;
            verdict.generation == generation && stands
        };
        let known = self.verdicts.get(&uid).filter(fresh);
        if let Some(Verdict { refusal: Some(refusal), at, .. }) = known {
            let (refusal, again) = (refusal.clone(), *at + ASK_AGAIN);
            self.look_again_at(again);
            return Err(Record::Invalid(refusal));
        }
        let protected = job.metadata.finalizers.iter().flatten().any(|held| held == names::JOB_FINALIZER);
        // That it was queued in this form before is written in its status.
        let conditions = job.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let queued = facts::condition(conditions, ConditionType::QuotaReserved).is_some_and(|condition| {
            condition.observed_generation == generation && condition.reason != INVALID
        });
        if protected && (queued || known.is_some()) {
            return Ok(true);
        }
        let object = match objects::job(job) {
            Ok(object) => object,
            Err(why) => {
                let refusal = Some(why.clone());
                self.verdicts.insert(uid, Verdict { generation, refusal, at: now });
                return Err(Record::Invalid(why));
            }
        };
        let workload = gang_workload(key);
        if self.free(&workload) {
            let target = Target::object::<batch::Job>(key);
            let patch = (!protected).then(|| add_finalizer(job));
            let of = Target::object::<TrainingJob>(key);
            self.start_check(workload, (uid, generation), |writer| async move {
                writer.would_create(&target, &object).await?;
                match patch {
                    Some(patch) => Ok(vec![writer.merge::<TrainingJob>(&of, &patch).await?]),
                    None => Ok(vec![]),
                }
            });
        }
        Ok(false)
    }
}

fn add_finalizer(job: &TrainingJob) -> Value {
    let mut finalizers = job.metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(names::JOB_FINALIZER.to_owned());
    finalizers_patch(job, &finalizers)
}

/// The patch that takes vingt's finalizer off.
pub(super) fn remove_finalizer(job: &TrainingJob) -> Value {
    let mut finalizers = job.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != names::JOB_FINALIZER);
    finalizers_patch(job, &finalizers)
}

fn finalizers_patch(job: &TrainingJob, finalizers: &[String]) -> Value {
    let meta = &job.metadata;
    json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers}})
}
