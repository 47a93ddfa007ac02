//! Whose namespace is whose, and what a tenant may hold. What follows from it
//! for the cluster (labels, templates, status) is written by the engine.

use std::collections::{BTreeMap, BTreeSet};

use vingt_core::model::{self, Class, UNITS_PER_GPU};
use vingt_crds::{Tenant, TenantClass, names};

use crate::quantity::Amount;
use crate::world::{Key, Namespace, World};

/// Namespaces that are nobody's: what runs there keeps the cluster running.
const RESERVED: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The tenant of every namespace that has one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tenancy {
    /// Tenant, by namespace.
    by_namespace: BTreeMap<String, String>,
    /// Namespaces, by tenant.
    namespaces: BTreeMap<String, BTreeSet<String>>,
    /// What a tenant selects and does not get, with the reason, by tenant.
    refused: BTreeMap<String, Vec<String>>,
}

impl Tenancy {
    /// Finds out whose namespaces are whose. A namespace that several tenants
    /// select is the oldest one's; `own` is the operator's own namespace.
    pub fn of(world: &World, own: &str) -> Self {
        let mut tenants: Vec<_> =
            world.tenants.iter().map(|(key, tenant)| (age(tenant), &key.name, tenant)).collect();
        tenants.sort_by_key(|(age, name, _)| (*age, *name));
        let mut tenancy = Self::default();
        for (_, name, tenant) in tenants {
            tenancy.namespaces.entry(name.clone()).or_default();
            for (key, namespace) in world.namespaces.iter().filter(|(key, ns)| selects(tenant, &key.name, ns))
            {
                tenancy.take(&key.name, name, own, namespace.terminating);
            }
        }
        tenancy
    }

    fn take(&mut self, namespace: &str, tenant: &str, own: &str, terminating: bool) {
        let why = if RESERVED.contains(&namespace) || namespace == own {
            format!("namespace {namespace} cannot be a tenant's: it belongs to the cluster")
        } else if let Some(other) = self.by_namespace.get(namespace) {
            format!("namespace {namespace} is already tenant {other}'s")
        } else if terminating {
            return;
        } else {
            self.by_namespace.insert(namespace.to_owned(), tenant.to_owned());
            self.namespaces.entry(tenant.to_owned()).or_default().insert(namespace.to_owned());
            return;
        };
        self.refused.entry(tenant.to_owned()).or_default().push(why);
    }

    /// The tenant that `namespace` belongs to.
    pub fn tenant(&self, namespace: &str) -> Option<&str> {
        self.by_namespace.get(namespace).map(String::as_str)
    }

    /// The namespaces of a tenant.
    pub fn namespaces(&self, tenant: &str) -> impl Iterator<Item = &str> {
        self.namespaces.get(tenant).into_iter().flatten().map(String::as_str)
    }

    /// All namespaces that have a tenant, with it.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_namespace.iter().map(|(namespace, tenant)| (namespace.as_str(), tenant.as_str()))
    }

    /// What a tenant selects and does not get, with the reason.
    pub fn refused(&self, tenant: &str) -> &[String] {
        self.refused.get(tenant).map_or(&[], Vec::as_slice)
    }
}

/// What the tenants may hold; nothing is used yet.
pub fn limits(world: &World) -> BTreeMap<String, model::Tenant> {
    let units = |quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| {
        Amount::parse(&quantity.0).map(|amount| amount.times(UNITS_PER_GPU))
    };
    let tenant = |tenant: &Tenant| model::Tenant {
        guaranteed: tenant.spec.guaranteed_gpus.as_ref().map_or(0, |quantity| units(quantity).unwrap_or(0)),
        // A limit that does not parse lets nothing through rather than everything.
        limit: tenant.spec.limit_gpus.as_ref().map(|quantity| units(quantity).unwrap_or(0)),
        parent: tenant.spec.parent.clone(),
        class: class(tenant.spec.class),
        weight: tenant.spec.weight,
        ..model::Tenant::default()
    };
    world.tenants.iter().map(|(key, object)| (key.name.clone(), tenant(object))).collect()
}

/// What a class is to the core.
pub const fn class(class: TenantClass) -> Class {
    match class {
        TenantClass::Standard => Class::Standard,
        TenantClass::Sme => Class::Sme,
        TenantClass::Sovereign => Class::Sovereign,
        TenantClass::Security => Class::Security,
    }
}

/// A class in the API's words.
pub const fn class_said(class: Class) -> TenantClass {
    match class {
        Class::Standard => TenantClass::Standard,
        Class::Sme => TenantClass::Sme,
        Class::Sovereign => TenantClass::Sovereign,
        Class::Security => TenantClass::Security,
    }
}

/// Why the parent of a tenant counts as none, if it does.
pub fn wrong_parent(name: &str, world: &World) -> Option<String> {
    let parent_of = |name: &str| world.tenants.get(&Key::new("", name))?.spec.parent.clone();
    let parent = parent_of(name)?;
    let mut above = parent.clone();
    let mut seen = BTreeSet::from([name.to_owned()]);
    loop {
        if world.tenants.get(&Key::new("", &above)).is_none() {
            let whose = if above == parent { "spec.parent".to_owned() } else { "above it".to_owned() };
            return Some(format!("{whose}: there is no Tenant {above}"));
        }
        if !seen.insert(above.clone()) {
            return (above == name)
                .then(|| format!("spec.parent: the tenant is above itself, through {parent}"));
        }
        above = parent_of(&above)?;
    }
}

fn age(tenant: &Tenant) -> i64 {
    tenant.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_millisecond())
}

fn selects(tenant: &Tenant, name: &str, namespace: &Namespace) -> bool {
    let selector = &tenant.spec.namespaces;
    let labels = &selector.match_labels;
    // The label that the operator writes itself is no reason to write it.
    let by_label = !labels.is_empty()
        && !labels.contains_key(names::TENANT_LABEL)
        && labels.iter().all(|(key, value)| namespace.labels.get(key) == Some(value));
    by_label || selector.names.iter().any(|selected| selected == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::layout::tests::list;

    fn world() -> World {
        let mut world = World::default();
        let namespace = |name: &str, team: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "resourceVersion": "1", "labels": {"team": team}}});
        let tenant = |name: &str, made: &str, selector: serde_json::Value, limit: serde_json::Value| {
            json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "Tenant",
                "metadata": {"name": name, "resourceVersion": "1", "creationTimestamp": made},
                "spec": {"namespaces": selector, "limitGPUs": limit}})
        };
        list::<Namespace>(
            &mut world,
            [namespace("a", "x"), namespace("b", "y"), namespace("kube-system", "x"), namespace("op", "x")],
        );
        list::<Tenant>(
            &mut world,
            [
                tenant("young", "2026-02-01T00:00:00Z", json!({"names": ["a", "b"]}), json!(2)),
                tenant("old", "2026-01-01T00:00:00Z", json!({"matchLabels": {"team": "x"}}), json!("2.5")),
            ],
        );
        world
    }

    #[test]
    fn a_namespace_is_the_oldest_tenants_and_the_others_are_told() {
        let tenancy = Tenancy::of(&world(), "op");
        let all: Vec<_> = tenancy.all().collect();
        assert_eq!(all, [("a", "old"), ("b", "young")]);
        assert_eq!(tenancy.refused("young"), ["namespace a is already tenant old's"]);
        let reserved = tenancy.refused("old");
        assert_eq!(reserved.len(), 2, "kube-system and the operator's own: {reserved:?}");
    }

    #[test]
    fn a_parent_must_be_there_and_not_below() {
        let mut world = World::default();
        let tenant = |name: &str, parent: Option<&str>| {
            json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name, "resourceVersion": "1"},
                "spec": {"namespaces": {"names": [name]}, "parent": parent, "weight": 3}})
        };
        list::<Tenant>(
            &mut world,
            [
                tenant("a", Some("b")),
                tenant("b", Some("c")),
                tenant("c", Some("b")),
                tenant("d", None),
                tenant("e", Some("d")),
                tenant("f", Some("gone")),
            ],
        );
        let wrong = |name: &str| wrong_parent(name, &world);
        assert_eq!((wrong("d"), wrong("e"), wrong("a")), (None, None, None), "the loop is not a's fault");
        assert_eq!(wrong("b").unwrap(), "spec.parent: the tenant is above itself, through c");
        assert_eq!(wrong("f").unwrap(), "spec.parent: there is no Tenant gone");
        assert_eq!(limits(&world)["e"].parent.as_deref(), Some("d"));
        assert_eq!(limits(&world)["e"].weight, 3);
    }

    #[test]
    fn limits_are_counted_in_units() {
        let limits = limits(&world());
        assert_eq!((limits["young"].limit, limits["old"].limit), (Some(112), Some(140)));
    }
}
