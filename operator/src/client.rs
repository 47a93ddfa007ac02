//! The connection to the API server.

use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Connects by the file that `KUBECONFIG` names, or else as a pod of the cluster.
pub async fn connect() -> anyhow::Result<Client> {
    let mut config = match Kubeconfig::from_env().context("KUBECONFIG")? {
        Some(file) => Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .context("the file that KUBECONFIG names cannot be used")?,
        None => Config::incluster()
            .context("KUBECONFIG is not set, and this is not a pod with a service account")?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    config.write_timeout = Some(Duration::from_secs(10));
    Ok(Client::try_from(config)?)
}

/// A failed request in words: the API server's own, or else the error with its causes.
pub fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
