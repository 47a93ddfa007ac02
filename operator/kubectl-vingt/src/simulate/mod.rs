//! `simulate`: a list of jobs, or a live cluster's own, played against one
//! policy or several; with more GPUs or other guarantees than there are.

mod input;
mod outcome;
mod output;
mod page;
mod play;
mod plot;
mod report;

use std::path::PathBuf;

use clap::{ArgGroup, ValueEnum};
use jiff::SignedDuration;
use vingt_core::model::{PlacementPolicy, Units};
use vingt_core::simulate::fleet::Sort;
use vingt_core::simulate::openb::Mapping;

use crate::api::{Cluster, ConnectArgs};
use crate::screen::Screen;
use crate::{live, whatif};
use input::{Question, Source};

/// Options of `simulate`.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("cluster").args(["nodes", "snapshot", "live"]).required(true)))]
pub struct SimulateArgs {
    /// The jobs: YAML, CSV, or a pod list of the openb trace
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Which partition a share of a GPU in an openb trace stands for
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    mapping: MappingName,
    /// A made-up cluster of so many nodes
    #[arg(long, value_name = "N", requires = "trace", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: Option<u32>,
    /// GPUs of each of its nodes
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    gpus_per_node: u32,
    /// What these GPUs are
    #[arg(long, value_enum, default_value_t, value_name = "CARD")]
    card: Card,
    /// The cluster of this file, as `kubectl vingt snapshot` writes it
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// The cluster as it is now: asks the operator
    #[arg(long)]
    live: bool,
    /// Where the operator is
    #[arg(long, default_value = "vingt-system", value_name = "NAMESPACE")]
    operator_namespace: String,
    /// How places are chosen; more than one are compared [default: learned, or the snapshot's]
    #[arg(long = "policy", value_enum, value_name = "POLICY")]
    policies: Vec<PolicyName>,
    /// As if there were so many GPUs more
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    add_gpus: u32,
    /// As if a tenant were guaranteed so many GPUs
    #[arg(long = "guarantee", value_name = "TENANT=GPUS", value_parser = whatif::share)]
    guarantees: Vec<(String, Units)>,
    /// How long a job of a snapshot runs of which that is not known
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = span)]
    runs: SignedDuration,
    /// Write results.json, plots and a page into this new folder
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Cards of made-up clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Card {
    /// H100s of 80 GB, whole or cut.
    #[default]
    H100,
    /// The same, cut only.
    H100Mig,
    /// The same, whole only.
    H100Whole,
    /// A30s, cut only.
    A30,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum MappingName {
    /// The nearest share of compute.
    #[default]
    Nearest,
    /// The smallest that has the share of compute and memory.
    Ceil,
}

/// The policies as they are spelt here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PolicyName {
    /// By values learnt from the cluster's own jobs.
    Learned,
    /// The GPU with the least room.
    BestFit,
    /// The first GPU.
    FirstFit,
    /// Where the least gets lost to the usual jobs (FGD).
    Fragmentation,
    /// Where the fewest windows get blocked (MFI).
    BlockedWindows,
    /// The GPU with the most room.
    Spread,
}

impl From<PolicyName> for PlacementPolicy {
    fn from(name: PolicyName) -> Self {
        match name {
            PolicyName::Learned => Self::Learned,
            PolicyName::BestFit => Self::BestFit,
            PolicyName::FirstFit => Self::FirstFit,
            PolicyName::Fragmentation => Self::Fragmentation,
            PolicyName::BlockedWindows => Self::BlockedWindows,
            PolicyName::Spread => Self::Spread,
        }
    }
}

fn span(text: &str) -> Result<SignedDuration, String> {
    let span: SignedDuration = text.parse().map_err(|_| "write a time as 90s, 30m, 2h or 1d".to_owned())?;
    if span.is_positive() { Ok(span) } else { Err("it must be more than nothing".to_owned()) }
}

/// Plays, and says what came of it. `online` connects to a cluster, if it is needed.
pub fn run(args: &SimulateArgs, connect: &ConnectArgs, screen: Screen) -> anyhow::Result<()> {
    let folder = args.output.as_deref().map(output::Folder::new).transpose()?;
    let source = match (args.nodes, &args.snapshot) {
        (Some(nodes), _) => {
            let sort = match args.card {
                Card::H100 => Sort::H100Either,
                Card::H100Mig => Sort::H100Mig,
                Card::H100Whole => Sort::H100,
                Card::A30 => Sort::A30Mig,
            };
            Source::Made(nodes, args.gpus_per_node, sort)
        }
        (None, Some(path)) => Source::Recorded(Box::new(live::read(path)?)),
        (None, None) => {
            let fetch = async |cluster: Cluster| live::fetch(&cluster.client, &args.operator_namespace).await;
            Source::Recorded(Box::new(crate::api::online(connect, fetch)?))
        }
    };
    let mapping = match args.mapping {
        MappingName::Nearest => Mapping::Nearest,
        MappingName::Ceil => Mapping::Ceil,
    };
    let question = Question {
        trace: args.trace.clone(),
        mapping,
        add_gpus: args.add_gpus,
        guarantees: args.guarantees.clone(),
        runs_ms: i64::try_from(args.runs.as_millis()).unwrap_or(i64::MAX),
    };
    let scenario = input::scenario(source, &question)?;
    let mut policies: Vec<PlacementPolicy> = Vec::new();
    for policy in args.policies.iter().map(|name| PlacementPolicy::from(*name)) {
        if !policies.contains(&policy) {
            policies.push(policy);
        }
    }
    if policies.is_empty() {
        policies.push(scenario.snapshot.settings.placement);
    }
    let results =
        play::all(&scenario, &policies).map_err(|error| input::explain(&error, args.trace.as_deref()))?;
    print!("{}", report::tables(&results, screen));
    if let Some(folder) = folder {
        output::write(folder, &results)?;
    }
    Ok(())
}
