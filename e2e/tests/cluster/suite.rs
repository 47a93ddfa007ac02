//! What all trials share: the runtime, the lab (started when the first trial
//! asks for it), and how a trial is run and reported.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, RwLock};
use vingt_e2e::{Lab, LabConfig};

/// A trial that takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(300);

/// What a trial does, once it has the lab.
pub type Work<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// The suite.
#[derive(Clone)]
pub struct Suite {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    lab: Mutex<State>,
}

enum State {
    New,
    Running(Arc<RwLock<Lab>>),
    /// It did not start; one trial says why, the others that they depend on it.
    Broken,
}

impl Suite {
    /// A suite whose lab is not started yet.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| {
            eprintln!("no threads: {error}");
            std::process::exit(101)
        });
        Self { inner: Arc::new(Inner { runtime, lab: Mutex::new(State::New) }) }
    }

    /// A trial that needs no lab.
    pub fn plain<F>(&self, name: &str, work: F) -> Trial
    where
        F: FnOnce() -> Work<'static> + Send + 'static,
    {
        let suite = self.clone();
        Trial::test(name, move || suite.run(work()))
    }

    /// A trial that has the whole lab for itself.
    pub fn alone<F>(&self, name: &str, work: F) -> Trial
    where
        F: for<'a> FnOnce(&'a mut Lab) -> Work<'a> + Send + 'static,
    {
        let suite = self.clone();
        Trial::test(name, move || {
            let lab = suite.inner.runtime.block_on(suite.lab()).map_err(failed)?;
            let mut lab = suite.inner.runtime.block_on(lab.write());
            suite.run(work(&mut lab))
        })
    }

    fn run(&self, work: Work<'_>) -> Result<(), Failed> {
        let limited = async {
            tokio::time::timeout(LONGEST, work)
                .await
                .unwrap_or_else(|_| Err(anyhow!("the trial was not done after {LONGEST:?}")))
        };
        self.inner.runtime.block_on(limited).map_err(failed)
    }

    async fn lab(&self) -> Result<Arc<RwLock<Lab>>> {
        let mut state = self.inner.lab.lock().await;
        match &*state {
            State::Running(lab) => Ok(lab.clone()),
            State::Broken => Err(anyhow!("the lab did not start; another trial says why")),
            State::New => {
                *state = State::Broken;
                let started = Instant::now();
                let lab = Lab::start(config()).await.context("the lab did not start")?;
                eprintln!("the lab is up after {:.1} s", started.elapsed().as_secs_f64());
                let lab = Arc::new(RwLock::new(lab));
                *state = State::Running(lab.clone());
                Ok(lab)
            }
        }
    }

    /// Takes the lab down, whatever happened in it.
    pub fn stop(self) -> Result<()> {
        self.inner.runtime.block_on(async {
            let state = std::mem::replace(&mut *self.inner.lab.lock().await, State::Broken);
            let State::Running(lab) = state else { return Ok(()) };
            let lab = Arc::into_inner(lab).context("a trial still holds the lab")?;
            lab.into_inner().stop().await
        })
    }
}

fn config() -> LabConfig {
    LabConfig { virtual_nodes: 4, ..LabConfig::small("t-suite", env!("CARGO_BIN_EXE_lab")) }
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}
