//! The kubelet's side of the two gRPC services of a DRA driver, over unix
//! sockets. Written from the wire format on purpose instead of sharing the
//! agent's types: the lab must notice if those were wrong.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// The kubelet's deadlines.
const GET_INFO: Duration = Duration::from_secs(1);
const NOTIFY: Duration = Duration::from_secs(5);
const PREPARE: Duration = Duration::from_secs(45);

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct InfoRequest {}

/// What a plugin says of itself when it registers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PluginInfo {
    /// `DRAPlugin` for a DRA driver.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The driver's name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Absolute path of the socket that serves `DRAPlugin`.
    #[prost(string, tag = "3")]
    pub endpoint: String,
    /// The services it serves there.
    #[prost(string, repeated, tag = "4")]
    pub supported_versions: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    plugin_registered: bool,
    #[prost(string, tag = "2")]
    error: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct RegistrationStatusResponse {}

/// A claim as the kubelet names it to a driver.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct ClaimRef {
    /// Its namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its uid.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ClaimsRequest {
    #[prost(message, repeated, tag = "1")]
    claims: Vec<ClaimRef>,
}

/// A device as prepared by a driver.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PreparedDevice {
    /// Requests of the claim it serves.
    #[prost(string, repeated, tag = "1")]
    pub request_names: Vec<String>,
    /// Its pool.
    #[prost(string, tag = "2")]
    pub pool_name: String,
    /// Its name in the pool.
    #[prost(string, tag = "3")]
    pub device_name: String,
    /// What the container runtime is to inject.
    #[prost(string, repeated, tag = "4")]
    pub cdi_device_ids: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PrepareAnswer {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<PreparedDevice>,
    #[prost(string, tag = "2")]
    error: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PrepareAnswers {
    #[prost(map = "string, message", tag = "1")]
    claims: HashMap<String, PrepareAnswer>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct UnprepareAnswer {
    #[prost(string, tag = "1")]
    error: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct UnprepareAnswers {
    #[prost(map = "string, message", tag = "1")]
    claims: HashMap<String, UnprepareAnswer>,
}

async fn call<Q, A>(socket: &Path, deadline: Duration, path: &'static str, request: Q) -> Result<A>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let socket_path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path: PathBuf = socket_path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let rpc = async move {
        let channel: Channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connector)
            .await
            .context("cannot connect")?;
        let mut grpc = Grpc::new(channel);
        grpc.ready().await?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let answer = grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec);
        let answer =
            answer.await.map_err(|status| anyhow::anyhow!("{:?}: {}", status.code(), status.message()))?;
        anyhow::Ok(answer.into_inner())
    };
    let result = tokio::time::timeout(deadline, rpc).await;
    let result = result.unwrap_or_else(|_| bail!("no answer within {} s", deadline.as_secs()));
    result.with_context(|| format!("{path} on {} failed", socket.display()))
}

/// Asks a registration socket who is there.
pub async fn get_info(socket: &Path) -> Result<PluginInfo> {
    let path = "/pluginregistration.Registration/GetInfo";
    call(socket, GET_INFO, path, InfoRequest {}).await
}

/// Tells a plugin that it is registered, or why not.
pub async fn notify(socket: &Path, error: Option<String>) -> Result<()> {
    let status = RegistrationStatus { plugin_registered: error.is_none(), error: error.unwrap_or_default() };
    let path = "/pluginregistration.Registration/NotifyRegistrationStatus";
    let _: RegistrationStatusResponse = call(socket, NOTIFY, path, status).await?;
    Ok(())
}

/// Has a driver prepare claims; answers the devices of each claim by uid.
pub async fn prepare(socket: &Path, claims: &[ClaimRef]) -> Result<BTreeMap<String, Vec<PreparedDevice>>> {
    let path = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources";
    let request = ClaimsRequest { claims: claims.to_vec() };
    let mut answers: PrepareAnswers = call(socket, PREPARE, path, request).await?;
    let mut prepared = BTreeMap::new();
    for claim in claims {
        let Some(answer) = answers.claims.remove(&claim.uid) else {
            bail!("the driver did not answer for claim {}/{}", claim.namespace, claim.name);
        };
        ensure!(
            answer.error.is_empty(),
            "claim {}/{} was not prepared: {}",
            claim.namespace,
            claim.name,
            answer.error
        );
        prepared.insert(claim.uid.clone(), answer.devices);
    }
    Ok(prepared)
}

/// Has a driver undo the preparation of claims.
pub async fn unprepare(socket: &Path, claims: &[ClaimRef]) -> Result<()> {
    let path = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources";
    let request = ClaimsRequest { claims: claims.to_vec() };
    let mut answers: UnprepareAnswers = call(socket, PREPARE, path, request).await?;
    for claim in claims {
        let Some(answer) = answers.claims.remove(&claim.uid) else {
            bail!("the driver did not answer for claim {}/{}", claim.namespace, claim.name);
        };
        ensure!(
            answer.error.is_empty(),
            "claim {}/{} was not unprepared: {}",
            claim.namespace,
            claim.name,
            answer.error
        );
    }
    Ok(())
}
