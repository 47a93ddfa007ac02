//! `order`: asks for a part of a sovereign reserve at a time, and tells the
//! answer. How it is answered is the operator's.

mod shape;
mod tell;
mod times;

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};
use vingt_crds::{OrderState, SovereignOrder, SovereignOrderSpec, SovereignOrderStatus};

use crate::api::{Cluster, refused};
use crate::screen::Screen;
use crate::words::BadInput;
use shape::Shape;

/// How often the answer is looked for.
const PAUSE: Duration = Duration::from_millis(200);

/// How often an order is moved to the earliest start before others are found to be faster each time.
const MOVES: usize = 3;

/// Options of `order`.
#[derive(Debug, clap::Args)]
pub struct OrderArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Ask for GPUs of a reserve at a time; the answer is accepted, or the earliest start
    Ask(AskArgs),
    /// Show the orders of the namespace
    List {
        /// Of all namespaces
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// As text, or as JSON for programs
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Cancel orders; one that is being delivered ends
    Cancel {
        /// The orders
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct AskArgs {
    /// What: 3g.40gb, 2x3g.40gb, gpu, 8gpu (on one node), 2x8gpu; several together
    #[arg(required = true, value_name = "SHAPE")]
    shapes: Vec<Shape>,
    /// Of which reserve [default: the only one]
    #[arg(long, value_name = "NAME")]
    reserve: Option<String>,
    /// From when: 2026-12-01T08:00+01:00, "2026-12-01 08:00" in your time zone, or +2h
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Until when
    #[arg(long, value_name = "TIME", required_unless_present = "length", conflicts_with = "length")]
    until: Option<String>,
    /// For how long: 90m, 60h, 2d
    #[arg(long = "for", value_name = "TIME")]
    length: Option<String>,
    /// Its name, which jobs give as spec.order [default: one is made up]
    #[arg(long)]
    name: Option<String>,
    /// If it can't be had then, order it at the earliest start instead
    #[arg(long)]
    or_earliest: bool,
    /// Seconds to wait for the answer
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600), value_name = "SECONDS")]
    timeout: u64,
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

/// Does it.
pub async fn run(cluster: &Cluster, args: &OrderArgs, screen: Screen) -> anyhow::Result<()> {
    match &args.command {
        Command::Ask(args) => ask(cluster, args, screen).await,
        Command::List { all_namespaces, output } => list(cluster, *all_namespaces, *output, screen).await,
        Command::Cancel { names } => cancel(cluster, names).await,
    }
}

async fn ask(cluster: &Cluster, args: &AskArgs, screen: Screen) -> anyhow::Result<()> {
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let mut spec = spec(args, now, &zone)?;
    if spec.reserve.is_empty() {
        spec.reserve = the_reserve(cluster).await?;
    }
    let api: Api<SovereignOrder> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut order = make(&api, args.name.as_deref(), spec).await?;
    for _ in 0..=MOVES {
        order = answered(&api, &order, args.timeout).await?;
        let status = order.status.clone().unwrap_or_default();
        let Some(earliest) =
            status.earliest_start.filter(|_| args.or_earliest && status.state == Some(OrderState::Countered))
        else {
            break;
        };
        let spec = moved(&order.spec, earliest.0)?;
        let name = order.name_any();
        api.delete(&name, &DeleteParams::default()).await.map_err(|error| denied("cancel", &name, &error))?;
        order = make(&api, args.name.as_deref(), spec).await?;
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&order).context("the order as JSON")?),
        Output::Text => print!("{}", tell::answer(&order, Timestamp::now(), &zone, screen)),
    }
    match order.status.and_then(|status| status.state) {
        Some(OrderState::Accepted | OrderState::Active | OrderState::Ended) => Ok(()),
        Some(OrderState::Countered) => bail!("it cannot be had at that time"),
        Some(OrderState::Refused) | None => bail!("it cannot be had"),
    }
}

/// What is asked for; the reserve is empty if none is named.
fn spec(args: &AskArgs, now: Timestamp, zone: &TimeZone) -> Result<SovereignOrderSpec, BadInput> {
    let whole = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap_or(time);
    let from = whole(times::moment(&args.from, now, zone)?);
    let until = match (&args.until, &args.length) {
        (Some(until), _) => times::moment(until, now, zone)?,
        (None, length) => times::after(from, length.as_deref().unwrap_or_default(), zone)?,
    };
    let until = whole(until);
    if until <= from {
        return Err(BadInput(format!("the order would end before it begins: {from} until {until}")));
    }
    Ok(SovereignOrderSpec {
        reserve: args.reserve.clone().unwrap_or_default(),
        shapes: args.shapes.iter().map(|shape| shape.0.clone()).collect(),
        from: Time(from),
        until: Time(until),
    })
}

/// The same for as long, from another time on.
fn moved(spec: &SovereignOrderSpec, from: Timestamp) -> anyhow::Result<SovereignOrderSpec> {
    let lasts: SignedDuration = spec.until.0.duration_since(spec.from.0);
    let until = from.checked_add(lasts).context("the earliest start")?;
    Ok(SovereignOrderSpec { from: Time(from), until: Time(until), ..spec.clone() })
}

/// The reserve that is meant where none is said.
async fn the_reserve(cluster: &Cluster) -> anyhow::Result<String> {
    let reserves = cluster
        .list::<vingt_crds::SovereignReserve>("")
        .await
        .map_err(|error| anyhow!("which reserve is meant is said with --reserve: {error:#}"))?;
    match reserves.as_slice() {
        [reserve] => Ok(reserve.name_any()),
        [] => bail!("there is no reserve that could be ordered from"),
        more => {
            let names: Vec<String> = more.iter().map(kube::ResourceExt::name_any).collect();
            bail!("which reserve is meant is said with --reserve: there are {}", names.join(", "))
        }
    }
}

async fn make(
    api: &Api<SovereignOrder>,
    name: Option<&str>,
    spec: SovereignOrderSpec,
) -> anyhow::Result<SovereignOrder> {
    let mut order = SovereignOrder::new(name.unwrap_or_default(), spec);
    if name.is_none() {
        order.metadata = ObjectMeta { generate_name: Some("order-".to_owned()), ..ObjectMeta::default() };
    }
    let params = PostParams { field_manager: Some("kubectl-vingt".to_owned()), ..PostParams::default() };
    api.create(&params, &order).await.map_err(|error| denied("make", name.unwrap_or("the order"), &error))
}

/// The order with its answer.
async fn answered(
    api: &Api<SovereignOrder>,
    order: &SovereignOrder,
    seconds: u64,
) -> anyhow::Result<SovereignOrder> {
    let name = order.name_any();
    let look = async {
        loop {
            match api.get_opt(&name).await.map_err(|error| refused("get", "sovereignorders", &error))? {
                None => bail!("the order {name} was cancelled meanwhile"),
                Some(order) if has_answer(order.status.as_ref()) => return Ok(order),
                Some(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(seconds), look).await;
    answer.unwrap_or_else(|_| {
        bail!(
            "the order {name} has no answer after {seconds} s: is the operator running? It stays; \
             `kubectl vingt order list` will show the answer"
        )
    })
}

fn has_answer(status: Option<&SovereignOrderStatus>) -> bool {
    status.is_some_and(|status| status.state.is_some())
}

async fn list(cluster: &Cluster, all: bool, output: Output, screen: Screen) -> anyhow::Result<()> {
    let api: Api<SovereignOrder> = if all {
        Api::all(cluster.client.clone())
    } else {
        Api::namespaced(cluster.client.clone(), &cluster.namespace)
    };
    let list = api.list(&ListParams::default()).await;
    let mut orders = list.map_err(|error| refused("list", "sovereignorders", &error))?.items;
    orders.sort_by(|a, b| {
        (a.spec.from.0, a.namespace(), a.name_any()).cmp(&(b.spec.from.0, b.namespace(), b.name_any()))
    });
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&orders).context("the orders as JSON")?),
        Output::Text if orders.is_empty() && !all => println!("no orders in namespace {}", cluster.namespace),
        Output::Text if orders.is_empty() => println!("no orders"),
        Output::Text => {
            print!("{}", tell::table(&orders, all, Timestamp::now(), &TimeZone::system(), screen));
        }
    }
    Ok(())
}

async fn cancel(cluster: &Cluster, names: &[String]) -> anyhow::Result<()> {
    let api: Api<SovereignOrder> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    for name in names {
        api.delete(name, &DeleteParams::default()).await.map_err(|error| denied("cancel", name, &error))?;
        println!("order {name} cancelled");
    }
    Ok(())
}

/// Why an order could not be made or cancelled: of a policy's refusal, its own words.
fn denied(verb: &str, name: &str, error: &kube::Error) -> anyhow::Error {
    let kube::Error::Api(status) = error else { return refused(verb, name, error) };
    match (status.code, status.message.split_once("denied request: ")) {
        (_, Some((_, words))) => anyhow!("cannot {verb} {name}: {words}"),
        (403, None) => {
            anyhow!("cannot {verb} {name}: {}; ask for the role edit in the namespace", status.message)
        }
        _ => anyhow!("cannot {verb} {name}: {}", status.message),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        order: OrderArgs,
    }

    fn asked(line: &str) -> Result<SovereignOrderSpec, String> {
        let line = Line::try_parse_from(["x", "ask"].into_iter().chain(line.split(' ')));
        let Command::Ask(args) = line.map_err(|error| error.to_string())?.order.command else {
            return Err("not ask".to_owned());
        };
        let now = "2026-11-24T12:00:00.75Z".parse().unwrap();
        spec(&args, now, &TimeZone::UTC).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_becomes_an_order() {
        let spec = asked("2x8gpu 3g.40gb --reserve national --from +2h --for 60h").unwrap();
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            serde_json::json!({"reserve": "national", "shapes": [{"gpus": 8, "count": 2}, {"profile": "3g.40gb", "count": 1}],
                "from": "2026-11-24T14:00:00Z", "until": "2026-11-27T02:00:00Z"})
        );
        let moved = moved(&spec, "2026-12-01T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(moved.until.0.to_string(), "2026-12-03T12:00:00Z", "for as long");
    }

    #[test]
    fn an_order_has_an_end_that_is_after_its_begin() {
        assert!(asked("gpu --from +2h").unwrap_err().contains("--until"));
        assert!(asked("gpu --from +2h --until +3h --for 1h").unwrap_err().contains("cannot be used with"));
        let error = asked("gpu --from 2026-12-01T08:00Z --until 2026-12-01T08:30+01:00").unwrap_err();
        assert!(error.starts_with("the order would end before it begins"), "{error}");
    }

    #[test]
    fn a_policy_is_quoted_without_its_name() {
        let status = |code, message: &str| {
            let status =
                kube::core::Status { code, message: message.to_owned(), ..kube::core::Status::default() };
            denied("make", "x", &kube::Error::Api(Box::new(status))).to_string()
        };
        let words = "so \"x\" is forbidden: ValidatingAdmissionPolicy 'orders.vingt.dev' with binding 'b' denied request: the tenant a is of class standard";
        assert_eq!(status(403, words), "cannot make x: the tenant a is of class standard");
        assert_eq!(status(403, "no"), "cannot make x: no; ask for the role edit in the namespace");
        assert_eq!(status(409, "there is one"), "cannot make x: there is one");
    }
}
