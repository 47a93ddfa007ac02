//! Keeps this node's `ResourceSlices` as the inventory wants them: written when
//! the pool changes, and put back when the kubelet deletes them, which it does
//! at its own restart and when the agent was away for 30 s.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vingt_crds::names;

use crate::inventory::Pool;
use crate::metrics::Metrics;
use crate::status::{Part, Readiness};
use plan::{Slices, Written, plan};

const FIELD_MANAGER: &str = "vingt-agent";
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long one publication may take: a connection that is dead without saying so must not end them all.
const DEADLINE: Duration = Duration::from_secs(30);
/// The kubelet deletes slices one by one: they are put back together.
const SETTLE: Duration = Duration::from_millis(100);

/// Publishes one node's pool.
pub struct Publisher {
    client: kube::Client,
    node: String,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    there: Slices,
    listing: Option<Slices>,
    written: Written,
}

impl Publisher {
    /// A publisher for `node`.
    pub fn new(client: kube::Client, node: String, metrics: Arc<Metrics>, readiness: Arc<Readiness>) -> Self {
        let (there, written) = (Slices::new(), Written::default());
        Self { client, node, metrics, readiness, there, listing: None, written }
    }

    /// Publishes what `pools` holds, until `stop`.
    pub async fn run(mut self, mut pools: watch::Receiver<Option<Pool>>, stop: CancellationToken) {
        let api: Api<ResourceSlice> = Api::all(self.client.clone());
        let fields = format!("spec.nodeName={},spec.driver={}", self.node, names::DRIVER);
        let events = watcher::watcher(api, watcher::Config::default().fields(&fields));
        let mut events = std::pin::pin!(kube::runtime::WatchStreamExt::default_backoff(events));
        let mut listed = false;
        let mut pause = FIRST_PAUSE;
        // When to write next; `None` while there is nothing to write.
        let mut due = None;
        loop {
            let when = due.unwrap_or_else(tokio::time::Instant::now);
            tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        listed |= matches!(event, Event::InitDone);
                        self.seen(event);
                        due = due.or_else(|| Some(tokio::time::Instant::now() + SETTLE));
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "slices cannot be watched");
                        // Later, what was published stays until something is seen or to be written; the watch is
                        // taken up again, and need not bring any news that would take this back.
                        if !listed {
                            let why = format!("slices cannot be watched: {error}");
                            self.readiness.not_ready(Part::Slices, why);
                        }
                    }
                    None => return,
                },
                changed = pools.changed() => match changed {
                    Ok(()) => due = Some(tokio::time::Instant::now()),
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(when), if due.is_some() && listed => {
                    let pool = pools.borrow_and_update().clone();
                    due = None;
                    let Some(pool) = pool else { continue };
                    let published = tokio::select! {
                        published = tokio::time::timeout(DEADLINE, self.publish(&pool)) => published,
                        () = stop.cancelled() => return,
                    };
                    let failed = match published {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(error.to_string()),
                        Err(_) => Some(format!("the API server has not answered for {} s", DEADLINE.as_secs())),
                    };
                    match failed {
                        None => {
                            pause = FIRST_PAUSE;
                            self.readiness.ready(Part::Slices);
                        }
                        Some(error) => {
                            tracing::warn!(error, "slices are not published; tried again in {pause:?}");
                            self.metrics.slices_written(false);
                            self.readiness.not_ready(Part::Slices, format!("slices are not published: {error}"));
                            due = Some(tokio::time::Instant::now() + pause);
                            pause = (pause * 2).min(LONGEST_PAUSE);
                        }
                    }
                }
            }
        }
    }

    fn seen(&mut self, event: Event<ResourceSlice>) {
        match event {
            Event::Init => self.listing = Some(Slices::new()),
            Event::InitApply(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                if let Some(listing) = &mut self.listing {
                    listing.insert(name, slice);
                }
            }
            Event::InitDone => self.there = self.listing.take().unwrap_or_default(),
            Event::Apply(slice) if !self.is_old(&slice) => {
                self.there.insert(slice.metadata.name.clone().unwrap_or_default(), slice);
            }
            Event::Delete(slice) if !self.is_old(&slice) => {
                self.there.remove(slice.metadata.name.as_deref().unwrap_or_default());
            }
            Event::Apply(_) | Event::Delete(_) => {}
        }
    }

    /// Whether an event is older than what our own write has returned: acting upon it would write again.
    fn is_old(&self, slice: &ResourceSlice) -> bool {
        let known = self.there.get(slice.metadata.name.as_deref().unwrap_or_default());
        known.is_some_and(|known| version(slice) < version(known))
    }

    async fn publish(&mut self, pool: &Pool) -> Result<(), kube::Error> {
        let unowned = OwnerReference::default();
        if plan(&self.there, &self.written, pool, &self.node, &unowned) == plan::Plan::default() {
            return Ok(());
        }
        // Read each time: a node that was deleted and made again has another UID.
        let nodes: Api<Node> = Api::all(self.client.clone());
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node.clone(),
            uid: nodes.get(&self.node).await?.metadata.uid.unwrap_or_default(),
            controller: Some(true),
            ..Default::default()
        };
        let plan = plan(&self.there, &self.written, pool, &self.node, &owner);
        let api: Api<ResourceSlice> = Api::all(self.client.clone());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let apply = plan.apply.into_iter().map(|slice| {
            let (api, params) = (&api, &params);
            async move {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let returned = api.patch(&name, params, &Patch::Apply(&slice)).await?;
                Ok::<_, kube::Error>((name, slice, returned))
            }
        });
        let mut applied = futures::stream::iter(apply).buffered(4);
        while let Some((name, sent, returned)) = applied.try_next().await? {
            self.written.note(&sent, &returned);
            self.there.insert(name, returned);
        }
        drop(applied);
        for name in plan.delete {
            match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
            self.there.remove(&name);
        }
        self.metrics.slices_written(true);
        tracing::info!(slices = self.there.len(), gpus = pool.counter_sets.len(), "slices published");
        Ok(())
    }
}

/// Resource versions of one resource are numbers that grow.
fn version(slice: &ResourceSlice) -> u64 {
    slice.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
