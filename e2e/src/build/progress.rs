//! What the user sees while something takes long: a bar on a terminal, plain
//! lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line says how far a long step is.
const PLAIN_EVERY: Duration = Duration::from_secs(20);

/// One step that takes a while.
#[derive(Debug)]
pub struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Begins a step. `total` is the number of things to do, 0 if unknown.
    pub fn start(what: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = if total == 0 {
                "{spinner} {prefix}  {elapsed}  {wide_msg}"
            } else {
                "{spinner} {prefix}  [{bar:30}] {pos}/{len}  {elapsed}  {wide_msg}"
            };
            let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_spinner());
            let bar = ProgressBar::new(total).with_style(style).with_prefix(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            eprintln!("{what} …");
        }
        let now = Instant::now();
        Self { what: what.to_owned(), bar, total, done: 0, started: now, last_line: now }
    }

    /// One more thing is done; `message` names it.
    pub fn advance(&mut self, message: &str) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done.min(self.total));
            bar.set_message(message.to_owned());
        } else if self.last_line.elapsed() > PLAIN_EVERY {
            self.last_line = Instant::now();
            let seconds = self.started.elapsed().as_secs();
            if self.total == 0 {
                eprintln!("{}: {seconds} s, {message}", self.what);
            } else {
                eprintln!("{}: {}/{}, {seconds} s", self.what, self.done, self.total);
            }
        }
    }

    /// The step is done.
    pub fn finish(self) {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}: done in {seconds:.1} s", self.what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
