//! The command line, and which command does what.

use std::io::IsTerminal as _;
use std::net::SocketAddr;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Stack of the threads that decide: the CEL library recurses.
const STACK_BYTES: usize = 32 << 20;

/// The operator of vingt: decides which job runs on which part of which GPU.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Form of the log on standard error.
    #[arg(long, global = true, env = "VINGT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator.
    Run(RunArgs),
    /// Check that everything is installed and at work (`helm test`).
    Check(CheckArgs),
    /// Take back what would be left behind, before the chart is uninstalled.
    Cleanup(CleanupArgs),
}

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Namespace of the operator, for its lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "vingt-system")]
    pub namespace: String,
    /// Name of this process among those that take part in the election.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "VINGT_HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    pub http_address: SocketAddr,
    /// Name of the lease that the leader holds.
    #[arg(long, env = "VINGT_LEASE_NAME", default_value = "vingt-operator")]
    pub lease_name: String,
    /// File with the settings of how decisions are made, in YAML; it is read again when it changes.
    #[arg(long, env = "VINGT_SETTINGS")]
    pub settings: Option<std::path::PathBuf>,
}

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Namespace of the operator and the agents.
    #[arg(long, env = "POD_NAMESPACE", default_value = "vingt-system")]
    pub namespace: String,
    /// Name of the lease that the leader holds.
    #[arg(long, env = "VINGT_LEASE_NAME", default_value = "vingt-operator")]
    pub lease_name: String,
    /// The chart was installed without its admission policies.
    #[arg(long, env = "VINGT_WITHOUT_POLICIES")]
    pub without_policies: bool,
}

/// Options of `cleanup`.
#[derive(Debug, clap::Args)]
pub struct CleanupArgs {
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = "vingt-system")]
    pub namespace: String,
    /// Name of the lease that the leader holds.
    #[arg(long, env = "VINGT_LEASE_NAME", default_value = "vingt-operator")]
    pub lease_name: String,
    /// Name of the operator's Deployment.
    #[arg(long, env = "VINGT_DEPLOYMENT", default_value = "vingt-operator")]
    pub deployment: String,
}

/// Reads the command line and runs the command.
pub fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match cli.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
    runtime.block_on(async {
        // The engine must be on a thread of the runtime, for its stack.
        tokio::spawn(dispatch(cli.command)).await?
    })
}

async fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => crate::run::run(args).await,
        Command::Check(args) => crate::check::check(args).await,
        Command::Cleanup(args) => crate::cleanup::cleanup(args).await,
    }
}
