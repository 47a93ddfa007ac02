//! What the operator says over HTTP: `/healthz`, `/readyz`, `/metrics`, and
//! `/snapshot`, what it decides from. Nothing can be changed here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use vingt_core::Snapshot;

use crate::metrics::Metrics;

/// How long the next cycle is waited for; there is one every few seconds.
const NEXT_CYCLE: Duration = Duration::from_secs(15);

/// What the probes are answered from.
#[derive(Clone, Default)]
pub struct Health {
    ready: Arc<AtomicBool>,
}

impl Health {
    /// From now on, ready or not.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

/// Snapshots for whoever asks: one is copied in the next cycle then, and not in every one.
#[derive(Clone, Default)]
pub struct Snapshots(Arc<Desk>);

#[derive(Default)]
struct Desk {
    /// Whether this process decides.
    deciding: AtomicBool,
    askers: Mutex<Vec<oneshot::Sender<Arc<Recorded>>>>,
}

/// A snapshot and its time.
#[derive(Serialize)]
struct Recorded {
    now_ms: i64,
    snapshot: Snapshot,
}

impl Snapshots {
    /// A plan was made of `snapshot`: those who asked get it.
    pub fn offer(&self, snapshot: &Snapshot, now_ms: i64) {
        self.0.deciding.store(true, Ordering::Relaxed);
        let askers = std::mem::take(&mut *self.0.askers.lock().unwrap_or_else(PoisonError::into_inner));
        if askers.is_empty() {
            return;
        }
        let recorded = Arc::new(Recorded { now_ms, snapshot: snapshot.clone() });
        for asker in askers {
            // Who has gone away does not want it any more.
            let _ = asker.send(recorded.clone());
        }
    }

    async fn answer(self) -> Response {
        if !self.0.deciding.load(Ordering::Relaxed) {
            return refuse("this process does not decide: another one leads");
        }
        let (to, from) = oneshot::channel();
        self.0.askers.lock().unwrap_or_else(PoisonError::into_inner).push(to);
        let Ok(Ok(recorded)) = tokio::time::timeout(NEXT_CYCLE, from).await else {
            return refuse("nothing was decided for a while");
        };
        // Megabytes of text in a large cluster: not beside what must not wait.
        match tokio::task::spawn_blocking(move || serde_json::to_vec(&*recorded)).await {
            Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
            failed => (StatusCode::INTERNAL_SERVER_ERROR, format!("{failed:?}\n")).into_response(),
        }
    }
}

fn refuse(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

/// Listens on `address` and answers until `stop` is cancelled.
pub async fn serve(
    address: SocketAddr,
    health: Health,
    metrics: Metrics,
    snapshots: Snapshots,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    axum::serve(listener, router(health, metrics, snapshots))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .context("the HTTP server failed")
}

fn router(health: Health, metrics: Metrics, snapshots: Snapshots) -> Router {
    let readyz = move || {
        let ready = health.ready.load(Ordering::Relaxed);
        async move {
            if ready {
                (StatusCode::OK, "ready\n")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "the caches are not filled yet\n")
            }
        }
    };
    let text = move || {
        let text = metrics.text();
        async move { text.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())) }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(text))
        .route("/snapshot", get(move || snapshots.clone().answer()))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt as _;

    use super::*;

    async fn asked(router: Router) -> (StatusCode, String) {
        let request = http::Request::get("/snapshot").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_next_snapshot_is_for_those_who_asked() {
        let snapshots = Snapshots::default();
        let router = router(Health::default(), Metrics::new().unwrap(), snapshots.clone());
        let (status, text) = asked(router.clone()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
        let snapshot = Snapshot { moves_left: 7, ..Snapshot::default() };
        snapshots.offer(&Snapshot::default(), 1);
        let answer = tokio::spawn(asked(router));
        while snapshots.0.askers.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        snapshots.offer(&snapshot, 5);
        let (status, text) = answer.await.unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&read["now_ms"], &read["snapshot"]["moves_left"]), (&5.into(), &7.into()));
    }
}
