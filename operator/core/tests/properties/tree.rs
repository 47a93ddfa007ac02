//! What tenants hold, guarantees and limits, along the paths of their tree.

use std::collections::BTreeMap;

use vingt_core::model::{Snapshot, Tenant};

/// What each tenant holds with all that are below it.
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    tenants: &'a BTreeMap<String, Tenant>,
    held: BTreeMap<&'a str, u64>,
}

/// A part of the tree.
#[derive(Clone, Debug)]
pub struct Share {
    /// Whose it is.
    #[expect(dead_code, reason = "it is printed")]
    pub name: String,
    pub held: u64,
    pub guaranteed: u64,
}

impl<'a> Tree<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let held = snapshot.tenants.keys().map(|name| (name.as_str(), 0)).collect();
        let mut tree = Self { tenants: &snapshot.tenants, held };
        for (name, tenant) in &snapshot.tenants {
            tree.add(name, tenant.used);
        }
        tree
    }

    /// A tenant and those above it, up to the top.
    pub fn path(&self, tenant: &'a str) -> Vec<&'a str> {
        let mut path = vec![tenant];
        while let Some(parent) = path.last().and_then(|last| self.tenants[*last].parent.as_deref()) {
            path.push(parent);
        }
        path
    }

    pub fn add(&mut self, tenant: &'a str, units: u64) {
        for name in self.path(tenant) {
            *self.held.get_mut(name).unwrap() += units;
        }
    }

    pub fn take(&mut self, tenant: &'a str, units: u64) {
        for name in self.path(tenant) {
            *self.held.get_mut(name).unwrap() -= units;
        }
    }

    pub fn held(&self, tenant: &str) -> u64 {
        self.held[tenant]
    }

    /// The tenant of the path that holds more than its limit.
    pub fn beyond_limit(&self, tenant: &'a str) -> Option<&'a str> {
        let beyond = |name: &&str| self.tenants[*name].limit.is_some_and(|limit| self.held[*name] > limit);
        self.path(tenant).into_iter().find(beyond)
    }

    /// A tenant with all below it.
    pub fn all(&self, name: &str) -> Share {
        Share { name: name.into(), held: self.held[name], guaranteed: self.guaranteed(name) }
    }

    /// A tenant without those below it, to whom what is guaranteed to them counts first.
    pub fn own(&self, name: &str) -> Share {
        let below = || self.tenants.iter().filter(|(_, other)| other.parent.as_deref() == Some(name));
        let held = below().map(|(below, _)| self.held(below)).sum::<u64>();
        let guaranteed = below().map(|(below, _)| self.guaranteed(below)).sum::<u64>();
        Share {
            name: format!("{name} itself"),
            held: self.held[name] - held,
            guaranteed: self.guaranteed(name) - guaranteed,
        }
    }

    /// What is guaranteed to a tenant with all below it: at least the sum of what is guaranteed to those below.
    fn guaranteed(&self, tenant: &str) -> u64 {
        let below = self.tenants.iter().filter(|(_, other)| other.parent.as_deref() == Some(tenant));
        let below = below.map(|(name, _)| self.guaranteed(name)).sum::<u64>();
        self.tenants[tenant].guaranteed.max(below)
    }
}
