//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler as child
//! processes, each on a loopback port that is its own ([`crate::port`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::layout::Layout;
use crate::pki::{Authority, write_kubeconfig};
use crate::port::Port;
use crate::process::{Process, Spec};
use crate::wait::wait_for;

/// How long each part may take to become ready on a busy machine.
const READY: Duration = Duration::from_secs(120);
/// How long a part may take to end.
const STOP: Duration = Duration::from_secs(10);

/// A running control plane.
pub struct ControlPlane {
    authority: Arc<Authority>,
    server: String,
    admin: Client,
    // In the order they were started.
    processes: Vec<Process>,
    _ports: [Port; 3],
}

/// Where the programs are.
#[derive(Debug)]
pub struct Binaries {
    /// Folder of etcd.
    pub etcd: PathBuf,
    /// Folder of the Kubernetes programs.
    pub kubernetes: PathBuf,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane").field("server", &self.server).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Starts everything and waits until it is ready.
    pub async fn start(layout: &Layout, binaries: &Binaries) -> Result<Self> {
        let authority = Arc::new(Authority::new(&layout.pki())?);
        let port = Port::take()?;
        let server = format!("https://127.0.0.1:{}", port.number());
        let admin = authority.kubeconfig(&server, "admin", Some("system:masters"))?;
        write_kubeconfig(&layout.kubeconfig(), &admin)?;

        let mut etcd = start_etcd(layout, binaries)?;
        let etcd_url = etcd_url(layout);
        let mut api = start_api_server(layout, binaries, &authority, port.number(), &etcd_url)?;
        let admin = client(admin).await?;
        let (etcd_process, api_process) = (&mut etcd, &mut api);
        ready(&admin, "kube-apiserver", "/readyz", &mut [etcd_process, api_process]).await?;

        let mut manager = start_controller_manager(layout, binaries, &authority, &server)?;
        let mut scheduler = start_scheduler(layout, binaries, &authority, &server)?;
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
        watch_over(
            &mut [&mut manager.0, &mut scheduler.0],
            wait_for(READY, "kube-controller-manager to make the first service account", || async {
                Ok(accounts.get_opt("default").await?)
            }),
        )
        .await?;
        let health = Client::try_from(config_for(&authority, scheduler.1.number())?)?;
        ready(&health, "kube-scheduler", "/readyz", &mut [&mut scheduler.0]).await?;

        let processes = vec![etcd, api, manager.0, scheduler.0];
        Ok(Self { authority, server, admin, processes, _ports: [port, manager.1, scheduler.1] })
    }

    /// A client with all rights.
    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// The API server's address, `https://127.0.0.1:…`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Whoever signs the lab's certificates.
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.clone()
    }

    /// Fails if a part has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// Ends everything, the newest part first.
    pub async fn stop(&mut self) {
        while let Some(mut process) = self.processes.pop() {
            process.stop(STOP).await;
        }
    }
}

/// A client for a kubeconfig.
pub async fn client(kubeconfig: Kubeconfig) -> Result<Client> {
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(Client::try_from(config)?)
}

fn config_for(authority: &Authority, port: u16) -> Result<Config> {
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse()?);
    let pem = fs::read(authority.ca_file())?;
    let der = rustls_der(&pem)?;
    config.root_cert = Some(vec![der]);
    Ok(config)
}

/// The certificate inside a PEM text.
fn rustls_der(pem: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(pem)?;
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes: k8s_openapi::ByteString = serde_json::from_value(body.into())?;
    Ok(bytes.0)
}

async fn ready(client: &Client, name: &str, path: &str, processes: &mut [&mut Process]) -> Result<()> {
    let what = format!("{name} to be ready");
    let wait = wait_for(READY, &what, || async {
        let answer = client.request_text(http::Request::get(path).body(Vec::new())?).await?;
        Ok((answer.trim() == "ok").then_some(()))
    });
    watch_over(processes, wait).await
}

/// Waits for `wait`, or for the first of `processes` to end.
pub(crate) async fn watch_over<T>(
    processes: &mut [&mut Process],
    wait: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::pin!(wait);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            result = &mut wait => {
                return result.with_context(|| {
                    processes.iter().map(|process| process.log_tail()).collect::<Vec<_>>().join("\n")
                });
            }
            _ = tick.tick() => {
                for process in &mut *processes {
                    process.check()?;
                }
            }
        }
    }
}

fn start(layout: &Layout, name: &str, program: &Path, args: Vec<String>) -> Result<Process> {
    Process::start(Spec {
        name,
        program,
        args,
        env: Vec::new(),
        log: layout.logs().join(format!("{name}.log")),
        records: &layout.records(),
    })
}

fn etcd_url(layout: &Layout) -> String {
    format!("unix://{}", layout.root().join("etcd.sock").display())
}

fn start_etcd(layout: &Layout, binaries: &Binaries) -> Result<Process> {
    let client = etcd_url(layout);
    let peer = format!("unix://{}", layout.root().join("etcd-peer.sock").display());
    let args = vec![
        "--name=lab".to_owned(),
        format!("--data-dir={}", layout.root().join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=lab={peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    start(layout, "etcd", &binaries.etcd.join("etcd"), args)
}

fn start_api_server(
    layout: &Layout,
    binaries: &Binaries,
    authority: &Authority,
    port: u16,
    etcd_url: &str,
) -> Result<Process> {
    let names = ["127.0.0.1", "10.0.0.1", "localhost", "kubernetes.default.svc"];
    let (certificate, key) = authority.server("kube-apiserver", &names)?;
    let (account_public, account_private) = authority.service_account_key()?;
    let mut args = vec![
        format!("--etcd-servers={etcd_url}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        // Without it the server looks for a default route, and ends if the
        // machine is in no network.
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--tls-cert-file={}", certificate.display()),
        format!("--tls-private-key-file={}", key.display()),
        format!("--client-ca-file={}", authority.ca_file().display()),
        // Nobody has a certificate of this name; without these flags the other
        // parts complain in their logs for ever.
        format!("--requestheader-client-ca-file={}", authority.ca_file().display()),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", account_public.display()),
        format!("--service-account-signing-key-file={}", account_private.display()),
        "--service-cluster-ip-range=10.0.0.0/16".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
        // The lab's clients are few and trusted; sharing fairly between them
        // would only hide how many requests the operator makes.
        "--enable-priority-and-fairness=false".to_owned(),
    ];
    args.extend(kubelet_client(layout, authority)?);
    start(layout, "kube-apiserver", &binaries.kubernetes.join("kube-apiserver"), args)
}

/// How the API server reaches kubelets of real nodes, for logs and exec.
fn kubelet_client(layout: &Layout, authority: &Authority) -> Result<[String; 4]> {
    let certified = authority.client("kube-apiserver", &["system:masters"])?;
    let certificate = layout.pki().join("kubelet-client.crt");
    let key = layout.pki().join("kubelet-client.key");
    fs::write(&certificate, certified.certificate)?;
    fs::write(&key, certified.key)?;
    Ok([
        format!("--kubelet-client-certificate={}", certificate.display()),
        format!("--kubelet-client-key={}", key.display()),
        format!("--kubelet-certificate-authority={}", authority.ca_file().display()),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ])
}

/// Starts a part that talks to the API server as `user`; answers the port of
/// its health endpoint too.
fn start_client_of_api(
    layout: &Layout,
    binaries: &Binaries,
    authority: &Authority,
    server: &str,
    name: &str,
    mut args: Vec<String>,
) -> Result<(Process, Port)> {
    let kubeconfig = layout.pki().join(format!("{name}.kubeconfig"));
    write_kubeconfig(&kubeconfig, &authority.kubeconfig(server, &format!("system:{name}"), None)?)?;
    let (certificate, key) = authority.server(name, &["127.0.0.1"])?;
    let port = Port::take()?;
    args.extend([
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", port.number()),
        format!("--tls-cert-file={}", certificate.display()),
        format!("--tls-private-key-file={}", key.display()),
        format!("--authentication-kubeconfig={}", kubeconfig.display()),
        format!("--authorization-kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
    ]);
    Ok((start(layout, name, &binaries.kubernetes.join(name), args)?, port))
}

fn start_controller_manager(
    layout: &Layout,
    binaries: &Binaries,
    authority: &Authority,
    server: &str,
) -> Result<(Process, Port)> {
    let name = "kube-controller-manager";
    let kubeconfig = layout.pki().join(format!("{name}.kubeconfig"));
    let account_key = layout.pki().join("service-account.key");
    let args = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--root-ca-file={}", authority.ca_file().display()),
        format!("--service-account-private-key-file={}", account_key.display()),
        "--use-service-account-credentials=true".to_owned(),
        "--controllers=*".to_owned(),
        // At the default of 20 requests per second a gang of hundreds would
        // wait for its claims, not for the operator.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
    ];
    start_client_of_api(layout, binaries, authority, server, name, args)
}

fn start_scheduler(
    layout: &Layout,
    binaries: &Binaries,
    authority: &Authority,
    server: &str,
) -> Result<(Process, Port)> {
    let name = "kube-scheduler";
    let kubeconfig = layout.pki().join(format!("{name}.kubeconfig"));
    let config = layout.root().join("kube-scheduler.yaml");
    fs::write(
        &config,
        format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\n\
             kind: KubeSchedulerConfiguration\n\
             leaderElection: {{leaderElect: false}}\n\
             clientConnection: {{kubeconfig: {}, qps: 1000, burst: 2000}}\n",
            kubeconfig.display()
        ),
    )?;
    let args = vec![format!("--config={}", config.display())];
    start_client_of_api(layout, binaries, authority, server, name, args)
}
