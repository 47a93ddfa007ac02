//! The two sockets, asked as the kubelet asks them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::Node;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use vingt_agent::nvml::Nvml;
use vingt_agent::plugin::{self, Sockets};
use vingt_agent::proto::dra::dra_plugin_client::DraPluginClient;
use vingt_agent::proto::dra::{Claim, NodePrepareResourcesRequest, NodeUnprepareResourcesRequest};
use vingt_agent::proto::registration::registration_client::RegistrationClient;
use vingt_agent::proto::registration::{InfoRequest, RegistrationStatus};
use vingt_agent::status::Readiness;
use vingt_agent::steps::Unobserved;

struct Served {
    node: Node,
    sockets: Sockets,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn served() -> Served {
    let node = Node::new(&[true]);
    let (agent, found) = node.agent(Arc::new(Unobserved), None);
    agent.recover(&found).await.unwrap();
    let nvml = Nvml::start("unused".into(), "/".into()).unwrap();
    let (readiness, stop) = (Arc::new(Readiness::new(nvml)), CancellationToken::new());
    let sockets = Sockets::under(&node.root.join("kubelet"));
    // What a killed agent leaves behind.
    for stale in [&sockets.dra, &sockets.registration] {
        std::fs::create_dir_all(stale.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(stale).unwrap());
    }
    let task = tokio::spawn(plugin::serve(sockets.clone(), agent, readiness.clone(), stop.clone()));
    Served { node, sockets, readiness, stop, task }
}

/// Dials a socket with the authority that the kubelet sends for it; waits for the socket.
async fn dial(path: PathBuf, authority: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let path = path.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        match endpoint.connect_with_connector(connector).await {
            Ok(channel) => return channel,
            Err(error) if tokio::time::Instant::now() > deadline => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn registration(sockets: &Sockets) -> RegistrationClient<Channel> {
    let authority = sockets.registration.to_str().unwrap().replace('/', "%2F");
    RegistrationClient::new(dial(sockets.registration.clone(), &authority).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_registers_the_plugin_and_prepares_through_it() {
    let served = served().await;
    let mut registration = registration(&served.sockets).await;
    let info = registration.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("DRAPlugin", "gpu.vingt.dev"));
    assert_eq!(info.endpoint, served.sockets.dra.to_str().unwrap());
    assert_eq!(info.supported_versions, ["v1.DRAPlugin"]);

    let waits = |readiness: &Readiness| readiness.why_not().into_iter().find(|why| why.contains("kubelet"));
    assert!(waits(&served.readiness).unwrap().contains("has not registered"));
    let status =
        |ok: bool| RegistrationStatus { plugin_registered: ok, error: if ok { "" } else { "no" }.into() };
    registration.notify_registration_status(status(false)).await.unwrap();
    assert!(waits(&served.readiness).unwrap().contains("refused the plugin: no"));
    registration.notify_registration_status(status(true)).await.unwrap();
    assert_eq!(waits(&served.readiness), None);

    let mut dra = DraPluginClient::new(dial(served.sockets.dra.clone(), "localhost").await);
    let good = served.node.claim("x", &["gpu-0-mig-2g20gb-14-2"]);
    let claims = vec![
        Claim { namespace: good.namespace, name: good.name, uid: good.uid },
        Claim { namespace: "prod".into(), name: "gone".into(), uid: "uid-gone".into() },
    ];
    let request = NodePrepareResourcesRequest { claims: claims.clone() };
    let answers = dra.node_prepare_resources(request).await.unwrap().into_inner().claims;
    assert_eq!(answers.len(), 2, "every claim is answered");
    let device = &answers["uid-x"].devices[0];
    assert_eq!(answers["uid-x"].error, "");
    assert_eq!((device.pool_name.as_str(), device.device_name.as_str()), ("n1", "gpu-0-mig-2g20gb-14-2"));
    assert_eq!(device.request_names, ["gpu"]);
    assert_eq!(device.cdi_device_ids, ["gpu.vingt.dev/mig=uid-x-gpu-0-mig-2g20gb-14-2"]);
    assert!(answers["uid-gone"].error.contains("does not exist"), "{}", answers["uid-gone"].error);

    let request = NodeUnprepareResourcesRequest { claims };
    let answers = dra.node_unprepare_resources(request).await.unwrap().into_inner().claims;
    assert!(answers.len() == 2 && answers.values().all(|answer| answer.error.is_empty()), "{answers:?}");
    assert_eq!(served.node.placed(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_are_removed_come_back_and_a_stopped_plugin_leaves_none() {
    let served = served().await;
    registration(&served.sockets).await;
    std::fs::remove_dir_all(served.sockets.registration.parent().unwrap()).unwrap();
    std::fs::remove_file(&served.sockets.dra).unwrap();
    registration(&served.sockets).await.get_info(InfoRequest {}).await.unwrap();
    dial(served.sockets.dra.clone(), "localhost").await;
    served.stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), served.task).await.unwrap().unwrap().unwrap();
    assert!(!served.sockets.registration.exists() && !served.sockets.dra.exists());
}
