//! The commands of `cargo lab`.

mod daemon;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::build::{rust, workspace};
use crate::cleanup::{clean, guard};
use crate::demo::Demo;
use crate::lab::{Lab, LabConfig};
use crate::layout::Layout;
use crate::process::tail;
use crate::real_node::host;
use crate::wait::wait_for;

/// A real Kubernetes with emulated GPUs on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build everything, start the lab and leave it running.
    Up(Options),
    /// Start a lab, apply the samples and show what happens.
    Demo(DemoOptions),
    /// Say which labs run, and where.
    Status,
    /// End a lab and remove everything it made.
    Down(Name),
    /// Measure what needs no cluster, in the release profile; `bench --help` says what there is.
    #[command(disable_help_flag = true)]
    Bench(BenchOptions),
    /// What `up` leaves running.
    #[command(hide = true)]
    Serve(Options),
    /// Clean up when the lab's process is gone.
    #[command(hide = true)]
    Guard(Name),
}

#[derive(Debug, Clone, Args)]
struct Name {
    /// Name of the lab; several run side by side.
    #[arg(long, default_value = "lab")]
    name: String,
}

#[derive(Debug, Clone, Args)]
struct Options {
    #[command(flatten)]
    name: Name,
    /// Virtual nodes.
    #[arg(long, default_value_t = 8)]
    nodes: usize,
    /// GPUs of each virtual node.
    #[arg(long, default_value_t = 8)]
    gpus: u32,
    /// How many virtual nodes, the last ones, start with whole GPUs instead of
    /// MIG mode.
    #[arg(long, default_value_t = 2)]
    whole_gpu_nodes: usize,
    /// Let agents switch the MIG mode of idle GPUs.
    #[arg(long)]
    allow_mig_mode_switch: bool,
    /// Leave the chart out: a plain Kubernetes.
    #[arg(long)]
    no_install: bool,
    /// Leave the real node out, also where it could be.
    #[arg(long)]
    no_real_node: bool,
}

#[derive(Debug, Clone, Args)]
struct BenchOptions {
    /// Passed on to the benchmarks' own program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

#[derive(Debug, Clone, Args)]
struct DemoOptions {
    #[command(flatten)]
    lab: Options,
    /// End with a summary instead of leaving the lab running until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Make the sovereign job of the reserve's story so many times more, and say how long it took until it ran.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    claims: usize,
}

impl DemoOptions {
    fn what(&self) -> Demo {
        let lab = &self.lab;
        let story = (lab.nodes, lab.gpus, lab.whole_gpu_nodes, lab.no_install) == (8, 8, 2, false);
        Demo { once: self.once, story, claims: self.claims }
    }
}

impl Options {
    fn real_node(&self) -> bool {
        !self.no_real_node && host::obstacle().is_none()
    }

    /// Says plainly what this machine or user cannot have.
    fn say_what_is_left_out(&self) {
        if self.no_real_node {
            eprintln!("no real node, as asked: pods are played, not run");
        } else if let Some(obstacle) = host::obstacle() {
            eprintln!("*** no real node: {obstacle}. Pods are played, not run. ***");
        }
    }

    fn config(&self) -> Result<LabConfig> {
        Ok(LabConfig {
            virtual_nodes: self.nodes,
            whole_gpu_nodes: self.whole_gpu_nodes,
            gpus_per_node: self.gpus,
            allow_mig_mode_switch: self.allow_mig_mode_switch,
            operator_replicas: 2,
            install: !self.no_install,
            real_node: self.real_node(),
            ..LabConfig::small(&self.name.name, own_program()?)
        })
    }
}

fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("this program cannot find its own file")
}

/// Runs a command.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Up(options) => daemon::up(&options).await?,
        Command::Demo(options) => demo(&options).await?,
        Command::Status => daemon::status()?,
        Command::Down(name) => daemon::down(&Layout::new(&name.name)?).await?,
        Command::Bench(options) => return bench(&options).await,
        Command::Serve(options) => daemon::serve(&options).await?,
        Command::Guard(name) => guard(&Layout::new(&name.name)?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the benchmarks' own program. This one is not built in the release profile, and need not be.
async fn bench(options: &BenchOptions) -> Result<ExitCode> {
    let mut command = rust::cargo();
    command.args(["run", "--release", "--package", "vingt-bench", "--manifest-path"]);
    command.arg(workspace().join("Cargo.toml")).arg("--").args(&options.arguments);
    let status = command.status().await.context("cannot run cargo")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The demo in a lab of its own, which is gone afterwards however it ends.
async fn demo(options: &DemoOptions) -> Result<()> {
    show_messages();
    options.lab.say_what_is_left_out();
    let mut interrupted = Interrupt::new()?;
    let mut lab = tokio::select! {
        lab = Lab::start(options.lab.config()?) => lab?,
        () = interrupted.wait() => {
            eprintln!("interrupted; cleaning up");
            return clean_up_after(&options.lab.name.name).await;
        }
    };
    let shown = tokio::select! {
        shown = crate::demo::run(&mut lab, options.what()) => shown,
        () = interrupted.wait() => Ok(()),
    };
    if shown.is_err() {
        for control in lab.operator().containers() {
            eprintln!("\nthe end of {}:\n{}", control.log.display(), tail(&control.log));
        }
    }
    lab.stop().await?;
    shown?;
    println!("the demo ended well; the lab is gone");
    Ok(())
}

/// Removes what a lab that was dropped while it started has left.
async fn clean_up_after(name: &str) -> Result<()> {
    let layout = Layout::new(name)?;
    let _lock =
        wait_for(Duration::from_secs(30), "the lab's lock", || async { layout.lock().map(Some) }).await?;
    clean(&layout).await
}

/// Ctrl-C, or the polite request to end.
struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    fn new() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Messages to standard error, without time and origin; `RUST_LOG` shows more.
fn show_messages() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,kube_client=off,vingt_e2e::lab=info,vingt_e2e::cli=info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_level(false)
        .try_init();
}
