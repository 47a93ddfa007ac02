//! `cargo lab demo`: the samples in a fresh lab, from `kubectl apply` to a
//! container that holds its own slice of an H100, and back to nothing.

mod checks;
mod draw;
mod picture;
mod story;

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
/// Where those of the reserve begin.
const RESERVE_SAMPLES: &str = "60-";
/// How often the picture is taken.
const INTERVAL: Duration = Duration::from_millis(500);

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub struct Demo {
    /// The first job is ended too, and that is the end; else the picture goes on until the caller drops it.
    pub once: bool,
    /// The reserve's story is told, too: it needs a lab of the default size.
    pub story: bool,
    /// How often its sovereign job is made once more.
    pub claims: usize,
}

/// Applies the samples and shows what happens until all is as it must be, then
/// proves it.
pub async fn run(lab: &mut Lab, Demo { once, story, claims }: Demo) -> Result<()> {
    let real_node = lab.real_node().is_some();
    let mut screen = Screen::new();
    let mut picture = Picture::default();
    println!();
    for step in steps(real_node)? {
        apply(lab, &mut screen, &step.samples).await?;
        let unmet = |picture: &Picture| {
            let unmet = step.expectations.iter().filter_map(|expected| expected.unmet(picture));
            unmet.reduce(|all, one| format!("{all}; {one}"))
        };
        picture = until(lab, &mut screen, unmet).await?;
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
    if story {
        story::tell(lab, &mut screen, claims).await?;
    } else {
        println!("the story of the reserve needs a lab of the default size, and is left out");
    }
    if once {
        if story {
            // Who waits for a GPU would have others moved into what gets free.
            story::end(lab, &mut screen).await?;
        }
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

/// The samples up to the reserve's. Those for the real node come first: the others would fill it.
fn steps(real_node: bool) -> Result<Vec<Step>> {
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(workspace().join("e2e/samples"))? {
        samples.extend(entry?.file_name().into_string().ok().filter(|name| has_extension(name, "yaml")));
    }
    samples.retain(|name| name.as_str() < RESERVE_SAMPLES);
    samples.sort();
    let (first, rest): (Vec<String>, Vec<String>) =
        samples.into_iter().partition(|name| name.as_str() <= REAL_NODE_SAMPLE);
    let first = first.into_iter().filter(|name| real_node || name != REAL_NODE_SAMPLE);
    Ok(vec![
        Step { samples: first.collect(), expectations: checks::on_the_real_node(real_node) },
        Step { samples: rest, expectations: checks::everywhere() },
    ])
}

/// Applies samples, and says so.
async fn apply<S: AsRef<str>>(lab: &Lab, screen: &mut Screen, samples: &[S]) -> Result<()> {
    let names: Vec<&str> = samples.iter().map(AsRef::as_ref).collect();
    for name in &names {
        let file = workspace().join("e2e/samples").join(name);
        lab.kubectl(&["apply", "--filename", &file.display().to_string()]).await?;
    }
    screen.say(&format!("kubectl apply --filename e2e/samples/{}", names.join(",")));
    Ok(())
}

/// Shows what happens until nothing is `unmet` any more.
async fn until(
    lab: &mut Lab,
    screen: &mut Screen,
    unmet: impl Fn(&Picture) -> Option<String>,
) -> Result<Picture> {
    let started = Instant::now();
    loop {
        let picture = screen.next(lab).await?;
        let Some(unmet) = unmet(&picture) else { return Ok(picture) };
        lab.check()?;
        if started.elapsed() > DEADLINE {
            bail!("after {} s: {unmet}", DEADLINE.as_secs());
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
