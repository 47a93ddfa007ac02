//! The watches: one task per kind that reads objects of the API and passes
//! their changes on.
//!
//! Objects arrive unparsed and are read one by one, so that one that does not
//! parse is reported and skipped, and never ends the watch of its kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use vingt_crds::{InferenceJob, SovereignOrder, SovereignReserve, Tenant, TrainingJob, UsageReport, names};

use super::{
    Change, Claim, Delta, Deployment, Job, Key, Namespace, Node, Owned, Pod, ServiceKind, Slice,
    StoredReport, TemplateKind, View, version,
};
use crate::client::words;

/// Where changes go.
pub type Sources = UnboundedSender<Change>;

/// Starts all watches; they end with the set.
pub fn watch_all(client: &Client, to: &Sources) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let all = watcher::Config::default();
    let training = all.clone().labels(names::TRAINING_JOB_LABEL);
    let inference = all.clone().labels(names::INFERENCE_JOB_LABEL);
    let ours = all.clone().labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::OPERATOR));
    let slices = all.clone().fields(&format!("spec.driver={}", names::DRIVER));
    tasks.spawn(watch::<Node>(client.clone(), resource::<core::Node>(), all.clone(), to.clone()));
    tasks.spawn(watch::<Namespace>(client.clone(), resource::<core::Namespace>(), all.clone(), to.clone()));
    tasks.spawn(watch::<Pod>(client.clone(), resource::<core::Pod>(), all.clone(), to.clone()));
    tasks.spawn(watch::<Claim>(client.clone(), resource::<ResourceClaim>(), all.clone(), to.clone()));
    tasks.spawn(watch::<Slice>(client.clone(), resource::<ResourceSlice>(), slices, to.clone()));
    tasks.spawn(watch::<DeviceClass>(client.clone(), resource::<DeviceClass>(), all.clone(), to.clone()));
    tasks.spawn(watch::<Tenant>(client.clone(), resource::<Tenant>(), all.clone(), to.clone()));
    tasks.spawn(watch::<TrainingJob>(client.clone(), resource::<TrainingJob>(), all.clone(), to.clone()));
    tasks.spawn(watch::<InferenceJob>(client.clone(), resource::<InferenceJob>(), all.clone(), to.clone()));
    tasks.spawn(watch::<StoredReport>(client.clone(), resource::<UsageReport>(), all.clone(), to.clone()));
    tasks.spawn(watch::<SovereignReserve>(
        client.clone(),
        resource::<SovereignReserve>(),
        all.clone(),
        to.clone(),
    ));
    tasks.spawn(watch::<SovereignOrder>(client.clone(), resource::<SovereignOrder>(), all, to.clone()));
    tasks.spawn(watch::<Job>(client.clone(), resource::<batch::Job>(), training, to.clone()));
    tasks.spawn(watch::<Deployment>(client.clone(), resource::<apps::Deployment>(), inference, to.clone()));
    tasks.spawn(watch_metadata::<ServiceKind, core::Service>(client.clone(), ours.clone(), to.clone()));
    tasks.spawn(watch_metadata::<TemplateKind, ResourceClaimTemplate>(client.clone(), ours, to.clone()));
    tasks
}

fn resource<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

async fn watch<V: View>(client: Client, resource: ApiResource, config: watcher::Config, to: Sources) {
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let kind = resource.kind;
    let read = |object: DynamicObject| {
        let (key, version) = (Key::of(&object.metadata), version(&object.metadata));
        match V::parse(object) {
            Ok(view) => Some((key, version, Arc::new(view))),
            Err(error) => {
                tracing::warn!(%kind, %key, %error, "an object cannot be read and is left out");
                None
            }
        }
    };
    follow(
        watcher(api, config),
        &kind,
        read,
        |object| (Key::of(&object.metadata), version(&object.metadata)),
        &to,
    )
    .await;
}

async fn watch_metadata<M, K>(client: Client, config: watcher::Config, to: Sources)
where
    M: Send + Sync + 'static,
    Owned<M>: View,
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(client);
    let kind = K::kind(&()).into_owned();
    let read = |object: PartialObjectMeta<K>| {
        let (key, version) = (Key::of(&object.metadata), version(&object.metadata));
        Some((key, version, Arc::new(Owned::<M>::new(object.metadata))))
    };
    let name = |object: &PartialObjectMeta<K>| (Key::of(&object.metadata), version(&object.metadata));
    follow(watcher(api, config), &kind, read, name, &to).await;
}

/// Passes on what a watch says until nobody listens any more.
async fn follow<V: View, O>(
    stream: impl futures::Stream<Item = watcher::Result<watcher::Event<O>>> + Send,
    kind: &str,
    read: impl Fn(O) -> Option<(Key, u64, Arc<V>)>,
    name: impl Fn(&O) -> (Key, u64),
    to: &Sources,
) where
    O: Send,
{
    let mut stream = Box::pin(stream.default_backoff());
    let mut listing: BTreeMap<Key, (u64, Arc<V>)> = BTreeMap::new();
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%kind, error = %explain(&error), "the watch failed; it is tried again");
                continue;
            }
        };
        let delta = match event {
            watcher::Event::Init => {
                listing.clear();
                continue;
            }
            watcher::Event::InitApply(object) => {
                if let Some((key, version, view)) = read(object) {
                    listing.insert(key, (version, view));
                }
                continue;
            }
            watcher::Event::InitDone => {
                let all = std::mem::take(&mut listing).into_iter();
                Delta::Listed(all.map(|(key, (version, view))| (key, version, view)).collect())
            }
            watcher::Event::Apply(object) => match read(object) {
                Some((key, version, view)) => Delta::Applied(key, version, view),
                None => continue,
            },
            watcher::Event::Delete(object) => {
                let (key, version) = name(&object);
                Delta::Deleted(key, version)
            }
        };
        if to.send(V::change(delta)).is_err() {
            return;
        }
    }
}

/// A failed watch in words.
fn explain(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => words(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}
