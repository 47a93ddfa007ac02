//! Finds the DRA drivers of a node through their registration sockets and
//! watches over them, as the kubelet does: it registers a driver whenever its
//! socket is made anew, and deletes a driver's slices when it was away for
//! half a minute.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tracing::{info, warn};

use super::dra_client;

/// How often the folder of registration sockets is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// Every how many looks the drivers are asked whether they are there.
const ASK_EVERY: u32 = 4;
/// How long a driver may be away before its slices are deleted.
const AWAY: Duration = Duration::from_secs(30);

/// The drivers of one node.
#[derive(Debug)]
pub struct Plugins {
    node: String,
    registry: PathBuf,
    drivers: Mutex<BTreeMap<String, Driver>>,
}

#[derive(Debug, Clone)]
struct Driver {
    registration: PathBuf,
    /// Device, inode and change time of the registration socket: another file
    /// at the same path is another run of the driver.
    file: FileKey,
    endpoint: PathBuf,
    away_since: Option<Instant>,
}

type FileKey = (u64, u64, i64, i64);

impl Plugins {
    /// The drivers that register in `<kubelet>/plugins_registry`.
    pub fn new(node: &str, kubelet: &Path) -> Self {
        Self { node: node.to_owned(), registry: kubelet.join("plugins_registry"), drivers: Mutex::default() }
    }

    /// The socket of a registered driver.
    pub fn endpoint(&self, driver: &str) -> Result<PathBuf> {
        let endpoint = self.lock().get(driver).map(|found| found.endpoint.clone());
        endpoint.with_context(|| format!("DRA driver {driver} is not registered"))
    }

    /// Registers and watches drivers for ever.
    pub async fn watch(&self, client: &Client) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in (0..ASK_EVERY).cycle() {
            tick.tick().await;
            for (path, file) in self.sockets() {
                let known = self.lock().values().any(|driver| driver.file == file);
                if !known && let Err(error) = self.register(&path, file).await {
                    // Usual while a driver starts; the next round tries again.
                    tracing::debug!("{}: {error:#}", self.node);
                }
            }
            if round == 0 {
                self.look_after(client).await;
            }
        }
    }

    /// What a restart of the kubelet does: it knows no driver, they register
    /// again, and the slices of the node are deleted right after.
    pub async fn restart(&self, client: &Client) -> Result<()> {
        let drivers = std::mem::take(&mut *self.lock());
        for (name, driver) in drivers {
            if UnixStream::connect(&driver.registration).await.is_ok() {
                self.register(&driver.registration, driver.file).await?;
            }
            self.delete_slices(client, &name).await?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Driver>> {
        self.drivers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn sockets(&self) -> Vec<(PathBuf, FileKey)> {
        let entries = std::fs::read_dir(&self.registry).into_iter().flatten().flatten();
        let mut found: Vec<(PathBuf, FileKey)> = entries
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                !name.starts_with('.') && name.ends_with(".sock")
            })
            .filter_map(|entry| {
                let of = entry.metadata().ok()?;
                Some((entry.path(), (of.dev(), of.ino(), of.ctime(), of.ctime_nsec())))
            })
            .collect();
        found.sort();
        found
    }

    async fn register(&self, path: &Path, file: FileKey) -> Result<()> {
        let plugin = dra_client::get_info(path).await?;
        let refusal = refusal(&plugin);
        dra_client::notify(path, refusal.clone()).await?;
        ensure!(refusal.is_none(), "{} was refused: {refusal:?}", plugin.name);
        info!("{}: driver {} registered", self.node, plugin.name);
        let driver = Driver {
            registration: path.to_owned(),
            file,
            endpoint: PathBuf::from(plugin.endpoint),
            away_since: None,
        };
        self.lock().insert(plugin.name, driver);
        Ok(())
    }

    /// Notices drivers that are away, and those that have been for too long.
    async fn look_after(&self, client: &Client) {
        let drivers = self.lock().clone();
        for (name, driver) in drivers {
            let here = UnixStream::connect(&driver.endpoint).await.is_ok();
            let away_since = match (here, driver.away_since) {
                (true, _) => None,
                (false, None) => Some(Instant::now()),
                (false, since) => since,
            };
            if away_since.is_some_and(|since| since.elapsed() >= AWAY) {
                match self.delete_slices(client, &name).await {
                    Ok(()) => {
                        info!("{}: driver {name} was away, slices deleted", self.node);
                        self.lock().remove(&name);
                    }
                    Err(error) => warn!("{}: cannot delete slices: {error:#}", self.node),
                }
            } else if let Some(entry) = self.lock().get_mut(&name)
                && entry.file == driver.file
            {
                entry.away_since = away_since;
            }
        }
    }

    async fn delete_slices(&self, client: &Client, driver: &str) -> Result<()> {
        let slices: Api<ResourceSlice> = Api::all(client.clone());
        let mine = format!("spec.driver={driver},spec.nodeName={}", self.node);
        let listed = ListParams::default().fields(&mine);
        slices.delete_collection(&DeleteParams::default(), &listed).await?;
        Ok(())
    }
}

/// Why the kubelet would not take this plugin.
fn refusal(plugin: &dra_client::PluginInfo) -> Option<String> {
    if plugin.kind != "DRAPlugin" {
        return Some(format!("no handler for plugins of type {:?}", plugin.kind));
    }
    if !plugin.supported_versions.iter().any(|version| version == "v1.DRAPlugin") {
        return Some(format!("none of {:?} is supported", plugin.supported_versions));
    }
    if !Path::new(&plugin.endpoint).is_absolute() {
        return Some(format!("the endpoint {:?} is not an absolute path", plugin.endpoint));
    }
    None
}
