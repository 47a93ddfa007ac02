//! The node's network: one subnet that nobody else uses, an interface between
//! the machine and the node, and behind the node a bridge of its pods. There
//! is no way out: neither the node nor a pod has a route to anything else.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::namespaces::Namespaces;

/// The addresses of a node: a /24 of 198.18.0.0/15, which is set aside for
/// tests of network devices and so is in no network one could be part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    base: [u8; 3],
}

impl Network {
    /// A subnet that no interface of this machine has yet; the same one for
    /// the same lab, if it can be.
    pub fn choose(lab: &str) -> Result<Self> {
        let routes = ip(&["-4", "route", "show", "table", "all"])?;
        Self::choose_beside(lab, &routes)
    }

    fn choose_beside(lab: &str, routes: &str) -> Result<Self> {
        let start = lab.bytes().fold(7_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        for step in 0..512_u16 {
            let number = start.wrapping_add(step) % 512;
            let [high, low] = number.to_be_bytes();
            let network = Self { base: [198, 18 + high, low] };
            let prefix = format!("{}.{}.{}.", network.base[0], network.base[1], network.base[2]);
            if !routes.split_whitespace().any(|word| word.starts_with(&prefix)) {
                return Ok(network);
            }
        }
        bail!("every subnet of 198.18.0.0/15 is in use on this machine")
    }

    fn address(self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.base;
        Ipv4Addr::new(a, b, c, last)
    }

    /// The machine's address, as the node sees it.
    fn machine(self) -> Ipv4Addr {
        self.address(1)
    }

    /// The node's address.
    pub fn node(self) -> Ipv4Addr {
        self.address(2)
    }

    /// The pods' subnet.
    pub fn pods(self) -> String {
        format!("{}/25", self.address(128))
    }

    /// Connects the node to the machine.
    pub fn connect(self, node: &Namespaces, lab: &str) -> Result<()> {
        let interface = interface(lab);
        let pid = node.pid().to_string();
        ip(&["link", "add", "name", &interface, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        ip(&["addr", "add", &format!("{}/30", self.machine()), "dev", &interface])?;
        ip(&["link", "set", &interface, "up"])?;
        ip_inside(node, &["addr", "add", &format!("{}/30", self.node()), "dev", "eth0"])?;
        ip_inside(node, &["link", "set", "eth0", "up"])?;
        let (pods, via) = (self.pods(), self.node().to_string());
        ip(&["route", "add", &pods, "via", &via, "dev", &interface])?;
        Ok(())
    }
}

/// Gives the node one more address, for pods to reach.
pub(super) fn add_address(node: &Namespaces, address: Ipv4Addr) -> Result<()> {
    ip_inside(node, &["addr", "add", &format!("{address}/32"), "dev", "lo"])?;
    Ok(())
}

/// Removes the interface if it is there: the kernel does so by itself, but
/// takes its time.
pub(super) fn remove(lab: &str) -> Result<()> {
    let interface = interface(lab);
    if std::path::Path::new("/sys/class/net").join(&interface).exists() {
        let removed = ip(&["link", "delete", &interface]);
        // The kernel may have been first.
        if std::path::Path::new("/sys/class/net").join(&interface).exists() {
            removed?;
        }
    }
    Ok(())
}

/// At most 15 characters, as an interface's name must have.
fn interface(lab: &str) -> String {
    format!("vt-{lab}")
}

fn ip_inside(node: &Namespaces, args: &[&str]) -> Result<String> {
    let network = format!("--net={}", node.network().display());
    let all: Vec<&str> = [network.as_str(), "--", "ip"].iter().chain(args).copied().collect();
    run("nsenter", &all)
}

fn ip(args: &[&str]) -> Result<String> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {}` failed: {}", args.join(" "), stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_in_use_is_left_alone() {
        let first = Network::choose_beside("lab", "default via 10.0.0.1 dev eth0").unwrap();
        assert_eq!(Network::choose_beside("lab", "").unwrap(), first);
        let taken = format!("{} dev vt-other proto kernel", first.pods());
        let second = Network::choose_beside("lab", &taken).unwrap();
        assert_ne!(first, second);
        assert_eq!(second.base[0], 198);
        assert!(second.base[1] == 18 || second.base[1] == 19);
    }

    #[test]
    fn the_interface_of_the_longest_lab_name_fits() {
        assert!(interface(&"x".repeat(12)).len() <= 15);
    }
}
