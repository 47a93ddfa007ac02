//! The kubelet's plugin APIs, generated from `proto/`: servers for the agent,
//! clients for tests and the lab, which play the kubelet.

#![allow(missing_docs, clippy::pedantic, clippy::unwrap_used, reason = "generated code")]

/// How the kubelet finds a plugin.
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// What the kubelet asks a DRA driver.
pub mod dra {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
}
