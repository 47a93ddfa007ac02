//! Turns a container whose image is one of vingt's own into a host process:
//! which program, which arguments, which environment. Pure but for reading
//! nothing and making nothing; `worker.rs` runs the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

/// Which of vingt's images a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnImage {
    /// `vingt-operator`.
    Operator,
    /// `vingt-agent`.
    Agent,
}

impl OwnImage {
    /// Looks at the last part of an image's name, without tag and digest.
    pub fn of(image: &str) -> Option<Self> {
        let name = image.rsplit('/').next().unwrap_or(image);
        let name = name.split(['@', ':']).next().unwrap_or(name);
        match name {
            "vingt-operator" => Some(Self::Operator),
            "vingt-agent" => Some(Self::Agent),
            _ => None,
        }
    }
}

/// Whether all containers of a pod are of our own images, so that the pod runs
/// as processes. Other pods are only played.
pub fn runs_as_processes(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    // A workload may use our image for what is inside it; only pods without
    // claims are vingt itself.
    let claims = spec.and_then(|spec| spec.resource_claims.as_ref());
    claims.is_none_or(Vec::is_empty)
        && !containers.is_empty()
        && containers.iter().all(|container| container.image.as_deref().and_then(OwnImage::of).is_some())
}

/// What the pod's place on this machine adds to its spec.
pub struct Place<'a> {
    /// The pod's own address, in 127.0.0.0/8: `0.0.0.0` becomes this.
    pub pod_ip: &'a str,
    /// The node's address.
    pub host_ip: &'a str,
    /// Folder for the pod's own volumes.
    pub pod_folder: &'a Path,
    /// A folder of the node's file system and where it really is; arguments may
    /// name paths in it that are not mounted themselves.
    pub node_folder: (&'a Path, &'a Path),
    /// Where a path of the node's file system really is.
    pub host_path: &'a (dyn Fn(&str) -> PathBuf + Sync),
}

/// A process to start.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Which program.
    pub image: OwnImage,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Folders that must be there before it starts.
    pub folders: Vec<PathBuf>,
}

/// Reads a container of `pod`.
pub fn invocation(pod: &Pod, container: &Container, place: &Place<'_>) -> Result<Invocation> {
    let image = container.image.as_deref().unwrap_or_default();
    let Some(image) = OwnImage::of(image) else {
        bail!("container {} has the image {image:?}, which the lab cannot run", container.name);
    };
    let mounts = mounts(pod, container, place);
    let local = |text: &str| -> String { replace_paths(&text.replace("0.0.0.0", place.pod_ip), &mounts) };

    let mut env: BTreeMap<String, String> = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value {
            Some(value) => expand(value, &env),
            None => field(pod, variable, place)?,
        };
        env.insert(variable.name.clone(), value);
    }
    // The command's first word is the program inside the image; it was chosen
    // by the image already.
    let command = container.command.iter().flatten().skip(1);
    let args = command.chain(container.args.iter().flatten());
    let args: Vec<String> = args.map(|arg| local(&expand(arg, &env))).collect();
    for value in env.values_mut() {
        *value = local(value);
    }
    let own_address =
        args.iter().any(|arg| arg.contains("http-address")) || env.contains_key("VINGT_HTTP_ADDRESS");
    if !own_address {
        let port = container.ports.iter().flatten().next().map(|port| port.container_port);
        let port = port.unwrap_or(match image {
            OwnImage::Operator => 8080,
            OwnImage::Agent => 9400,
        });
        env.insert("VINGT_HTTP_ADDRESS".to_owned(), format!("{}:{port}", place.pod_ip));
    }
    let folders = mounts.into_values().collect();
    Ok(Invocation { image, args, env, folders })
}

/// Where the container's mount paths are on this machine. Longer paths come
/// first, so that the deepest mount wins.
fn mounts(
    pod: &Pod,
    container: &Container,
    place: &Place<'_>,
) -> BTreeMap<std::cmp::Reverse<String>, PathBuf> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let (seen, real) = place.node_folder;
    let mut found = BTreeMap::from([(std::cmp::Reverse(seen.display().to_string()), real.to_owned())]);
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.into_iter().flatten().find(|volume| volume.name == mount.name);
        let Some(volume) = volume else { continue };
        let mut target = match &volume.host_path {
            Some(host) => (place.host_path)(&host.path),
            None => place.pod_folder.join("volumes").join(&volume.name),
        };
        if let Some(sub) = &mount.sub_path {
            target.push(sub);
        }
        let path = mount.mount_path.trim_end_matches('/').to_owned();
        found.insert(std::cmp::Reverse(path), target);
    }
    found
}

/// Replaces mount paths where they stand as a whole path or as the beginning of
/// one, as in `--flag=/path/below` or `/a:/b`. What was put in is not looked at
/// again.
fn replace_paths(text: &str, mounts: &BTreeMap<std::cmp::Reverse<String>, PathBuf>) -> String {
    let mut result = String::new();
    let mut rest = text;
    let mut may_start = true;
    while let Some(next) = rest.chars().next() {
        let mount = mounts.iter().find_map(|(path, target)| {
            let after = rest.strip_prefix(path.0.as_str()).filter(|_| !path.0.is_empty())?;
            (after.is_empty() || after.starts_with(['/', ':', ','])).then_some((target, after))
        });
        if let Some((target, after)) = mount.filter(|_| may_start) {
            result.push_str(&target.display().to_string());
            rest = after;
            may_start = false;
        } else {
            result.push(next);
            rest = &rest[next.len_utf8()..];
            may_start = matches!(next, '=' | ':' | ',');
        }
    }
    result
}

/// `$(NAME)` as Kubernetes expands it; unknown names stay as they are.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(") {
        result.push_str(before);
        if let Some((name, tail)) = after.split_once(')')
            && let Some(value) = env.get(name)
        {
            result.push_str(value);
            rest = tail;
        } else {
            result.push_str("$(");
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

fn field(pod: &Pod, variable: &EnvVar, place: &Place<'_>) -> Result<String> {
    let source = variable.value_from.as_ref();
    let Some(field) = source.and_then(|source| source.field_ref.as_ref()) else {
        if source.is_some_and(|source| source.resource_field_ref.is_some()) {
            return Ok("0".to_owned());
        }
        if source.is_none() {
            return Ok(String::new());
        }
        bail!("variable {} has a source the lab does not know", variable.name);
    };
    let spec = pod.spec.as_ref();
    let value = match field.field_path.as_str() {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.podIPs" => Some(place.pod_ip.to_owned()),
        "status.hostIP" => Some(place.host_ip.to_owned()),
        other => bail!("variable {}: the lab does not know the field {other}", variable.name),
    };
    Ok(value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn invoke(container: &serde_json::Value) -> Invocation {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "agent-x", "namespace": "vingt-system"},
            "spec": {
                "nodeName": "node-3",
                "containers": [container],
                "volumes": [
                    {"name": "kubelet", "hostPath": {"path": "/var/lib/kubelet"}},
                    {"name": "registry", "hostPath": {"path": "/elsewhere/registry"}},
                    {"name": "tmp", "emptyDir": {}},
                ],
            },
        }))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let place = Place {
            pod_ip: "127.9.0.4",
            host_ip: "127.9.0.4",
            node_folder: (Path::new("/seen"), Path::new("/tmp/lab/n/3")),
            pod_folder: Path::new("/tmp/lab/pod"),
            host_path: &|path| PathBuf::from(format!("/tmp/lab/n/3{path}")),
        };
        invocation(&pod, container, &place).unwrap()
    }

    #[test]
    fn paths_addresses_and_variables_are_made_local() {
        let found = invoke(&json!({
            "name": "agent",
            "image": "registry.example:5000/x/vingt-agent:v1@sha256:0",
            "command": ["/usr/local/bin/vingt-agent", "run"],
            "args": [
                "--node-name=$(NODE_NAME)",
                "--kubelet-dir=/var/lib/kubelet",
                "--other=/var/lib/kubelet/plugins_registry/x:/tmp,/var/lib/kubelet2",
                "--http-address=0.0.0.0:9400",
                "--literal=$(UNKNOWN)",
                "/seen/kubelet",
            ],
            "env": [
                {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "CACHE", "value": "/tmp/cache"},
            ],
            "volumeMounts": [
                {"name": "kubelet", "mountPath": "/var/lib/kubelet"},
                {"name": "registry", "mountPath": "/var/lib/kubelet/plugins_registry/"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }));
        assert_eq!(found.image, OwnImage::Agent);
        assert_eq!(
            found.args,
            [
                "run",
                "--node-name=node-3",
                "--kubelet-dir=/tmp/lab/n/3/var/lib/kubelet",
                "--other=/tmp/lab/n/3/elsewhere/registry/x:/tmp/lab/pod/volumes/tmp,/var/lib/kubelet2",
                "--http-address=127.9.0.4:9400",
                "--literal=$(UNKNOWN)",
                "/tmp/lab/n/3/kubelet",
            ]
        );
        assert_eq!(found.env["CACHE"], "/tmp/lab/pod/volumes/tmp/cache");
        assert!(!found.env.contains_key("VINGT_HTTP_ADDRESS"));
    }

    #[test]
    fn a_program_without_an_address_gets_the_pods() {
        let found = invoke(&json!({
            "name": "operator", "image": "vingt-operator",
            "ports": [{"containerPort": 8443}],
        }));
        assert_eq!(found.env["VINGT_HTTP_ADDRESS"], "127.9.0.4:8443");
    }

    #[test]
    fn only_vingts_own_images_run() {
        assert_eq!(OwnImage::of("ghcr.io/x/vingt-operator:1"), Some(OwnImage::Operator));
        assert_eq!(OwnImage::of("busybox"), None);
        assert_eq!(OwnImage::of("x/vingt-agent-tools"), None);
    }
}
