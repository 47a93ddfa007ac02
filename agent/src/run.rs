//! Wires the agent together and keeps it running: the edge, where clients are
//! made, tasks started and signals heard.

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cdi::{Cdi, CdiConfig};
use crate::claims::KubeClaims;
use crate::cli::{Cli, Command, LogFormat, Output, RunOptions};
use crate::http::{Pages, router};
use crate::inventory::{self, Pool};
use crate::journal::{Boot, Found, Journal, JournalError};
use crate::metrics::Metrics;
use crate::nvml::{Fault, Nvml, Session};
use crate::plugin::{self, Sockets};
use crate::preparer::{Parts, Preparer, Sweep};
use crate::publish::Publisher;
use crate::status::{Part, Readiness};
use crate::steps::Unobserved;
use crate::{devices, system};

/// How often the GPUs are read anew.
const INVENTORY: Duration = Duration::from_secs(10);
/// How often the journal is swept.
const SWEEP: Duration = Duration::from_secs(30);
/// How often what failed at the start is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often a node without GPUs is looked at.
const HARDWARE: Duration = Duration::from_secs(5);
/// How long the parts have to stop.
const STOP: Duration = Duration::from_secs(20);

/// Runs a command to its end.
pub fn main(cli: Cli) -> anyhow::Result<()> {
    log_to_stderr(cli.log_format, if matches!(cli.command, Command::Devices(_)) { "warn" } else { "info" });
    match cli.command {
        Command::Devices(options) => {
            let gpus = devices::seen(&options.nvml_library)?;
            match options.output {
                Output::Table => print!("{}", devices::table(&gpus)),
                Output::Json => println!("{}", serde_json::to_string_pretty(&gpus)?),
            }
            Ok(())
        }
        Command::Run(options) => {
            // Few threads: the agent mostly waits, and its memory counts on every node.
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let result = runtime.block_on(run(*options));
            // A driver call that never returns must not keep the process.
            runtime.shutdown_background();
            result
        }
    }
}

/// `level` is what is logged unless `RUST_LOG` says otherwise.
fn log_to_stderr(format: LogFormat, level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn run(options: RunOptions) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let signalled = stop.clone();
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(signal = first, "stopping");
        signalled.cancel();
        let second = signals.next().await;
        tracing::warn!(signal = second, "aborting");
        std::process::exit(1);
    });

    let metrics = Arc::new(Metrics::new()?);
    let nvml = Nvml::start(options.nvml_library.clone(), options.driver_root.clone())
        .context("the NVML thread cannot be started")?;
    let readiness = Arc::new(Readiness::new(nvml.clone()));
    let preparer = Arc::new(OnceLock::new());

    let listener = tokio::net::TcpListener::bind(options.http_address)
        .await
        .with_context(|| format!("cannot listen on {} (--http-address)", options.http_address))?;
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    let pages = Pages { metrics: metrics.clone(), readiness: readiness.clone(), preparer: preparer.clone() };
    let stop_http = stop.clone().cancelled_owned();
    tasks.spawn(
        async move { Ok(axum::serve(listener, router(pages)).with_graceful_shutdown(stop_http).await?) },
    );
    tasks.spawn(watch_over(nvml.clone(), stop.clone()));
    let node = Node { options, nvml, metrics, readiness, stop: stop.clone() };
    tasks.spawn(node.serve(preparer));

    if let Some(ended) = tasks.join_next().await {
        ended.context("a part of the agent ended early")??;
        if !stop.is_cancelled() {
            bail!("a part of the agent ended early");
        }
    }
    let left = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP, left).await.is_err() {
        tracing::warn!("not everything stopped in time; the next start settles the rest");
    }
    Ok(())
}

/// Fails when the NVML thread has ended, which nothing but a new start of the agent mends.
async fn watch_over(nvml: Nvml, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = nvml.stopped() => Err(Fault::Stopped.into()),
        () = stop.cancelled() => Ok(()),
    }
}

/// What the parts of a node's agent share.
#[derive(Clone)]
struct Node {
    options: RunOptions,
    nvml: Nvml,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
}

impl Node {
    async fn serve(self, shared: Arc<OnceLock<Preparer>>) -> anyhow::Result<()> {
        let client = kube::Client::try_default()
            .await
            .context("no way to the API server: set KUBECONFIG, or run in a pod with a service account")?;
        let stop = self.stop.clone();
        let start = async {
            let boot = self.boot().await;
            Ok::<_, anyhow::Error>((self.preparer(&client, boot.clone()).await?, boot))
        };
        let (started, boot) = tokio::select! {
            started = start => started?,
            () = stop.cancelled() => return Ok(()),
        };
        let preparer = shared.get_or_init(|| started).clone();

        let (send, pools) = watch::channel(None);
        let publisher = Publisher::new(
            client,
            self.options.node_name.clone(),
            self.metrics.clone(),
            self.readiness.clone(),
        );
        let sockets = Sockets::under(&self.options.kubelet_dir);
        let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
        let (on_stop, on_kubelet) = (self.stop.clone(), self.stop.clone());
        tasks.spawn(async move {
            publisher.run(pools, on_stop).await;
            Ok(())
        });
        let (plugged, readiness) = (preparer.clone(), self.readiness.clone());
        tasks.spawn(async move {
            plugin::serve(sockets, plugged, readiness, on_kubelet)
                .await
                .context("the kubelet cannot be served")
        });
        let (telling, on_end) = (preparer.clone(), self.stop.clone());
        tasks.spawn(async move {
            telling.tell_ends(on_end).await;
            Ok(())
        });
        tasks.spawn(self.clone().take_inventory(preparer.clone(), boot, send));
        tasks.spawn(self.clone().sweep(preparer));
        while let Some(ended) = tasks.join_next().await {
            ended.context("a part of the agent ended early")??;
            if !self.stop.is_cancelled() {
                bail!("a part of the agent ended early");
            }
        }
        Ok(())
    }

    /// Tries until the GPUs can be read; then the driver is loaded, and which one can be told.
    async fn boot(&self) -> Boot {
        let RunOptions { proc_root, sys_root, .. } = &self.options;
        loop {
            if !system::has_nvidia(proc_root, sys_root) {
                self.nothing_to_serve().await;
            }
            match self.nvml.call(Session::inventory).await {
                Ok(_) => return system::boot(proc_root, sys_root),
                Err(fault) => {
                    let why = format!("the journal is not read before the GPUs are: {fault}");
                    self.wait(Part::Journal, &why).await;
                }
            }
        }
    }

    /// Waits, ready, until there is something to serve: the agent runs on every node of a cluster
    /// in which not all have GPUs.
    async fn nothing_to_serve(&self) {
        let why = "no NVIDIA GPU on this node";
        tracing::info!("{why}; there is nothing to serve");
        self.readiness.nothing_to_serve(Some(why.to_owned()));
        while !system::has_nvidia(&self.options.proc_root, &self.options.sys_root) {
            tokio::time::sleep(HARDWARE).await;
        }
        tracing::info!("there is an NVIDIA GPU now");
        self.readiness.nothing_to_serve(None);
    }

    /// Opens the journal and settles what the last run left; tries until both succeed.
    async fn preparer(&self, client: &kube::Client, boot: Boot) -> anyhow::Result<Preparer> {
        let options = &self.options;
        let (journal, found) = loop {
            match Journal::open(&options.state_dir, boot.clone(), Arc::new(Unobserved)) {
                Ok(opened) => break opened,
                Err(JournalError::Io { folder, error }) => {
                    let folder = folder.display();
                    return Err(error).with_context(|| format!("state folder {folder} (--state-dir)"));
                }
                Err(held) => self.wait(Part::Journal, &held.to_string()).await,
            }
        };
        if matches!(found, Found::Corrupt(_)) {
            self.metrics.journal_corrupt();
        }
        let cdi = CdiConfig {
            folder: options.cdi_dir.clone(),
            proc_root: options.proc_root.clone(),
            driver_root: options.driver_root.clone(),
            host_driver_root: options.host_driver_root.clone().unwrap_or_else(|| options.driver_root.clone()),
            mounts: options.cdi_mount.clone(),
            env: options.cdi_env.clone(),
        };
        let preparer = Preparer::new(Parts {
            node: options.node_name.clone(),
            nvml: self.nvml.clone(),
            journal,
            claims: Arc::new(KubeClaims::new(client.clone())),
            cdi: Cdi::new(cdi, Arc::new(Unobserved)),
            allow_mig_mode_switch: options.allow_mig_mode_switch,
            steps: Arc::new(Unobserved),
            metrics: self.metrics.clone(),
        });
        while let Err(refusal) = preparer.recover(&found).await {
            self.wait(Part::Journal, &format!("the journal cannot be settled yet: {refusal}")).await;
        }
        self.readiness.ready(Part::Journal);
        Ok(preparer)
    }

    async fn wait(&self, part: Part, why: &str) {
        if self.readiness.not_ready(part, why.to_owned()) {
            tracing::warn!("{why}; tried again every {} s", RETRY.as_secs());
        }
        tokio::time::sleep(RETRY).await;
    }

    /// Reads the GPUs now and again, and sends the pool when it is another.
    async fn take_inventory(
        self,
        preparer: Preparer,
        boot: Boot,
        pools: watch::Sender<Option<Pool>>,
    ) -> anyhow::Result<()> {
        let mut unread = None;
        loop {
            if system::boot(&self.options.proc_root, &self.options.sys_root).ended(&boot) {
                // Nothing of ours is left on the GPUs: for the journal this is a reboot.
                bail!("the NVIDIA driver was loaded anew; the agent must start again");
            }
            // Ours is what the journal knew before the reading or after it: a claim that came or
            // went meanwhile must not look like somebody else's.
            let mut ours = preparer.journal().targets();
            match self.nvml.call(Session::inventory).await {
                Ok(inventory) => {
                    unread = None;
                    preparer.note_lost(&inventory).await;
                    ours.extend(preparer.journal().targets());
                    let pool = inventory::pool(&inventory, &ours, self.options.allow_mig_mode_switch);
                    self.metrics.pool(&pool);
                    pools.send_if_modified(|last| {
                        let withheld = last.as_ref().map(|last| &last.withheld);
                        if withheld != Some(&pool.withheld) {
                            for withheld in &pool.withheld {
                                tracing::warn!(
                                    what = withheld.what,
                                    why = withheld.why,
                                    "not published, or not wholly"
                                );
                            }
                        }
                        let changed = last.as_ref() != Some(&pool);
                        *last = Some(pool);
                        changed
                    });
                }
                // What is published stays: the devices are not gone because they cannot be read now.
                Err(fault) => {
                    if unread.as_ref() != Some(&fault) {
                        tracing::error!(%fault, "the GPUs cannot be read");
                    }
                    unread = Some(fault);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(INVENTORY) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn sweep(self, preparer: Preparer) -> anyhow::Result<()> {
        let mut memory = Sweep::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
            preparer.sweep(&mut memory).await;
        }
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_agent_ends_with_its_nvml_thread() {
        let folder = tempfile::TempDir::new().unwrap();
        let gpus = nvml_emulator::NodeDescription::of("h100-sxm5-80gb", 1, true);
        nvml_emulator::Emulator::init(folder.path(), &gpus).unwrap();
        let built = nvml_emulator::library_built_with(&std::env::current_exe().unwrap()).unwrap();
        let library = folder.path().join("libnvidia-ml.so.1");
        std::fs::copy(built, &library).unwrap();

        let start = || Nvml::start(library.clone().into_os_string(), "/".into()).unwrap();
        let (nvml, stop) = (start(), CancellationToken::new());
        let watching = tokio::spawn(watch_over(nvml.clone(), stop.clone()));
        nvml.call(Session::inventory).await.unwrap();
        assert!(!watching.is_finished());
        let broken = |_: &Session| -> Result<(), Fault> { panic!("as in a bug") };
        assert_eq!(nvml.call(broken).await, Err(Fault::Stopped));
        let ended = tokio::time::timeout(Duration::from_secs(10), watching).await.unwrap().unwrap();
        assert!(ended.unwrap_err().to_string().contains("must be restarted"));

        let watching = tokio::spawn(watch_over(start(), stop.clone()));
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), watching).await.unwrap().unwrap().unwrap();
    }
}
