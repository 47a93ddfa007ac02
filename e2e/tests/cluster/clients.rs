//! Other people's clients of NVML, unchanged from `PyPI`, on a node of the lab
//! while jobs run there.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use sha2::{Digest, Sha256};
use tokio::process::Command;
use vingt_e2e::virtual_node::VirtualNode;

use crate::manifests::job;
use crate::space::{Space, emulator, partitions};
use crate::suite::{Needs, Suite};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.trial(
        "clients: nvidia-ml-py and nvitop list the GPUs and the running jobs' partitions",
        Needs::mig("clients", 1),
        |s| Box::pin(python(s)),
    )]
}

const PACKAGES: [&str; 3] = ["nvidia-ml-py==13.615.71", "nvitop==1.7.2", "psutil==7.2.2"];

/// Prints a line per device.
const LIST: &str = r"
from pynvml import *
nvmlInit()
for index in range(nvmlDeviceGetCount()):
    gpu = nvmlDeviceGetHandleByIndex(index)
    print('GPU', nvmlDeviceGetUUID(gpu), nvmlDeviceGetName(gpu), nvmlDeviceGetMemoryInfo(gpu).total >> 20, sep='|')
    for number in range(nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            mig = nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)
        except NVMLError_NotFound:
            continue
        memory = nvmlDeviceGetMemoryInfo(mig).total >> 20
        print('MIG', nvmlDeviceGetUUID(mig), nvmlDeviceGetName(mig), memory, sep='|')
";

async fn python(space: &Space<'_>) -> Result<()> {
    let python = match environment().await {
        Ok(python) => python,
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("\n*** SKIPPED: nvidia-ml-py and nvitop were not tried: {error:#} ***\n");
            return Ok(());
        }
        Err(error) => return Err(error.context("CI must not skip the Python clients")),
    };
    let node = space.node(0)?;
    space.apply(&job("small", 2, "profile: 1g.10gb")).await?;
    space.apply(&job("large", 1, "profile: 3g.40gb")).await?;
    space.training_is("small", "Running").await?;
    space.training_is("large", "Running").await?;
    space.holds(3).await?;

    let mut expected: Vec<String> = emulator(node)?
        .occupancy()?
        .iter()
        .map(|gpu| format!("GPU|{}|NVIDIA H100 80GB HBM3|81559", gpu.uuid))
        .collect();
    for partition in partitions(node)?.values() {
        let memory = match partition.profile.as_str() {
            "1g.10gb" => 9984,
            "3g.40gb" => 40448,
            other => bail!("no job asked for {other}"),
        };
        let profile = &partition.profile;
        let lines = partition
            .uuids
            .iter()
            .map(|uuid| format!("MIG|{uuid}|NVIDIA H100 80GB HBM3 MIG {profile}|{memory}"));
        expected.extend(lines);
    }
    let listed = run(&python, &["-c", LIST], node).await?;
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    expected.sort();
    ensure!(listed == expected, "nvidia-ml-py lists {listed:#?}\ninstead of {expected:#?}");

    let screen = run(&python, &["-m", "nvitop", "--once"], node).await?;
    let count = |words: &str| screen.lines().filter(|line| line.contains(words)).count();
    ensure!(count("1g.10gb @ GI/CI") == 2, "nvitop shows other than two 1g.10gb:\n{screen}");
    ensure!(count("3g.40gb @ GI/CI") == 1, "nvitop shows other than one 3g.40gb:\n{screen}");
    ensure!(count("H100 80GB HBM3") >= 8, "nvitop shows fewer than eight GPUs:\n{screen}");
    Ok(())
}

/// Runs Python on a node: with its driver's library, and nothing else of it.
async fn run(python: &Path, args: &[&str], node: &VirtualNode) -> Result<String> {
    let root = node.folder().join("gpu");
    let mut command = Command::new(python);
    command.args(args).env("LD_LIBRARY_PATH", &root).env("VINGT_EMULATOR_ROOT", &root);
    command.envs([("TERM", "xterm"), ("COLUMNS", "130"), ("PYTHONIOENCODING", "utf-8")]);
    output(command).await
}

/// The Python of a virtual environment with the packages, made once and kept
/// in the cache folder.
async fn environment() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?.join("vingt");
    let hash = Sha256::digest(PACKAGES.join(" "));
    let folder =
        cache.join(format!("python-e2e-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]));
    let python = folder.join("bin/python");
    if python.exists() {
        return Ok(python);
    }
    std::fs::create_dir_all(&cache)?;
    let new = folder.with_extension(format!("new-{}", std::process::id()));
    let made = async {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&new);
        output(venv).await?;
        let mut pip = Command::new(new.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
        output(pip).await?;
        Ok(std::fs::rename(&new, &folder)?)
    };
    let made: Result<()> = made.await;
    if made.is_err() {
        // What is half made is of no use; why is what is told.
        let _ = std::fs::remove_dir_all(&new);
    }
    // Another process may have been faster.
    if python.exists() { Ok(python) } else { made.map(|()| python) }
}

async fn output(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
