//! The binary `kubectl-vingt`; kubectl finds it as `kubectl vingt`.

mod api;
mod attest;
mod bill;
mod cli;
mod html;
mod lines;
mod live;
mod order;
mod reserve;
mod screen;
mod simulate;
mod top;
mod whatif;
mod why;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<words::BadInput>() { 2 } else { 1 })
        }
    }
}
