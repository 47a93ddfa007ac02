//! A real node of the lab: kubelet, containerd, runc and CNI as child
//! processes, as root on Linux. Pods run here as they do in production; only
//! the GPUs are emulated, by an NVML library of ours.
//!
//! Everything it keeps is below [`Layout::real_node`](crate::layout::Layout::real_node), which is what the
//! chart's host paths point to:
//!
//! ```text
//! kubelet/        the kubelet's folder: plugins/, plugins_registry/, pods/
//! cdi/            CDI specs, written by the agent, read by containerd
//! state/          the agent's journal
//! driver/         what the driver's installation is on a node with GPUs:
//!                 usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1
//! gpu/            node.yaml, the GPUs' state and their proc/ tree
//! containerd/     images, containers, its socket
//! cni/            network configuration and addresses in use
//! ```
//!
//! What it changes outside is one network bridge with one iptables chain, one
//! folder of control groups and the mounts of its containers, all named after
//! the lab, all undone by `RealNode::stop`, and by `clean` after a crash.
