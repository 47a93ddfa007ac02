//! A reverse proxy between the operator and the API server that counts the
//! operator's writes and can kill it right before or right after one of them,
//! so that a test can walk through every point at which it may crash. Watches
//! pass through as they are.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use http::{Method, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Config;
use kube::client::ConfigExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::debug;

/// A write that passed, or was to pass, through the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// Path without query.
    pub path: String,
}

/// On which side of a write the operator dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The API server never sees the write.
    Before,
    /// The write is done; the operator never sees the answer.
    After,
}

type Kill = Arc<dyn Fn() + Send + Sync>;

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct CutProxy {
    address: SocketAddr,
    state: Arc<State>,
    accept: JoinHandle<()>,
}

struct State {
    kill: Kill,
    inner: Mutex<Inner>,
    cut: watch::Sender<Option<Write>>,
}

#[derive(Default)]
struct Inner {
    writes: Vec<Write>,
    // Number of writes seen since armed, and at which of them to cut.
    armed: Option<(usize, usize, Side)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a write; says whether to cut at it.
    fn note(&self, write: &Write) -> Option<Side> {
        let mut inner = self.lock();
        inner.writes.push(write.clone());
        let (seen, at, side) = inner.armed.as_mut()?;
        *seen += 1;
        if seen != at {
            return None;
        }
        let side = *side;
        inner.armed = None;
        Some(side)
    }

    fn cut(&self, write: Write) {
        (self.kill)();
        self.cut.send_replace(Some(write));
    }
}

impl CutProxy {
    /// Starts a proxy on a free port of 127.0.0.1 in front of the API server
    /// that `config` names. `kill` must end the operator before it returns.
    pub async fn start(config: &Config, kill: impl Fn() + Send + Sync + 'static) -> Result<Self> {
        let connector = config.rustls_https_connector()?;
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state =
            Arc::new(State { kill: Arc::new(kill), inner: Mutex::default(), cut: watch::Sender::new(None) });
        let upstream = config.cluster_url.clone();
        let accept = tokio::spawn(accept(listener, client, upstream, state.clone()));
        Ok(Self { address, state, accept })
    }

    /// What to tell the operator instead of the API server's address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All writes so far. Those of leader election and events don't count:
    /// they depend on time.
    pub fn writes(&self) -> Vec<Write> {
        self.state.lock().writes.clone()
    }

    /// Kills the operator at its `nth` write from now on; 1 is the next.
    pub fn arm(&self, nth: usize, side: Side) {
        self.state.cut.send_replace(None);
        self.state.lock().armed = Some((0, nth, side));
    }

    /// Cuts no more. True if the cut had not happened.
    pub fn disarm(&self) -> bool {
        self.state.lock().armed.take().is_some()
    }

    /// The write at which the operator was killed since it was last armed.
    pub fn happened(&self) -> Option<Write> {
        self.state.cut.borrow().clone()
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

type Upstream<C> = Client<C, Incoming>;

async fn accept<C>(listener: TcpListener, client: Upstream<C>, upstream: Uri, state: Arc<State>)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    // Dropping the set ends all connections.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (client, upstream, state) = (client.clone(), upstream.clone(), state.clone());
        connections.spawn(async move {
            let service =
                service_fn(move |request| forward(request, client.clone(), upstream.clone(), state.clone()));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                debug!("a connection of the cutting proxy ended: {error}");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward<C>(
    mut request: Request<Incoming>,
    client: Upstream<C>,
    upstream: Uri,
    state: Arc<State>,
) -> Result<Response<Incoming>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let write = counted(request.method(), request.uri().path());
    let side = write.as_ref().and_then(|write| state.note(write));
    if let (Some(Side::Before), Some(write)) = (side, &write) {
        state.cut(write.clone());
        bail!("cut before {} {}", write.method, write.path);
    }
    let mut parts = upstream.into_parts();
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts)?;
    // The client writes the one that fits.
    request.headers_mut().remove(header::HOST);
    let response = client.request(request).await?;
    if let (Some(Side::After), Some(write)) = (side, write) {
        state.cut(write.clone());
        bail!("cut after {} {}", write.method, write.path);
    }
    Ok(response)
}

/// The write a request is, if it counts.
fn counted(method: &Method, path: &str) -> Option<Write> {
    let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
    let by_time = path.starts_with("/apis/coordination.k8s.io/") || path.contains("/events");
    let asks = path.starts_with("/apis/authorization.k8s.io/");
    (writes && !by_time && !asks).then(|| Write { method: method.to_string(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_events_and_reads_do_not_count() {
        assert!(counted(&Method::GET, "/api/v1/pods").is_none());
        assert!(counted(&Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/x/leases/y").is_none());
        assert!(counted(&Method::POST, "/apis/events.k8s.io/v1/namespaces/x/events").is_none());
        let claim = "/apis/resource.k8s.io/v1/namespaces/x/resourceclaims/y/status";
        assert_eq!(counted(&Method::PATCH, claim).unwrap().path, claim);
    }

    #[test]
    fn the_cut_is_at_the_write_it_was_armed_for() {
        let state = State { kill: Arc::new(|| {}), inner: Mutex::default(), cut: watch::Sender::new(None) };
        let write = Write { method: "POST".to_owned(), path: "/x".to_owned() };
        assert_eq!(state.note(&write), None);
        state.lock().armed = Some((0, 2, Side::After));
        assert_eq!(state.note(&write), None);
        assert_eq!(state.note(&write), Some(Side::After));
        assert_eq!(state.note(&write), None);
        assert_eq!(state.lock().writes.len(), 4);
    }
}
