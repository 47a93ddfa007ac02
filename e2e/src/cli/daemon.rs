//! `up`, `status` and `down`: a lab that outlives the command.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::{Interrupt, Options, own_program, show_messages};
use crate::build::go::{Component, ensure_built};
use crate::build::rust;
use crate::cleanup::clean;
use crate::lab::{Lab, LabState, STOP_DEADLINE};
use crate::layout::Layout;
use crate::real_node;
use crate::wait::wait_for;

/// Builds where the user sees it, starts `serve` in the background, and shows
/// what that says until the lab is ready.
pub async fn up(options: &Options) -> Result<()> {
    let layout = Layout::new(&options.name.name)?;
    drop(layout.lock()?);
    // Before the build, which may put another file in its place.
    let program = own_program()?;
    for component in Component::VIRTUAL {
        ensure_built(component).await?;
    }
    if options.real_node() {
        real_node::Binaries::get().await?;
    }
    options.say_what_is_left_out();
    rust::build().await?;

    let log_path = layout.root().with_extension("log");
    let log = fs::File::create(&log_path)?;
    let mut command = Command::new(program);
    command.arg("serve").args(["--name", &options.name.name]);
    command.args(["--nodes", &options.nodes.to_string(), "--gpus", &options.gpus.to_string()]);
    command.args(["--whole-gpu-nodes", &options.whole_gpu_nodes.to_string()]);
    if options.allow_mig_mode_switch {
        command.arg("--allow-mig-mode-switch");
    }
    if options.no_install {
        command.arg("--no-install");
    }
    if options.no_real_node {
        command.arg("--no-real-node");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start the lab's process")?;
    let mut interrupted = Interrupt::new()?;
    let mut shown = 0;
    loop {
        let text = fs::read_to_string(&log_path).unwrap_or_default();
        eprint!("{}", text.get(shown..).unwrap_or_default());
        std::io::stderr().flush()?;
        shown = text.len();
        if read_state(&layout).is_some_and(|state| state.ready) {
            break;
        }
        if let Some(status) = child.try_wait()? {
            bail!("the lab did not start ({status}); see above");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = interrupted.wait() => {
                eprintln!("interrupted; ending the lab");
                return down(&layout).await;
            }
        }
    }
    let state = read_state(&layout).context("the lab ended as it became ready")?;
    println!("\nThe lab \"{}\" runs. To use it:", layout.name());
    println!("  export KUBECONFIG={}", layout.kubeconfig().display());
    println!("  export PATH={}:$PATH", state.kubernetes.display());
    println!("Logs are in {}. `cargo lab down` ends it.", layout.logs().display());
    Ok(())
}

/// Runs a lab until told to end.
pub async fn serve(options: &Options) -> Result<()> {
    show_messages();
    let mut interrupted = Interrupt::new()?;
    let mut lab = tokio::select! {
        lab = Lab::start(options.config()?) => lab?,
        // The guard cleans up what was started by then.
        () = interrupted.wait() => return Ok(()),
    };
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let result = loop {
        tokio::select! {
            () = interrupted.wait() => break Ok(()),
            _ = tick.tick() => if let Err(error) = lab.check() { break Err(error) },
        }
    };
    lab.stop().await?;
    result
}

/// Ends the lab's process, or cleans up after one that is gone.
pub async fn down(layout: &Layout) -> Result<()> {
    if let Some(owner) = layout.owner() {
        owner.end(STOP_DEADLINE).await;
    }
    let lock = wait_for(Duration::from_secs(10), "the lab's process to let go", || async {
        layout.lock().map(Some)
    })
    .await?;
    clean(layout).await?;
    let _ = fs::remove_file(layout.root().with_extension("log"));
    drop(lock);
    println!("the lab \"{}\" is gone", layout.name());
    Ok(())
}

/// One line per lab.
pub fn status() -> Result<()> {
    let names = Layout::existing();
    if names.is_empty() {
        println!("no lab runs");
    }
    for name in names {
        let layout = Layout::new(&name)?;
        let says = match read_state(&layout) {
            _ if layout.owner().is_none() => "was left behind; `cargo lab down` removes it".to_owned(),
            Some(state) if state.ready => format!(
                "runs at {}, {} virtual nodes{}, KUBECONFIG={}",
                state.server,
                state.virtual_nodes,
                if state.real_node { " and a real one" } else { "" },
                layout.kubeconfig().display()
            ),
            _ => "is starting".to_owned(),
        };
        println!("{name}: {says}");
    }
    Ok(())
}

fn read_state(layout: &Layout) -> Option<LabState> {
    serde_json::from_slice(&fs::read(layout.state()).ok()?).ok()
}
