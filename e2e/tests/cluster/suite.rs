//! What all trials share: the runtime, the lab (started when the first trial
//! asks for it), and how a trial is run and reported.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinHandle;
use vingt_e2e::layout::Layout;
use vingt_e2e::{Lab, LabConfig, wait_for};

use crate::audit::Auditor;
use crate::dump;
use crate::nodes::{Nodes, Pool};
use crate::space::Space;

/// A trial that takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(240);
/// How long a trial waits for nodes, or the suite for a lab, that others use.
const PATIENCE: Duration = Duration::from_secs(600);
/// GPUs of each virtual node.
const GPUS: u32 = 8;
/// Virtual nodes, and how many of them have whole GPUs. The first is no trial's:
/// the operator runs there, and trials switch their nodes off.
const NODES: usize = 9;
const WHOLE: usize = 2;

/// What a trial does, once it has its place.
pub type Work<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// What a trial needs.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Its namespace is `t-<id>`.
    pub id: &'static str,
    /// Its own nodes.
    pub nodes: Nodes,
    /// GPUs its tenant may hold, empty for all; without, there is no tenant.
    pub limit: Option<&'static str>,
}

impl Needs {
    /// A tenant without a limit, and `mig` nodes in MIG mode.
    pub const fn mig(id: &'static str, mig: usize) -> Self {
        Self { id, nodes: Nodes { mig, whole: 0 }, limit: Some("") }
    }
}

/// The suite.
#[derive(Clone)]
pub struct Suite {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    lab: Mutex<State>,
    pool: Pool,
}

enum State {
    New,
    Running(Running),
    /// It did not start; one trial says why, the others that they depend on it.
    Broken,
}

#[derive(Clone)]
struct Running {
    lab: Arc<RwLock<Lab>>,
    auditor: Arc<Auditor>,
    watch: Arc<JoinHandle<()>>,
}

impl Suite {
    /// A suite whose lab is not started yet.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let pool = Pool::new(1..NODES, NODES - WHOLE);
        Ok(Self { inner: Arc::new(Inner { runtime, lab: Mutex::new(State::New), pool }) })
    }

    /// A trial that needs no lab.
    pub fn plain<F>(&self, name: &str, work: F) -> Trial
    where
        F: FnOnce() -> Work<'static> + Send + 'static,
    {
        self.test(name, move |_| work())
    }

    /// A trial that has the whole lab for itself.
    pub fn alone<F>(&self, name: &str, work: F) -> Trial
    where
        F: for<'a> FnOnce(&'a mut Lab, &'a Auditor) -> Work<'a> + Send + 'static,
    {
        self.test(name, move |suite| {
            Box::pin(async move {
                let running = suite.lab().await?;
                let mut lab = running.lab.write().await;
                limited(work(&mut lab, &running.auditor)).await
            })
        })
    }

    /// A trial that shares the lab with others, in a place of its own.
    pub fn trial<F>(&self, name: &str, needs: Needs, work: F) -> Trial
    where
        F: for<'a> FnOnce(&'a Space<'a>) -> Work<'a> + Send + 'static,
    {
        self.test(name, move |suite| Box::pin(suite.share(needs, work)))
    }

    fn test<F>(&self, name: &str, work: F) -> Trial
    where
        F: FnOnce(Self) -> Work<'static> + Send + 'static,
    {
        let suite = self.clone();
        let title = name.to_owned();
        Trial::test(name, move || {
            let started = Instant::now();
            let result = suite.inner.runtime.block_on(work(suite.clone()));
            let seconds = started.elapsed().as_secs_f64();
            match &result {
                Ok(()) => eprintln!("{seconds:6.1} s  {title}"),
                // At once, and not only when all are done.
                Err(error) => eprintln!("{seconds:6.1} s  {title}\n          FAILED: {error:#}"),
            }
            result.map_err(|error| Failed::from(format!("{error:#}")))
        })
    }

    async fn share<F>(self, needs: Needs, work: F) -> Result<()>
    where
        F: for<'a> FnOnce(&'a Space<'a>) -> Work<'a> + Send,
    {
        let running = self.lab().await?;
        let lease = tokio::time::timeout(PATIENCE, self.inner.pool.take(needs.nodes)).await;
        let mut lease = lease.context("no clean nodes are left; see the trials that failed before")?;
        let lab = running.lab.read().await;
        let nodes = lease.nodes.clone();
        let found = running.auditor.found();
        let space = Space::make(&lab, &running.auditor, needs.id, nodes, needs.limit).await?;
        let result = async {
            limited(work(&space)).await?;
            running.auditor.look().await?;
            running.auditor.verdict(found)
        };
        let result = result.await;
        if result.is_err() {
            eprintln!("{}", dump::of(&space).await);
        }
        // A trial that leaves something behind has failed, too.
        let removed = limited(Box::pin(space.remove())).await;
        if removed.is_err() {
            lease.spoil();
        }
        result.and(removed)
    }

    async fn lab(&self) -> Result<Running> {
        let mut state = self.inner.lab.lock().await;
        match &*state {
            State::Running(running) => Ok(running.clone()),
            State::Broken => Err(anyhow!("the lab did not start; another trial says why")),
            State::New => {
                *state = State::Broken;
                let started = Instant::now();
                let lab = start(config()).await.context("the lab did not start")?;
                eprintln!("{:6.1} s  until the lab was up", started.elapsed().as_secs_f64());
                let folders =
                    lab.nodes().iter().map(|node| (node.name().to_owned(), node.folder().join("gpu")));
                let auditor = Auditor::new(lab.admin(), folders.collect::<BTreeMap<_, _>>());
                let watch = Arc::new(tokio::spawn(auditor.clone().watch()));
                let running = Running { lab: Arc::new(RwLock::new(lab)), auditor, watch };
                *state = State::Running(running.clone());
                Ok(running)
            }
        }
    }

    /// Takes the lab down, whatever happened in it.
    pub fn stop(self) -> Result<()> {
        self.inner.runtime.block_on(async {
            let state = std::mem::replace(&mut *self.inner.lab.lock().await, State::Broken);
            let State::Running(running) = state else { return Ok(()) };
            running.watch.abort();
            let lab = Arc::into_inner(running.lab).context("a trial still holds the lab")?;
            lab.into_inner().stop().await
        })
    }
}

async fn limited(work: Work<'_>) -> Result<()> {
    let late: Error = anyhow!("the trial was not done after {LONGEST:?}");
    tokio::time::timeout(LONGEST, work).await.unwrap_or(Err(late))
}

/// Starts a lab; waits while another run of the suite has one of its name.
pub async fn start(config: LabConfig) -> Result<Lab> {
    let layout = Layout::new(&config.name)?;
    let what = format!("another run of the suite to end, which has the lab {}", config.name);
    let lock = wait_for(PATIENCE, &what, || async { layout.lock().map(Some) }).await?;
    Lab::start_locked(config, lock).await
}

fn config() -> LabConfig {
    LabConfig {
        virtual_nodes: NODES,
        whole_gpu_nodes: WHOLE,
        gpus_per_node: GPUS,
        values: serde_json::json!({"operator": {"nodeSelector": {"kubernetes.io/hostname": "node-0"}}}),
        ..LabConfig::small("t-suite", env!("CARGO_BIN_EXE_lab"))
    }
}
