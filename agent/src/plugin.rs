//! The kubelet's side of the agent: two unix sockets, the one the kubelet finds
//! the driver by and the one it asks for devices. What is asked is passed on;
//! nothing is decided here.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use vingt_crds::names;

use crate::preparer::{ClaimRef, Preparer, Ready, Refusal};
use crate::proto::dra::dra_plugin_server::{DraPlugin, DraPluginServer};
use crate::proto::dra::{
    Claim, Device, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use crate::proto::registration::registration_server::{Registration, RegistrationServer};
use crate::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::status::{Part, Readiness};

/// The service that we offer, as the kubelet calls it; a version number is refused.
const SERVICE: &str = "v1.DRAPlugin";
/// How often it is looked whether a socket is still in its place.
const LOOK: Duration = Duration::from_secs(1);

/// Where the two sockets lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// Asked for devices.
    pub dra: PathBuf,
    /// Asked what this plugin is.
    pub registration: PathBuf,
}

impl Sockets {
    /// The sockets under the kubelet's folder.
    ///
    /// The `@` is not decoration. The kubelet sends the path of the registration socket,
    /// percent-encoded, as the request's authority; a Rust server refuses `%` in a host name, but
    /// what stands before an `@` is user information, where it is allowed.
    pub fn under(kubelet: &Path) -> Self {
        Self {
            dra: kubelet.join("plugins").join(names::DRIVER).join("dra.sock"),
            registration: kubelet.join("plugins_registry").join(format!("{}@reg.sock", names::DRIVER)),
        }
    }
}

/// Serves both sockets until `stop`; the kubelet is told of the plugin only when it can be asked.
pub async fn serve(
    sockets: Sockets,
    preparer: Preparer,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
) -> io::Result<()> {
    let stop_dra = CancellationToken::new();
    let service = DraPluginServer::new(DraService { preparer });
    let first = bind(&sockets.dra)?;
    let dra = keep(&sockets.dra, first, &stop_dra, |listener, until| {
        let server = tonic::transport::Server::builder().add_service(service.clone());
        server.serve_with_incoming_shutdown(listener, until)
    });
    let registration = async {
        let endpoint = sockets.dra.to_string_lossy().into_owned();
        let service = RegistrationServer::new(RegistrationService { endpoint, readiness });
        let first = bind(&sockets.registration)?;
        let kept = keep(&sockets.registration, first, &stop, |listener, until| {
            let server = tonic::transport::Server::builder().add_service(service.clone());
            server.serve_with_incoming_shutdown(listener, until)
        });
        let result = kept.await;
        // Unknown to the kubelet first, and only then deaf.
        stop_dra.cancel();
        result
    };
    let (dra, registration) = tokio::join!(dra, registration);
    dra.and(registration)
}

/// Serves on `path` until `stop`; binds anew when the socket file is removed or replaced.
async fn keep<S>(
    path: &Path,
    first: UnixListener,
    stop: &CancellationToken,
    serve: impl Fn(UnixListenerStream, futures::future::BoxFuture<'static, ()>) -> S,
) -> io::Result<()>
where
    S: Future<Output = Result<(), tonic::transport::Error>>,
{
    let mut listener = Some(first);
    while !stop.is_cancelled() {
        let bound = match listener.take() {
            Some(bound) => bound,
            None => bind(path)?,
        };
        let mine = inode(path);
        let (until, path) = (stop.clone(), path.to_owned());
        let until = async move {
            loop {
                tokio::select! {
                    () = until.cancelled() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
                if inode(&path) != mine {
                    tracing::warn!(path = %path.display(), "the socket was removed; it is made again");
                    return;
                }
            }
        };
        serve(UnixListenerStream::new(bound), Box::pin(until)).await.map_err(io::Error::other)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Binds a socket in place of whatever lies there: a stale one refuses connections for ever.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let at = |error: io::Error| io::Error::new(error.kind(), format!("socket {}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(at)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(at)?;
    Ok(listener)
}

struct RegistrationService {
    endpoint: String,
    readiness: Arc<Readiness>,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "DRAPlugin".to_owned(),
            name: names::DRIVER.to_owned(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec![SERVICE.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("registered with the kubelet");
            self.readiness.ready(Part::Kubelet);
        } else {
            tracing::error!(error = status.error, "the kubelet refused the plugin");
            self.readiness
                .not_ready(Part::Kubelet, format!("the kubelet refused the plugin: {}", status.error));
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[derive(Clone)]
struct DraService {
    preparer: Preparer,
}

#[tonic::async_trait]
impl DraPlugin for DraService {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let answers = request.into_inner().claims.into_iter().map(|claim| async {
            let uid = claim.uid.clone();
            (uid, prepared(self.preparer.prepare(claim.into()).await))
        });
        let claims: HashMap<_, _> = join_all(answers).await.into_iter().collect();
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let answers = request.into_inner().claims.into_iter().map(|claim| async {
            let uid = claim.uid.clone();
            let error = self.preparer.unprepare(claim.into()).await.err();
            let error = error.map(|refusal| refusal.to_string()).unwrap_or_default();
            (uid, NodeUnprepareResourceResponse { error })
        });
        let claims: HashMap<_, _> = join_all(answers).await.into_iter().collect();
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

impl From<Claim> for ClaimRef {
    fn from(claim: Claim) -> Self {
        Self { namespace: claim.namespace, name: claim.name, uid: claim.uid }
    }
}

fn prepared(answer: Result<Vec<Ready>, Refusal>) -> NodePrepareResourceResponse {
    let device = |ready: Ready| Device {
        request_names: vec![ready.decided.request],
        pool_name: ready.decided.pool,
        device_name: ready.decided.device,
        cdi_device_ids: vec![ready.cdi_id],
        share_id: None,
    };
    match answer {
        Ok(ready) => NodePrepareResourceResponse {
            devices: ready.into_iter().map(device).collect(),
            error: String::new(),
        },
        Err(refusal) => NodePrepareResourceResponse { devices: Vec::new(), error: refusal.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kubelet's authority for our registration socket must parse, or no request ever arrives.
    #[test]
    fn the_authority_that_the_kubelet_sends_for_the_registration_socket_parses() {
        let sockets = Sockets::under(Path::new("/var/lib/kubelet"));
        let path = sockets.registration.to_str().unwrap();
        assert_eq!(path, "/var/lib/kubelet/plugins_registry/gpu.vingt.dev@reg.sock");
        path.replace('/', "%2F").parse::<http::uri::Authority>().unwrap();
        path.replace('/', "%2F").replace('@', "-").parse::<http::uri::Authority>().unwrap_err();
    }
}
