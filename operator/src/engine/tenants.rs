//! Tenants: their namespaces' label, the ready-made claim templates there, and
//! their status.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace as CoreNamespace;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use vingt_core::gpus;
use vingt_core::model;
use vingt_crds::{ConditionType, Tenant, TenantStatus, names, set_condition};

use super::Engine;
use super::api::{Failure, Target};
use super::pods::one;
use crate::jobs::status::short_list;
use crate::tenants::{Tenancy, wrong_parent};
use crate::world::{Key, Namespace, Owned, TemplateKind};

/// Annotation on a ready-made claim template: the class it is for.
const CLASS: &str = "vingt.dev/class";

impl Engine {
    /// Labels the namespaces of tenants, and takes the label off the others.
    pub(super) fn label_namespaces(&mut self, tenancy: &Tenancy) {
        let wrong = |(key, namespace): (&Key, &std::sync::Arc<Namespace>)| {
            let tenant = tenancy.tenant(&key.name);
            let labelled = namespace.labels.get(names::TENANT_LABEL).map(String::as_str);
            (labelled != tenant && !namespace.terminating).then(|| (key.clone(), tenant.map(str::to_owned)))
        };
        let wrong: Vec<_> = self.world.namespaces.iter().filter_map(wrong).collect();
        for (key, tenant) in wrong {
            let object = format!("Namespace/{key}");
            if self.free(&object) {
                tracing::info!(namespace = %key, tenant = tenant.as_deref().unwrap_or("none"), "labelled");
                let target = Target::object::<CoreNamespace>(&key);
                let patch = json!({"metadata": {"labels": {names::TENANT_LABEL: tenant}}});
                self.start(
                    object,
                    |writer| async move { one(writer.merge::<Namespace>(&target, &patch).await) },
                );
            }
        }
    }

    /// Makes the ready-made claim templates in tenants' namespaces, and removes
    /// those that are nobody's any more.
    pub(super) fn keep_templates(&mut self, tenancy: &Tenancy) {
        let labelled = self.world.classes.iter().filter_map(|(key, class)| {
            let name = class.metadata.labels.as_ref()?.get(names::CLAIM_TEMPLATE_LABEL)?;
            Some((name.clone(), key.name.clone()))
        });
        let wanted: BTreeMap<String, String> = labelled.collect();
        let ready_made = self.world.templates.iter().filter(|(_, template)| template.owner.is_none());
        let stale = ready_made.filter(|(key, template)| {
            let class = template.marks.get(CLASS);
            let current =
                tenancy.tenant(&key.namespace).is_some() && class.is_some() && wanted.get(&key.name) == class;
            !current && !template.deleting
        });
        let stale: Vec<_> = stale.map(|(key, template)| (key.clone(), template.uid.clone())).collect();
        for (key, uid) in stale {
            let object = format!("ResourceClaimTemplate/{key}");
            if self.free(&object) {
                let target = Target::object::<ResourceClaimTemplate>(&key);
                self.start(object, |writer| async move { (vec![], writer.delete(&target, &uid).await) });
            }
        }
        for (namespace, _) in tenancy.all() {
            for (name, class) in &wanted {
                let key = Key::new(namespace, name);
                let object = format!("ResourceClaimTemplate/{key}");
                if self.world.templates.get(&key).is_none() && self.free(&object) {
                    let target = Target::object::<ResourceClaimTemplate>(&key);
                    let template = template(&key, class);
                    self.start(object, |writer| async move {
                        let made = writer.create::<Owned<TemplateKind>>(&target, &template).await;
                        // One of a user's own stays; it is not tried again all the time.
                        one(made.map_err(|failure| if failure == Failure::Stale { taken() } else { failure }))
                    });
                }
            }
        }
    }

    /// What a tenant lacks besides namespaces: the reason in one word, and in words.
    fn trouble(&self, tenancy: &Tenancy, tenant: &str) -> Option<(&'static str, String)> {
        if let Some(wrong) = wrong_parent(tenant, &self.world) {
            return Some(("WrongParent", format!("{wrong}; it counts as a tenant without a parent")));
        }
        let missing = |(object, failure): (&String, &Failure)| {
            let template = object.strip_prefix("ResourceClaimTemplate/")?;
            let (namespace, _) = template.split_once('/')?;
            let here = tenancy.tenant(namespace) == Some(tenant);
            here.then(|| format!("ResourceClaimTemplate {template}: {}", failure.words()))
        };
        let missing: Vec<String> = self.refusals.iter().filter_map(missing).collect();
        (!missing.is_empty()).then(|| ("ClaimTemplateMissing", missing.join("; ")))
    }

    /// Writes the status of tenants where it says something new.
    pub(super) fn tell_tenants(
        &mut self,
        tenancy: &Tenancy,
        held: &BTreeMap<String, model::Tenant>,
        waiting: &BTreeMap<String, u32>,
        now: Timestamp,
    ) {
        let tenants: Vec<_> =
            self.world.tenants.iter().map(|(key, tenant)| (key.clone(), tenant.clone())).collect();
        for (key, tenant) in tenants {
            let held = held.get(&key.name).cloned().unwrap_or_default();
            let waiting = waiting.get(&key.name).copied().unwrap_or(0);
            let mut new = status(&tenant, tenancy, &held, waiting, self.trouble(tenancy, &key.name), now);
            if let Some(past) = self.past.get(&key.name) {
                past.tell(&mut new, now);
            }
            let old = tenant.status.clone().unwrap_or_default();
            if new == old {
                continue;
            }
            let object = format!("Tenant/{key}");
            let only_numbers = new.conditions == old.conditions && new.namespaces == old.namespaces;
            if !self.free_for_words(&object) || (only_numbers && !self.may_tell(&object, false)) {
                continue;
            }
            let body = json!({
                "apiVersion": "vingt.dev/v1alpha1", "kind": "Tenant",
                "metadata": {"name": key.name, "uid": tenant.metadata.uid, "resourceVersion": tenant.metadata.resource_version},
                "status": new,
            });
            let target = Target::status::<Tenant>(&key);
            self.start(object, |writer| async move { one(writer.apply::<Tenant>(&target, &body).await) });
        }
    }
}

fn template(key: &Key, class: &str) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {names::MANAGED_BY_LABEL: names::OPERATOR},
            "annotations": {CLASS: class},
        },
        "spec": {"spec": {"devices": {"requests": [
            {"name": "gpu", "exactly": {"deviceClassName": class, "allocationMode": "ExactCount", "count": 1}},
        ]}}},
    })
}

fn taken() -> Failure {
    Failure::Refused("there is another one of that name; delete it, or give it another name".to_owned())
}

/// What a tenant's status says. `trouble` is why it is not ready, in one word and in words, if its
/// namespaces are its own.
fn status(
    tenant: &Tenant,
    tenancy: &Tenancy,
    held: &model::Tenant,
    waiting: u32,
    trouble: Option<(&'static str, String)>,
    now: Timestamp,
) -> TenantStatus {
    let used = held.used;
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    let mut status = tenant.status.clone().unwrap_or_default();
    status.namespaces = short_list(tenancy.namespaces(name));
    status.used = gpus(used);
    status.used_units = used;
    status.borrowed = gpus(used.saturating_sub(held.guaranteed));
    status.waiting = waiting;
    status.observed_generation = tenant.metadata.generation;
    let refused = tenancy.refused(name);
    let (ready, reason, message) = match trouble {
        _ if !refused.is_empty() => (false, "NamespaceRefused", refused.join("; ")),
        Some((reason, message)) => (false, reason, message),
        None => (true, "Ready", "its namespaces are labelled and have the claim templates".to_owned()),
    };
    let generation = tenant.metadata.generation;
    set_condition(&mut status.conditions, ConditionType::Ready, ready, reason, &message, generation, now);
    status
}
