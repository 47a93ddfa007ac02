//! The connection to the API server, as kubectl makes it, and lists of what
//! is there, with errors that say what to ask for.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;

/// Objects asked for at a time.
const PAGE: u32 = 500;

/// Which cluster.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConnectArgs {
    /// The kubeconfig file [default: as kubectl]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig file
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
}

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Cluster {
    /// The connection.
    pub client: Client,
    /// The namespace that is meant where none is said.
    pub namespace: String,
}

impl Cluster {
    /// Connects as kubectl does. The error says which file or context cannot be used.
    pub async fn connect(args: &ConnectArgs) -> anyhow::Result<Self> {
        let file = match &args.kubeconfig {
            Some(path) => Kubeconfig::read_from(path)
                .with_context(|| format!("the kubeconfig {} cannot be used", path.display()))?,
            None => Kubeconfig::read()
                .context("there is no usable kubeconfig; set KUBECONFIG or give --kubeconfig")?,
        };
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let config =
            Config::from_custom_kubeconfig(file, &options).await.context("the kubeconfig cannot be used")?;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config)?, namespace })
    }

    /// All objects of a kind, in all namespaces if it has them.
    pub async fn list<K>(&self, fields: &str) -> anyhow::Result<Vec<K>>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api = Api::<K>::all(self.client.clone());
        let mut params = ListParams::default().fields(fields).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = api.list(&params).await.map_err(|error| refused("list", &K::plural(&()), &error))?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(all),
            }
        }
    }

    /// The object of that name, if it is there; `namespace` is empty for what belongs to none.
    pub async fn get<K>(&self, namespace: &str, name: &str) -> anyhow::Result<Option<K>>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(|error| refused("get", &K::plural(&()), &error))
    }
}

/// Runs what needs a cluster.
pub fn online<T>(
    args: &ConnectArgs,
    run: impl AsyncFnOnce(Cluster) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { run(Cluster::connect(args).await?).await })
}

/// A failed request in words; one that is forbidden says what to ask for.
pub fn refused(verb: &str, what: &str, error: &kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            anyhow!("cannot {verb} {what}: {}; ask for the role vingt-viewer", status.message)
        }
        kube::Error::Api(status) if status.code == 404 => {
            anyhow!("cannot {verb} {what}: the API server does not know them; is vingt installed?")
        }
        kube::Error::Api(status) => anyhow!("cannot {verb} {what}: {}", status.message),
        error => anyhow!("cannot {verb} {what}: {}", causes(error)),
    }
}

/// An error with its causes, each said once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
