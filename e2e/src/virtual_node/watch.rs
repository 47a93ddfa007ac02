//! Watches the pods of a node and gives each a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::Core;
use super::worker::Worker;

struct Known {
    pod: watch::Sender<Arc<Pod>>,
    gone: CancellationToken,
}

/// Watches for ever. `stop` ends the workers at once, without cleaning up.
pub async fn pods(core: Arc<Core>, tasks: TaskTracker, stop: CancellationToken) {
    let api: Api<Pod> = Api::all(core.client.clone());
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", core.name));
    let mut events = watcher(api, mine).default_backoff().boxed();
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.insert(pod.metadata.uid.clone().unwrap_or_default());
                take(&core, &tasks, &stop, &mut known, pod);
            }
            Ok(watcher::Event::InitDone) => {
                known.retain(|uid, known| listed.contains(uid) || forget(known));
            }
            Ok(watcher::Event::Apply(pod)) => take(&core, &tasks, &stop, &mut known, pod),
            Ok(watcher::Event::Delete(pod)) => {
                if let Some(known) = pod.metadata.uid.and_then(|uid| known.remove(&uid)) {
                    forget(&known);
                }
            }
            Err(error) => debug!("{}: watching pods: {error}", core.name),
        }
    }
}

fn take(
    core: &Arc<Core>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    known: &mut BTreeMap<String, Known>,
    pod: Pod,
) {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let pod = Arc::new(pod);
    if let Some(known) = known.get(&uid) {
        known.pod.send_replace(pod);
        return;
    }
    let (sender, receiver) = watch::channel(pod);
    let gone = CancellationToken::new();
    let worker = Worker { core: core.clone(), pod: receiver, gone: gone.clone() };
    let stop = stop.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(worker.live()).await;
    });
    known.insert(uid, Known { pod: sender, gone });
}

/// Tells the worker that its pod is gone. Answers false, for `retain`.
fn forget(known: &Known) -> bool {
    known.gone.cancel();
    false
}
