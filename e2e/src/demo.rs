//! `cargo lab demo`: the samples in a fresh lab, from `kubectl apply` to a
//! container that holds its own slice of an H100, and back to nothing.

mod checks;
mod draw;
mod picture;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::build::{has_extension, workspace};
use crate::lab::Lab;
use checks::Expectation;
use picture::Picture;

/// How long the samples may take until everything is as expected.
const DEADLINE: Duration = Duration::from_secs(180);
/// The sample that needs a real node.
const REAL_NODE_SAMPLE: &str = "05-proof.yaml";
/// How often the picture is taken.
const INTERVAL: Duration = Duration::from_millis(500);

/// Applies the samples and shows what happens until all is as it must be, then
/// proves it. With `once` the first job is ended too, and the answer is the
/// summary; without, the picture goes on until the caller drops this.
pub async fn run(lab: &mut Lab, once: bool) -> Result<()> {
    let real_node = lab.real_node().is_some();
    let mut screen = Screen::new();
    let mut picture = Picture::default();
    println!();
    for step in steps(real_node)? {
        for sample in &step.samples {
            let file = workspace().join("e2e/samples").join(sample);
            lab.kubectl(&["apply", "--filename", &file.display().to_string()]).await?;
        }
        screen.say(&format!("kubectl apply --filename e2e/samples/{}", step.samples.join(",")));
        picture = until_as_expected(lab, &mut screen, &step.expectations).await?;
    }
    screen.last(&picture);
    println!("\nall as expected");

    let partitions = checks::nvml_agrees(lab, &picture).await?;
    println!("NVML on the virtual nodes shows exactly the {partitions} allocated partitions");
    if real_node {
        for line in checks::containers_hold_their_own(lab, &picture).await? {
            println!("inside a container: {line}");
        }
    }
    if once {
        let gone = checks::goes_back_to_nothing(lab, "research", "sweep").await?;
        let seconds = gone.as_secs_f64();
        println!("research/sweep deleted: its partitions were destroyed within {seconds:.1} s");
        return Ok(());
    }
    println!("\nThe lab is yours until Ctrl-C:");
    println!("  export KUBECONFIG={}", lab.kubeconfig().display());
    println!("  export PATH={}:$PATH", lab.kubernetes().display());
    println!("Logs are in {}/logs.\n", lab.folder().display());
    let mut screen = Screen::new();
    loop {
        screen.next(lab).await?;
        lab.check()?;
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Samples that are applied together, and what they lead to.
struct Step {
    samples: Vec<String>,
    expectations: Vec<Expectation>,
}

/// All samples. Those for the real node come first: the others would fill it.
fn steps(real_node: bool) -> Result<Vec<Step>> {
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(workspace().join("e2e/samples"))? {
        samples.extend(entry?.file_name().into_string().ok().filter(|name| has_extension(name, "yaml")));
    }
    samples.sort();
    let (first, rest): (Vec<String>, Vec<String>) =
        samples.into_iter().partition(|name| name.as_str() <= REAL_NODE_SAMPLE);
    let first = first.into_iter().filter(|name| real_node || name != REAL_NODE_SAMPLE);
    Ok(vec![
        Step { samples: first.collect(), expectations: checks::on_the_real_node(real_node) },
        Step { samples: rest, expectations: checks::everywhere() },
    ])
}

async fn until_as_expected(
    lab: &mut Lab,
    screen: &mut Screen,
    expectations: &[Expectation],
) -> Result<Picture> {
    let started = Instant::now();
    loop {
        let picture = screen.next(lab).await?;
        let unmet: Vec<String> =
            expectations.iter().filter_map(|expected| expected.unmet(&picture)).collect();
        if unmet.is_empty() {
            return Ok(picture);
        }
        lab.check()?;
        if started.elapsed() > DEADLINE {
            bail!("after {} s: {}", DEADLINE.as_secs(), unmet.join("; "));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Where the picture goes: drawn over itself on a terminal, else one line per
/// change.
struct Screen {
    terminal: bool,
    shown: Picture,
    lines: usize,
    started: Instant,
}

impl Screen {
    fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
            shown: Picture::default(),
            lines: 0,
            started: Instant::now(),
        }
    }

    async fn next(&mut self, lab: &Lab) -> Result<Picture> {
        let new = picture::take(&lab.admin()).await?;
        if new != self.shown {
            if self.terminal {
                self.redraw(&draw::picture(&new, width()));
            } else {
                let seconds = self.started.elapsed().as_secs_f64();
                for line in draw::changes(&self.shown, &new) {
                    println!("{seconds:6.1} s  {line}");
                }
            }
            self.shown = new.clone();
        }
        Ok(new)
    }

    /// Says something above the picture to come.
    fn say(&mut self, what: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        println!("{seconds:6.1} s  {what}");
        self.lines = 0;
        self.shown = if self.terminal { Picture::default() } else { self.shown.clone() };
    }

    fn redraw(&mut self, text: &str) {
        if self.lines > 0 {
            // Up to where the last picture began, and clear from there.
            print!("\x1b[{}A\x1b[J", self.lines);
        }
        print!("{text}");
        let _ = std::io::stdout().flush();
        self.lines = text.lines().count();
    }

    /// The whole picture, where only changes were shown.
    fn last(&self, picture: &Picture) {
        if !self.terminal {
            println!("\n{}", draw::picture(picture, width()));
        }
    }
}

/// Columns of the terminal, or of a log.
fn width() -> u16 {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| size.ws_col)
        .filter(|columns| *columns >= 60)
        .unwrap_or(140)
}
