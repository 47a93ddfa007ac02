//! `reserve`: how the sovereign reserves stand: the balance of the year, the
//! tokens, who holds and who borrows, and what could be claimed now.

mod book;
mod draw;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kube::ResourceExt as _;
use vingt_crds::{SovereignOrder, SovereignReserve};

use crate::api::Cluster;
use crate::screen::Screen;
use book::Book;

/// Options of `reserve`.
#[derive(Debug, clap::Args)]
pub struct ReserveArgs {
    /// The reserve [default: all]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// As text, or as JSON for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// In which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Shows it.
pub async fn run(cluster: &Cluster, args: &ReserveArgs, screen: Screen) -> anyhow::Result<()> {
    let (reserves, orders) =
        tokio::join!(cluster.list::<SovereignReserve>(""), cluster.list::<SovereignOrder>(""));
    let (orders, note) = match orders {
        Ok(orders) => (orders, None),
        Err(error) => (Vec::new(), Some(format!("orders are not in the forecast: {error:#}"))),
    };
    let now = Timestamp::now();
    let mut reserves = reserves?;
    reserves.retain(|reserve| args.name.as_ref().is_none_or(|name| *name == reserve.name_any()));
    let books: Vec<Book> = reserves.iter().map(|reserve| Book::of(reserve, &orders, now)).collect();
    match (&args.name, books.is_empty()) {
        (Some(name), true) => bail!("there is no reserve {name}"),
        (None, true) => bail!("there is no SovereignReserve in this cluster"),
        _ => {}
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&books).context("the reserves as JSON")?),
        Output::Text => {
            let zone = TimeZone::system();
            let told: Vec<String> = books.iter().map(|book| draw::book(book, now, &zone, screen)).collect();
            print!("{}", told.join("\n"));
            if let Some(note) = note {
                println!("note: {note}");
            }
        }
    }
    Ok(())
}
