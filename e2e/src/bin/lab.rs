//! `cargo lab`: brings the local lab up, shows it at work, takes it down.

use std::process::ExitCode;

use clap::Parser;
use vingt_e2e::cli::{Cli, run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
