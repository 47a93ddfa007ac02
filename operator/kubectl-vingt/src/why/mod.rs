//! `why`: what a job waits for, what would free it, and when it is likely to
//! start.

mod insight;
mod story;

use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::Pod;
use vingt_crds::{InferenceJob, TrainingJob};

use crate::api::Cluster;
use crate::live;
use crate::screen::Screen;
use crate::words::BadInput;
use story::Story;

/// Options of `why`.
#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    /// The job: tj/NAME, ij/NAME, pod/NAME, or NAME, which is looked for in this order
    #[arg(value_name = "JOB")]
    target: Target,
    /// Where the operator is: it is asked what would help
    #[arg(long, default_value = "vingt-system", value_name = "NAMESPACE")]
    operator_namespace: String,
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

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    /// Its kind, if it was said.
    kind: Option<Kind>,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TrainingJob,
    InferenceJob,
    Pod,
}

impl FromStr for Target {
    type Err = BadInput;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = match text.split_once('/') {
            None => (None, text),
            Some((kind, name)) => {
                let kind = match kind.to_ascii_lowercase().as_str() {
                    "tj" | "trainingjob" | "trainingjobs" => Kind::TrainingJob,
                    "ij" | "inferencejob" | "inferencejobs" => Kind::InferenceJob,
                    "po" | "pod" | "pods" => Kind::Pod,
                    _ => return Err(BadInput(format!("{kind:?} is no kind of job: write tj/, ij/ or pod/"))),
                };
                (Some(kind), name)
            }
        };
        if name.is_empty() || name.contains('/') {
            return Err(BadInput("write the job as tj/NAME, ij/NAME, pod/NAME or NAME".to_owned()));
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

/// Tells it.
pub async fn run(cluster: &Cluster, args: &WhyArgs, screen: Screen) -> anyhow::Result<()> {
    let mut story = look(cluster, &args.target).await?;
    if story.waits() {
        match live::fetch(&cluster.client, &args.operator_namespace).await {
            Ok(recorded) => {
                let key = story.key();
                // It thinks for a while, and the stack of a planner is deep.
                let unknown = story.starts.is_none();
                let find = move || insight::of(&recorded, &key, unknown).unwrap_or_default();
                let found = tokio::task::spawn_blocking(find).await?;
                story.helps = found.helps;
                story.starts = story.starts.or(found.starts);
            }
            Err(error) => story.notes.push(format!("what would help is not known: {error:#}")),
        }
    }
    match args.output {
        Output::Json => {
            println!("{}", serde_json::to_string_pretty(&story).context("the answer as JSON")?);
        }
        Output::Text => print!("{}", story.tell(Timestamp::now(), &TimeZone::system(), screen)),
    }
    Ok(())
}

async fn look(cluster: &Cluster, target: &Target) -> anyhow::Result<Story> {
    let (namespace, name) = (&cluster.namespace, &target.name);
    let asked = |kind: Kind| target.kind.is_none_or(|asked| asked == kind);
    if asked(Kind::TrainingJob)
        && let Some(job) = cluster.get::<TrainingJob>(namespace, name).await?
    {
        return Ok(Story::of_gang(&job));
    }
    if asked(Kind::InferenceJob)
        && let Some(job) = cluster.get::<InferenceJob>(namespace, name).await?
    {
        return Ok(Story::of_server(&job));
    }
    if asked(Kind::Pod)
        && let Some(pod) = cluster.get::<Pod>(namespace, name).await?
    {
        return Ok(Story::of_pod(&pod));
    }
    let kind = match target.kind {
        Some(Kind::TrainingJob) => "TrainingJob",
        Some(Kind::InferenceJob) => "InferenceJob",
        Some(Kind::Pod) => "pod",
        None => "TrainingJob, InferenceJob or pod",
    };
    bail!("no {kind} is called {name} in namespace {namespace}; another namespace is given with -n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_named_as_kubectl_does() {
        let target = |text: &str| text.parse::<Target>().map(|target| (target.kind, target.name));
        assert_eq!(target("tj/a").unwrap(), (Some(Kind::TrainingJob), "a".to_owned()));
        assert_eq!(target("InferenceJobs/a").unwrap(), (Some(Kind::InferenceJob), "a".to_owned()));
        assert_eq!(target("pod/a").unwrap(), (Some(Kind::Pod), "a".to_owned()));
        assert_eq!(target("a").unwrap(), (None, "a".to_owned()));
        let wrong = target("job/a").unwrap_err().to_string();
        assert_eq!(wrong, "\"job\" is no kind of job: write tj/, ij/ or pod/");
        assert!(target("tj/").is_err() && target("").is_err() && target("tj/a/b").is_err());
    }
}
