//! The publisher against an API server that fails, or does not answer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::inventory::{fixtures::h100, pool};
use crate::nvml::{Inventory, Nvml};

/// An API server with no slices but those that are written.
#[derive(Default)]
struct Server {
    watches: AtomicUsize,
    /// Lets the first watch fail.
    fail: Notify,
    /// Writes are not answered.
    silent: AtomicBool,
    writes: AtomicUsize,
}

impl Server {
    async fn answer(&self, request: http::Request<Body>) -> (u16, Value) {
        let path = request.uri().path().to_owned();
        if request.method() == http::Method::PATCH {
            self.writes.fetch_add(1, Ordering::SeqCst);
            if self.silent.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let sent = request.into_body().collect_bytes().await.unwrap();
            return (200, serde_json::from_slice(&sent).unwrap());
        }
        if path.starts_with("/api/v1/nodes/") {
            return (200, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "u"}}));
        }
        if !request.uri().query().unwrap_or_default().contains("watch=") {
            let metadata = json!({"resourceVersion": "1"});
            return (
                200,
                json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSliceList", "metadata": metadata, "items": []}),
            );
        }
        if self.watches.fetch_add(1, Ordering::SeqCst) > 0 {
            std::future::pending::<()>().await;
        }
        self.fail.notified().await;
        let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "no", "reason": "InternalError", "code": 500});
        (500, status)
    }
}

struct Running {
    server: Arc<Server>,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _pools: watch::Sender<Option<Pool>>,
}

fn running(server: Server) -> Running {
    let server = Arc::new(server);
    let answering = server.clone();
    let service = tower::service_fn(move |request| {
        let server = answering.clone();
        async move {
            let (code, answer) = server.answer(request).await;
            let body = Body::from(answer.to_string().into_bytes());
            http::Response::builder().status(code).body(body)
        }
    });
    let client = kube::Client::new(service, "default");
    let nvml = Nvml::start("unused".into(), "/".into()).unwrap();
    let readiness = Arc::new(Readiness::new(nvml));
    let inventory = Inventory { gpus: vec![h100(0)], unreadable: Vec::new() };
    let (sender, pools) = watch::channel(Some(pool(&inventory, &std::collections::BTreeSet::new(), false)));
    let stop = CancellationToken::new();
    let publisher =
        Publisher::new(client, "n".to_owned(), Arc::new(Metrics::new().unwrap()), readiness.clone());
    let task = tokio::spawn(publisher.run(pools, stop.clone()));
    Running { server, readiness, stop, task, _pools: sender }
}

impl Running {
    /// Why the slices are not as they should be.
    fn trouble(&self) -> Option<String> {
        self.readiness.why_not().into_iter().find(|why| why.contains("slices"))
    }

    /// Waits, in paused time.
    async fn until(&self, what: &str, reached: impl Fn() -> bool) {
        for _ in 0..10_000 {
            if reached() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never {what}: {:?}", self.trouble());
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_is_taken_up_again_and_what_is_published_counts() {
    let running = running(Server::default());
    running.until("published", || running.trouble().is_none()).await;
    running.server.fail.notify_one();
    running.until("watched again", || running.server.watches.load(Ordering::SeqCst) == 2).await;
    assert_eq!(running.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_asked_again_and_holds_up_no_stop() {
    let running = running(Server { silent: true.into(), ..Server::default() });
    let late = || running.trouble().is_some_and(|why| why.contains("has not answered for 30 s"));
    running.until("late", late).await;
    running.server.silent.store(false, Ordering::SeqCst);
    running.until("published", || running.trouble().is_none()).await;

    let running = self::running(Server { silent: true.into(), ..Server::default() });
    running.until("writing", || running.server.writes.load(Ordering::SeqCst) > 0).await;
    running.stop.cancel();
    tokio::time::timeout(Duration::from_secs(1), running.task).await.unwrap().unwrap();
}
