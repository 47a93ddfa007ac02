//! `ConfigMap` volumes of pods that run as processes, kept as the API has them.
//! What else a volume can be is not here.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Volume};
use kube::{Api, Client};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How soon a change is seen. (A real kubelet takes up to a minute or two; tests would only wait longer.)
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Writes the files of all `ConfigMap` volumes of `pod` below its folder.
pub async fn write(client: &Client, pod: &Pod, folder: &Path) -> Result<()> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for (volume, source) in sources(pod) {
        let map = maps.get(&source).await.with_context(|| format!("ConfigMap {source}"))?;
        let target = folder.join("volumes").join(&volume);
        std::fs::create_dir_all(&target)?;
        for (name, text) in map.data.iter().flatten() {
            let file = target.join(name);
            if std::fs::read_to_string(&file).ok().as_ref() != Some(text) {
                // Never half a file.
                let new = target.join(format!(".{name}"));
                std::fs::write(&new, text)?;
                std::fs::rename(&new, &file)?;
            }
        }
    }
    Ok(())
}

/// Its `ConfigMap` volumes, with the name of the `ConfigMap`.
fn sources(pod: &Pod) -> Vec<(String, String)> {
    let volumes = pod.spec.iter().filter_map(|spec| spec.volumes.as_ref()).flatten();
    let of = |volume: &Volume| Some((volume.name.clone(), volume.config_map.as_ref()?.name.clone()));
    volumes.filter_map(of).collect()
}

/// Keeps them as the API has them until `stop`.
pub async fn follow(client: Client, pod: Pod, folder: std::path::PathBuf, stop: CancellationToken) {
    let any = !sources(&pod).is_empty();
    while any && stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
        if let Err(error) = write(&client, &pod, &folder).await {
            debug!("a volume is not brought up to date: {error:#}");
        }
    }
}
