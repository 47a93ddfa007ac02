//! Other people's clients, unchanged from `PyPI`: `nvidia-ml-py` and `nvitop` list the GPUs and the partitions.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::calls::{gpu, partition, uuid};
use crate::node::Node;

const PACKAGES: [&str; 3] = ["nvidia-ml-py==13.615.71", "nvitop==1.7.2", "psutil==7.2.2"];

/// Prints what the test expects, one line per device.
const LIST: &str = r"
from pynvml import *
nvmlInit()
print(nvmlSystemGetDriverVersion(), nvmlSystemGetCudaDriverVersion(), nvmlDeviceGetCount())
for index in range(nvmlDeviceGetCount()):
    gpu = nvmlDeviceGetHandleByIndex(index)
    print(index, nvmlDeviceGetName(gpu), nvmlDeviceGetUUID(gpu), nvmlDeviceGetMemoryInfo(gpu).total >> 20,
          nvmlDeviceGetMigMode(gpu), nvmlDeviceGetPciInfo(gpu).busId)
    for number in range(nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            mig = nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)
        except NVMLError_NotFound:
            continue
        memory = nvmlDeviceGetMemoryInfo(mig, version=nvmlMemory_v2)
        print(index, number, nvmlDeviceGetName(mig), nvmlDeviceGetUUID(mig), memory.total >> 20, memory.used >> 20,
              [(p.pid, p.usedGpuMemory >> 20, p.gpuInstanceId) for p in nvmlDeviceGetComputeRunningProcesses(mig)])
try:
    nvmlDeviceGetUtilizationRates(gpu)
except NVMLError_NotSupported as error:
    print(error)
try:
    nvmlDeviceGetHandleByIndex(99)
except NVMLError as error:
    print(error)
";

#[test]
fn nvidia_ml_py_and_nvitop_list_gpus_and_partitions() {
    let python = match environment() {
        Ok(python) => python,
        Err(why) => {
            assert!(env::var_os("CI").is_none(), "CI must not skip the Python clients: {why}");
            eprintln!("\n*** SKIPPED: nvidia-ml-py and nvitop were not tried: {why}\n");
            return;
        }
    };
    let node = Node::h100s(2, true);
    let library = node.raw();
    let first = gpu(&library, 0);
    let (_, _, small) = partition(&library, first, (19, 0), (6, 1));
    let (_, _, large) = partition(&library, first, (9, 2), (0, 4));
    let pid = std::process::id();
    node.emulator.add_process(0, Some((1, 0)), pid, 5 << 30).unwrap();

    let occupancy = node.emulator.occupancy().unwrap();
    let (small, large) = (uuid(&library, small).unwrap(), uuid(&library, large).unwrap());
    let listed = run(Command::new(&python).arg("-c").arg(LIST), &node);
    let expected = [
        "580.95.05 13000 2".to_owned(),
        format!("0 NVIDIA H100 80GB HBM3 {} 81559 [1, 1] 00000000:1B:00.0", occupancy[0].uuid),
        format!("0 0 NVIDIA H100 80GB HBM3 MIG 3g.40gb {large} 40448 5120 [({pid}, 5120, 1)]"),
        format!("0 1 NVIDIA H100 80GB HBM3 MIG 1g.10gb {small} 9984 0 []"),
        format!("1 NVIDIA H100 80GB HBM3 {} 81559 [1, 1] 00000000:43:00.0", occupancy[1].uuid),
        "Not Supported".to_owned(),
        "Invalid Argument".to_owned(),
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);

    let screen = run(Command::new(&python).args(["-m", "nvitop", "--once"]), &node);
    for text in [
        "580.95.05",
        "H100 80GB HBM3",
        "00000000:43:00.0",
        "3g.40gb @ GI/CI: 1/0",
        "5120MiB / 39.50GiB",
        "9984MiB",
    ] {
        assert!(screen.contains(text), "nvitop does not show {text:?}:\n{screen}");
    }
    let partitions: Vec<&str> = screen.lines().filter(|line| line.contains("GI/CI")).collect();
    assert_eq!(partitions.len(), 2, "{screen}");
    assert!(partitions[1].contains("1g.10gb @ GI/CI:13/0"), "{screen}");
    let process = screen.lines().find(|line| line.contains(&pid.to_string()));
    assert!(
        process.is_some_and(|line| line.contains("5120MiB")),
        "nvitop does not show the process:\n{screen}"
    );
}

/// Runs a command that loads the node's library by its name, and returns what it prints.
fn run(command: &mut Command, node: &Node) -> String {
    command.env("LD_LIBRARY_PATH", node.root()).env("VINGT_EMULATOR_ROOT", node.root());
    command.envs([("TERM", "xterm"), ("COLUMNS", "130"), ("PYTHONIOENCODING", "utf-8")]);
    text(&command.output().expect("the command starts")).expect("the command succeeds")
}

/// The Python of a virtual environment with the packages; made once and kept in the cache folder.
fn environment() -> Result<PathBuf, String> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?
        .join("vingt");
    let folder = cache.join(format!("python-{:016x}", fnv1a(&PACKAGES.join(" "))));
    let python = folder.join("bin/python");
    if python.exists() {
        return Ok(python);
    }
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let new = folder.with_extension(format!("new-{}", std::process::id()));
    let made = make(&new).and_then(|()| fs::rename(&new, &folder).map_err(|error| error.to_string()));
    if made.is_err() {
        // What is half made is of no use; that it was made is the error to report.
        let _ = fs::remove_dir_all(&new);
    }
    // Another process may have been faster.
    if python.exists() { Ok(python) } else { made.map(|()| python) }
}

fn make(folder: &Path) -> Result<(), String> {
    let output = Command::new("python3").args(["-m", "venv"]).arg(folder).output();
    text(&output.map_err(|error| format!("python3: {error}"))?)?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
    text(&pip.output().map_err(|error| format!("pip: {error}"))?)?;
    Ok(())
}

fn text(output: &Output) -> Result<String, String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// Names the folder by what is in it.
fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
