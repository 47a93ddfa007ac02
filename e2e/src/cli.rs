//! The commands of `cargo lab`.

mod daemon;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::cleanup::guard;
use crate::lab::LabConfig;
use crate::layout::Layout;

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
    /// Say which labs run, and where.
    Status,
    /// End a lab and remove everything it made.
    Down(Name),
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
}

impl Options {
    fn config(&self) -> Result<LabConfig> {
        Ok(LabConfig {
            virtual_nodes: self.nodes,
            whole_gpu_nodes: self.whole_gpu_nodes,
            gpus_per_node: self.gpus,
            allow_mig_mode_switch: self.allow_mig_mode_switch,
            operator_replicas: 2,
            install: !self.no_install,
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
        Command::Status => daemon::status().await?,
        Command::Down(name) => daemon::down(&Layout::new(&name.name)?).await?,
        Command::Serve(options) => daemon::serve(&options).await?,
        Command::Guard(name) => guard(&Layout::new(&name.name)?).await?,
    }
    Ok(ExitCode::SUCCESS)
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
