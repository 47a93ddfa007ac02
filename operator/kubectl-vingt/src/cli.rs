//! The command line, and which command does what.

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::api::{ConnectArgs, online};
use crate::attest::{self, AttestArgs};
use crate::bill::{self, BillArgs};
use crate::live;
use crate::order::{self, OrderArgs};
use crate::reserve::{self, ReserveArgs};
use crate::screen::{ColourChoice, Screen};
use crate::simulate::{self, SimulateArgs};
use crate::top::{self, TopArgs};
use crate::why::{self, WhyArgs};

/// See and foresee what vingt does with the GPUs of a cluster.
#[derive(Debug, Parser)]
#[command(name = "kubectl-vingt", bin_name = "kubectl vingt", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Whether to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: ColourChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show nodes, GPUs and partitions, and who holds them
    Top(TopArgs),
    /// Tell what a job waits for, and when it is likely to start
    Why(WhyArgs),
    /// Order GPUs of a sovereign reserve at a time
    Order(OrderArgs),
    /// Show the sovereign reserves: what is left, who holds, what can be claimed
    Reserve(ReserveArgs),
    /// Play jobs against the planner: what if?
    Simulate(SimulateArgs),
    /// Verify the usage reports of a year, and tell what the reserves delivered
    Attest(AttestArgs),
    /// Tell what tenants owe
    Bill(BillArgs),
    /// Print what the operator decides from, for `simulate --snapshot`
    Snapshot {
        /// Where the operator is
        #[arg(long, default_value = "vingt-system", value_name = "NAMESPACE")]
        operator_namespace: String,
    },
    /// Print the version
    Version,
    /// Print a script that completes commands in a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// Reads the command line and runs the command.
pub fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let screen = Screen::stdout(cli.color);
    match cli.command {
        Command::Top(args) => online(&cli.connect, async |cluster| top::run(&cluster, &args, screen).await),
        Command::Why(args) => online(&cli.connect, async |cluster| why::run(&cluster, &args, screen).await),
        Command::Order(args) => {
            online(&cli.connect, async |cluster| order::run(&cluster, &args, screen).await)
        }
        Command::Reserve(args) => {
            online(&cli.connect, async |cluster| reserve::run(&cluster, &args, screen).await)
        }
        Command::Simulate(args) => simulate::run(&args, &cli.connect, screen),
        Command::Attest(args) => attest::run(&args, &cli.connect, screen),
        Command::Bill(args) => bill::run(&args, &cli.connect, screen),
        Command::Snapshot { operator_namespace } => online(&cli.connect, async |cluster| {
            let recorded = live::fetch(&cluster.client, &operator_namespace).await?;
            println!("{}", serde_json::to_string(&recorded)?);
            Ok(())
        }),
        Command::Version => {
            println!("kubectl-vingt {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-vingt", &mut std::io::stdout());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }
}
