//! `vingt-operator run`: take part in the election, and decide while leading.

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::RunArgs;
use crate::client::connect;
use crate::engine::{Engine, Setup, TIME_LIMIT, Writer};
use crate::http::{self, Health, Snapshots};
use crate::lease::Candidate;
use crate::metrics::Metrics;
use crate::settings;
use crate::world::watch_all;

/// Runs until told to stop, or until the lease is lost, which is an error.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let metrics = Metrics::new().context("metrics")?;
    let settings = settings::follow(args.settings, metrics.clone(), stop.clone())?;
    let health = Health::default();
    let snapshots = Snapshots::default();
    let server = tokio::spawn(http::serve(
        args.http_address,
        health.clone(),
        metrics.clone(),
        snapshots.clone(),
        stop.clone(),
    ));
    stop_on_signals(&stop)?;

    let client = connect().await?;
    // A candidate that waits is ready to take over; once it leads, it is ready when it sees everything.
    health.set_ready(true);
    let identity =
        args.identity.unwrap_or_else(|| format!("{}-{}", vingt_crds::names::OPERATOR, std::process::id()));
    // A connection of its own: the renewal must not wait behind anything else.
    let candidate = Candidate::enter(connect().await?, &args.namespace, &args.lease_name, &identity);
    let mut term = tokio::select! {
        term = candidate.won() => term,
        () = stop.cancelled() => return finished(server).await,
    };
    tokio::select! {
        () = tokio::time::sleep(term.settling(TIME_LIMIT)) => {}
        why = term.lost() => bail!("the lease is lost before anything was done: {why}"),
        () = stop.cancelled() => {
            term.leave().await;
            return finished(server).await;
        }
    }
    tracing::info!(%identity, "leading");
    metrics.leader.set(1);
    health.set_ready(false);

    // Only now: lists taken from here on hold everything that the leader before wrote.
    let (to, changes) = mpsc::unbounded_channel();
    let mut watches = watch_all(&client, &to);
    drop(to);
    let ready = health.clone();
    let engine = Engine::new(Setup {
        writer: Writer::new(client, metrics.clone()),
        changes,
        namespace: args.namespace,
        identity,
        metrics: metrics.clone(),
        snapshots,
        settings,
        synced: Box::new(move || {
            tracing::info!("all kinds are listed");
            ready.set_ready(true);
        }),
    });
    let lost = tokio::select! {
        why = term.lost() => Some(format!("the lease is lost, and another process may lead now: {why}")),
        () = engine.run(stop.clone()) => None,
        // Without it, its kind would be seen as it was, for ever.
        ended = watches.join_next() => Some(format!("a watch ended unexpectedly: {ended:?}")),
    };
    drop(watches);
    metrics.leader.set(0);
    if let Some(why) = lost {
        bail!(why);
    }
    term.leave().await;
    finished(server).await
}

async fn finished(server: tokio::task::JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    server.await.context("the HTTP server ended unexpectedly")?
}

/// The first SIGTERM or SIGINT stops in good order, the second at once.
fn stop_on_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                tracing::warn!("told to stop a second time: ending at once");
                std::process::exit(1);
            }
            stop.cancel();
        }
    });
    Ok(())
}
