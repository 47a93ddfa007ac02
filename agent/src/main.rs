//! The binary `vingt-agent`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match vingt_agent::run::main(vingt_agent::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vingt-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
