//! The binary `vingt-operator`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match vingt_operator::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
