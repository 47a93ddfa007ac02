//! The command line: every flag of `run` can also be given as an environment
//! variable, which is how the chart sets them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// vingt's node agent.
#[derive(Debug, Parser)]
#[command(
    name = "vingt-agent",
    version,
    about = "Publishes a node's GPUs and makes MIG partitions for decided claims"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Form of the log lines.
    #[arg(long, global = true, env = "VINGT_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve this node until told to stop.
    Run(Box<RunOptions>),
    /// Print the GPUs and partitions that NVML shows here; needs no Kubernetes.
    Devices(DevicesOptions),
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Name of this node.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// The kubelet's folder; its plugin sockets are made under it.
    #[arg(long, env = "VINGT_KUBELET_DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// Folder of the journal; must outlive the agent.
    #[arg(long, env = "VINGT_STATE_DIR", default_value = "/var/lib/vingt")]
    pub state_dir: PathBuf,
    /// Folder in which the container runtime finds CDI specs.
    #[arg(long, env = "VINGT_CDI_DIR", default_value = "/var/run/cdi")]
    pub cdi_dir: PathBuf,
    /// The NVML library: a path, or a name that is looked for under the driver's root.
    #[arg(long, env = "VINGT_NVML_LIBRARY", default_value = "libnvidia-ml.so.1")]
    pub nvml_library: OsString,
    /// The node's /proc.
    #[arg(long, env = "VINGT_PROC_ROOT", default_value = "/proc")]
    pub proc_root: PathBuf,
    /// The node's /sys.
    #[arg(long, env = "VINGT_SYS_ROOT", default_value = "/sys")]
    pub sys_root: PathBuf,
    /// Root under which the driver's files lie, as the agent sees it.
    #[arg(long, env = "VINGT_DRIVER_ROOT", default_value = "/")]
    pub driver_root: PathBuf,
    /// The same root as the container runtime sees it; as the agent sees it if not given.
    #[arg(long, env = "VINGT_HOST_DRIVER_ROOT")]
    pub host_driver_root: Option<PathBuf>,
    /// Allow the MIG mode of idle GPUs (Hopper and newer) to be switched as claims need it.
    #[arg(long, env = "VINGT_ALLOW_MIG_MODE_SWITCH")]
    pub allow_mig_mode_switch: bool,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "VINGT_HTTP_ADDRESS", default_value = "0.0.0.0:9400")]
    pub http_address: SocketAddr,
    /// More files for every container: HOST:CONTAINER. May be given again, or comma separated.
    #[arg(long, env = "VINGT_CDI_MOUNT", value_delimiter = ',', value_parser = mount)]
    pub cdi_mount: Vec<(PathBuf, PathBuf)>,
    /// More environment for every container: NAME=VALUE. May be given again, or comma separated.
    #[arg(long, env = "VINGT_CDI_ENV", value_delimiter = ',', value_parser = variable)]
    pub cdi_env: Vec<String>,
}

/// Options of `devices`.
#[derive(Clone, Debug, Args)]
pub struct DevicesOptions {
    /// Form of the output.
    #[arg(short, long, default_value = "table")]
    pub output: Output,
    /// The NVML library, a name for the loader or a path.
    #[arg(long, env = "VINGT_NVML_LIBRARY", default_value = "libnvidia-ml.so.1")]
    pub nvml_library: OsString,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    Table,
    /// JSON.
    Json,
}

fn mount(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.split_once(':') {
        Some((host, container)) if host.starts_with('/') && container.starts_with('/') => {
            Ok((host.into(), container.into()))
        }
        _ => Err("expected two absolute paths as HOST:CONTAINER".to_owned()),
    }
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_from_repeated_flags_and_from_commas() {
        let run = |arguments: &[&str]| {
            let all = ["vingt-agent", "run", "--node-name", "n"].iter().chain(arguments);
            match Cli::try_parse_from(all).map(|cli| cli.command) {
                Ok(Command::Run(options)) => Ok(options),
                Ok(Command::Devices(_)) => panic!("not run"),
                Err(error) => Err(error.to_string()),
            }
        };
        let options = run(&["--cdi-mount", "/a:/b,/c:/d", "--cdi-env", "A=1", "--cdi-env", "B=x=y"]).unwrap();
        assert_eq!(options.cdi_mount, [("/a".into(), "/b".into()), ("/c".into(), "/d".into())]);
        assert_eq!(options.cdi_env, ["A=1", "B=x=y"]);
        assert!(run(&["--cdi-mount", "a:/b"]).unwrap_err().contains("HOST:CONTAINER"));
        assert!(run(&["--cdi-env", "=1"]).unwrap_err().contains("NAME=VALUE"));
    }
}
