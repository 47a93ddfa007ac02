//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use crate::metrics::Metrics;
use crate::preparer::Preparer;
use crate::status::Readiness;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// The agent's metrics.
    pub metrics: Arc<Metrics>,
    /// Whether it is ready.
    pub readiness: Arc<Readiness>,
    /// The preparer, once the journal is open.
    pub preparer: Arc<std::sync::OnceLock<Preparer>>,
}

/// The pages as a router.
pub fn router(pages: Pages) -> Router {
    Router::new()
        // Alive means that requests are served; an agent without a driver must not be restarted for that.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(pages)
}

async fn readyz(State(pages): State<Pages>) -> (StatusCode, String) {
    let reasons = pages.readiness.why_not();
    if reasons.is_empty() {
        let nothing = pages.readiness.why_nothing().map(|why| format!(": {why}")).unwrap_or_default();
        return (StatusCode::OK, format!("ok{nothing}\n"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
}

async fn metrics(State(pages): State<Pages>) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    if let Some(preparer) = pages.preparer.get() {
        let journal = preparer.journal();
        pages.metrics.journal(&journal.entries(), journal.untold().len());
    }
    ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], pages.metrics.text())
}
