//! Takes away everything a lab leaves on the machine, also one that crashed.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

use crate::layout::Layout;
use crate::process::end_recorded;
use crate::real_node;
use crate::wait::wait_for;

/// How long a process may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Ends the processes of a lab that nobody runs any more and removes its
/// folder. The caller holds the lab's lock.
pub async fn clean(layout: &Layout) -> Result<()> {
    if !layout.root().exists() {
        return Ok(());
    }
    end_recorded(&layout.records(), GRACE).await;
    real_node::clean(layout).await?;
    wait_for(Duration::from_secs(20), "the lab's folder to be removed", || async {
        match fs::remove_dir_all(layout.root()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(Some(())),
        }
    })
    .await
}

/// A process that cleans up after this one, should it die without a chance to
/// do so itself. It waits for the end of a pipe that only this process holds.
#[derive(Debug)]
pub struct Guard {
    // Dropping it closes the pipe.
    _child: Child,
}

impl Guard {
    /// Starts `lab guard`.
    pub fn start(lab_program: &PathBuf, layout: &Layout) -> Result<Self> {
        let child = Command::new(lab_program)
            .args(["guard", "--name", layout.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at the terminal is for the lab, not for its guard.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", lab_program.display()))?;
        Ok(Self { _child: child })
    }
}

/// What `lab guard` does: waits for the end of its input, then cleans up
/// unless the lab did so itself, or runs again already.
pub async fn guard(layout: &Layout) -> Result<()> {
    let mut input = tokio::io::stdin();
    let _ = tokio::io::copy(&mut input, &mut tokio::io::sink()).await;
    let Ok(_lock) =
        wait_for(Duration::from_secs(5), "the lab's lock", || async { layout.lock().map(Some) }).await
    else {
        return Ok(());
    };
    clean(layout).await
}
