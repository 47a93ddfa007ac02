//! `top`: what there is, and who holds it; once, or again and again.

mod draw;
mod picture;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use vingt_crds::{Tenant, names};

use crate::api::Cluster;
use crate::screen::Screen;
use picture::Picture;

/// Options of `top`.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// What to show [default: a map of all GPUs, and the tenants]
    #[arg(value_enum)]
    what: Option<What>,
    /// Look again and again, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Seconds between two looks
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    interval: u64,
    /// As text, or as JSON for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// One line for each node.
    Nodes,
    /// One line for each GPU, with what lies on it.
    Gpus,
    /// One line for each tenant.
    Tenants,
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
pub async fn run(cluster: &Cluster, args: &TopArgs, screen: Screen) -> anyhow::Result<()> {
    loop {
        let picture = look(cluster).await?;
        let screen = screen.resized();
        let text = match (args.output, args.what) {
            (Output::Json, _) => {
                serde_json::to_string_pretty(&picture).context("the picture as JSON")? + "\n"
            }
            (Output::Text, None) => draw::map(&picture, screen),
            (Output::Text, Some(What::Nodes)) => draw::nodes(&picture, screen),
            (Output::Text, Some(What::Gpus)) => draw::gpus(&picture, screen),
            (Output::Text, Some(What::Tenants)) => draw::tenants(&picture, screen),
        };
        let mut out = std::io::stdout().lock();
        if args.watch && screen.terminal {
            // Home, each line to its end, and what is below: no flicker.
            let text = text.replace('\n', "\x1b[K\n");
            write!(out, "\x1b[H{text}\x1b[J")?;
        } else {
            out.write_all(text.as_bytes())?;
        }
        out.flush()?;
        drop(out);
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(args.interval)) => {}
            stopped = tokio::signal::ctrl_c() => return stopped.context("signals cannot be heard"),
        }
    }
}

/// Reads everything from the API server. Tenants may be hidden from the user: then the picture says so.
async fn look(cluster: &Cluster) -> anyhow::Result<Picture> {
    let fields = format!("spec.driver={}", names::DRIVER);
    let (slices, claims, tenants) = tokio::join!(
        cluster.list::<ResourceSlice>(&fields),
        cluster.list::<ResourceClaim>(""),
        cluster.list::<Tenant>(""),
    );
    let (tenants, note) = match tenants {
        Ok(tenants) => (tenants, None),
        Err(error) => (Vec::new(), Some(format!("limits are not shown: {error:#}"))),
    };
    let mut picture = Picture::of(&slices?, &claims?, &tenants);
    picture.notes.extend(note);
    Ok(picture)
}
