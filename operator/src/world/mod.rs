//! What the API server holds, as the operator last saw it.
//!
//! Watches feed it and so does the answer to every write of our own: an object
//! is replaced only by a newer version of itself, so that a decision written a
//! moment ago is seen by the next one, whether or not the watch has brought it.
//! (Versions are comparable integers since Kubernetes 1.35.) Nothing is decided
//! here.

mod claim;
mod node;
mod pod;
mod report;
pub mod requests;
mod slice;
mod watch;
mod workload;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::DeviceClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use vingt_crds::{InferenceJob, SovereignOrder, SovereignReserve, Tenant, TrainingJob};

pub use claim::Claim;
pub use node::{Namespace, Node, node_terms, tolerations};
pub use pod::{DELETION_COST, GRACE_SECONDS, Owner, Pod, Scheduling};
pub use report::StoredReport;
pub use slice::{Attribute, Device, Slice};
pub use watch::watch_all;
pub use workload::{Deployment, Job, Owned};

/// Namespace and name; the namespace is empty for what belongs to none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace, or nothing.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of the object that `meta` is of.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The version of an object as a number; 0 when it has none.
pub fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Something that is watched, in the form the operator keeps it in.
pub trait View: Sized + Send + Sync + 'static {
    /// Reads an object of the API; the error says which field does not parse.
    fn parse(object: DynamicObject) -> Result<Self, serde_json::Error>;

    /// Where changes of this kind go.
    fn change(delta: Delta<Self>) -> Change;
}

/// One change of one kind.
pub enum Delta<V> {
    /// An object is there, at this version.
    Applied(Key, u64, Arc<V>),
    /// An object is gone, as of this version.
    Deleted(Key, u64),
    /// These are all the objects there are.
    Listed(Vec<(Key, u64, Arc<V>)>),
}

macro_rules! world {
    ($($(#[$doc:meta])* $field:ident: $variant:ident($view:ty),)*) => {
        /// All that is watched.
        #[derive(Default)]
        pub struct World {
            $($(#[$doc])* pub $field: Cache<$view>,)*
        }

        /// A change to one of the kinds of a [`World`].
        pub enum Change {
            $($(#[$doc])* $variant(Delta<$view>),)*
        }

        impl World {
            /// Takes a change in. Returns whether anything is different now.
            pub fn apply(&mut self, change: Change) -> bool {
                match change {
                    $(Change::$variant(delta) => self.$field.apply(delta),)*
                }
            }

            /// The kinds that have not been listed yet.
            pub fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $(if !self.$field.synced { missing.push(stringify!($field)); })*
                missing
            }

            /// Forgets which objects are gone; call it now and then.
            pub fn forget_deleted(&mut self) {
                $(self.$field.forget_deleted();)*
            }
        }
    };
}

world! {
    /// Nodes.
    nodes: Node(Node),
    /// Namespaces.
    namespaces: Namespace(Namespace),
    /// Tenants.
    tenants: Tenant(Tenant),
    /// Pods, all of them: each counts on its node.
    pods: Pod(Pod),
    /// `ResourceClaims`, all of them.
    claims: Claim(Claim),
    /// The slices of vingt's driver.
    slices: Slice(Slice),
    /// Device classes.
    classes: Class(DeviceClass),
    /// `TrainingJobs`.
    training_jobs: TrainingJob(TrainingJob),
    /// `InferenceJobs`.
    inference_jobs: InferenceJob(InferenceJob),
    /// Jobs made for `TrainingJobs`.
    jobs: Job(Job),
    /// Deployments made for `InferenceJobs`.
    deployments: Deployment(Deployment),
    /// Services made for jobs of our kinds.
    services: Service(Owned<ServiceKind>),
    /// `ResourceClaimTemplates` that the operator made.
    templates: Template(Owned<TemplateKind>),
    /// `UsageReports`.
    reports: Report(StoredReport),
    /// `SovereignReserves`.
    reserves: Reserve(SovereignReserve),
    /// `SovereignOrders`.
    orders: Order(SovereignOrder),
}

/// Marks the metadata of a Service.
pub struct ServiceKind;

/// Marks the metadata of a `ResourceClaimTemplate`.
pub struct TemplateKind;

/// The objects of one kind.
pub struct Cache<V> {
    entries: BTreeMap<Key, (u64, Arc<V>)>,
    /// Versions at which objects went away: an answer that was under way then must not bring them back.
    deleted: [BTreeMap<Key, u64>; 2],
    synced: bool,
    /// Counts the changes.
    changes: u64,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), deleted: Default::default(), synced: false, changes: 0 }
    }
}

impl<V> Cache<V> {
    /// The object of that key.
    pub fn get(&self, key: &Key) -> Option<&Arc<V>> {
        self.entries.get(key).map(|(_, object)| object)
    }

    /// All objects, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<V>)> {
        self.entries.iter().map(|(key, (_, object))| (key, object))
    }

    /// A number that is another one after every change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn apply(&mut self, delta: Delta<V>) -> bool {
        let changed = match delta {
            Delta::Applied(key, version, object) => self.put(key, version, object),
            Delta::Deleted(key, version) => {
                let known = self.entries.get(&key).is_some_and(|(known, _)| *known <= version);
                if known {
                    self.entries.remove(&key);
                }
                self.deleted[0].insert(key, version);
                known
            }
            Delta::Listed(objects) => {
                let mut old = std::mem::take(&mut self.entries);
                for (key, version, object) in objects {
                    // What is newer here came from a write of ours after the list was taken.
                    let newest = match old.remove(&key) {
                        Some(known) if known.0 > version => known,
                        _ => (version, object),
                    };
                    self.entries.insert(key, newest);
                }
                // What is gone must not come back with an answer that was under way.
                let listed = self.entries.values().map(|(version, _)| *version).max().unwrap_or(0);
                for (key, (version, _)) in old {
                    self.deleted[0].insert(key, version.max(listed));
                }
                self.synced = true;
                true
            }
        };
        self.changes += u64::from(changed);
        changed
    }

    fn put(&mut self, key: Key, version: u64, object: Arc<V>) -> bool {
        let gone = self.deleted.iter().filter_map(|deleted| deleted.get(&key)).max();
        let known = self.entries.get(&key).map(|(known, _)| known);
        if gone.is_some_and(|gone| *gone >= version) || known.is_some_and(|known| *known >= version) {
            return false;
        }
        self.entries.insert(key, (version, object));
        true
    }

    fn forget_deleted(&mut self) {
        self.deleted[1] = std::mem::take(&mut self.deleted[0]);
    }
}

/// Kinds that are kept as the API has them, less who manages which field.
macro_rules! whole {
    ($($kind:ty => $variant:ident,)*) => {
        $(impl View for $kind {
            fn parse(mut object: DynamicObject) -> Result<Self, serde_json::Error> {
                object.metadata.managed_fields = None;
                serde_json::from_value(serde_json::to_value(object)?)
            }

            fn change(delta: Delta<Self>) -> Change {
                Change::$variant(delta)
            }
        })*
    };
}

whole! {
    Tenant => Tenant,
    DeviceClass => Class,
    TrainingJob => TrainingJob,
    InferenceJob => InferenceJob,
    SovereignReserve => Reserve,
    SovereignOrder => Order,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(objects: &[(&str, u64)]) -> Cache<u64> {
        let mut cache = Cache::default();
        let listed = objects.iter().map(|(name, version)| (Key::new("", name), *version, Arc::new(*version)));
        cache.apply(Delta::Listed(listed.collect()));
        cache
    }

    fn value(cache: &Cache<u64>, name: &str) -> Option<u64> {
        cache.get(&Key::new("", name)).map(|object| **object)
    }

    #[test]
    fn an_object_is_replaced_by_newer_versions_only() {
        let mut cache = cache(&[("a", 5)]);
        let apply = |version| Delta::Applied(Key::new("", "a"), version, Arc::new(version));
        assert!(cache.apply(apply(7)), "the answer to our own write");
        assert!(!cache.apply(apply(6)), "the watch is behind");
        assert!(!cache.apply(apply(7)), "the watch brings what is known");
        assert_eq!(value(&cache, "a"), Some(7));
    }

    #[test]
    fn what_is_deleted_does_not_come_back_with_a_late_answer() {
        let mut cache = cache(&[("a", 5)]);
        assert!(cache.apply(Delta::Deleted(Key::new("", "a"), 8)));
        assert!(
            !cache.apply(Delta::Applied(Key::new("", "a"), 7, Arc::new(7))),
            "written before the deletion"
        );
        assert!(cache.apply(Delta::Applied(Key::new("", "a"), 9, Arc::new(9))), "made again");
        assert!(!cache.apply(Delta::Deleted(Key::new("", "a"), 8)), "the older deletion, seen late");
        assert_eq!(value(&cache, "a"), Some(9));
    }

    #[test]
    fn a_new_list_keeps_our_newer_writes_and_drops_what_is_gone() {
        let mut cache = cache(&[("a", 5), ("b", 5)]);
        cache.apply(Delta::Applied(Key::new("", "a"), 9, Arc::new(9)));
        cache.apply(Delta::Listed(vec![(Key::new("", "a"), 7, Arc::new(7))]));
        assert_eq!((value(&cache, "a"), value(&cache, "b")), (Some(9), None));
    }
}
