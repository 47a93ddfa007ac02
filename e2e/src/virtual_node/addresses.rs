//! Addresses of nodes and pods. Whatever really listens gets an address of its
//! own in 127.0.0.0/8, so that many agents can share one machine and one port;
//! in Kubernetes it shows as 100.… with the same end. Played pods get one in
//! 10.64.0.0/10 that only looks like one.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// The addresses of one lab.
#[derive(Debug)]
pub struct Addresses {
    /// Second byte of the lab's loopback addresses.
    block: u8,
    next_process: AtomicU32,
    next_played: AtomicU32,
    // Held as long as the lab lives: this is what marks the block as taken.
    _mark: TcpListener,
}

/// What is told to the API server instead of a loopback address: Kubernetes
/// accepts none of those in Endpoints.
pub fn reported(address: &str) -> String {
    match address.strip_prefix("127.") {
        Some(rest) => format!("100.{rest}"),
        None => address.to_owned(),
    }
}

/// Port that marks a block as taken.
const MARK_PORT: u16 = 20_700;

impl Addresses {
    /// Takes a block of loopback addresses no other lab on this machine has.
    pub fn take() -> Result<Self> {
        let mark = (64..=250_u8).find_map(|block| {
            let mark = TcpListener::bind((format!("127.{block}.255.254"), MARK_PORT));
            mark.ok().map(|mark| (block, mark))
        });
        let (block, mark) = mark.context("no free block of loopback addresses")?;
        Ok(Self { block, next_process: AtomicU32::new(0), next_played: AtomicU32::new(0), _mark: mark })
    }

    /// Address of virtual node number `index`.
    pub fn node(&self, index: usize) -> String {
        let host = index % 250 + 1;
        format!("127.{}.{}.{host}", self.block, index / 250 % 16)
    }

    /// Address for a new pod: the node's if it is in the host's network.
    pub fn pod(&self, is_process: bool, host_network: bool, node: &str) -> String {
        if host_network {
            return node.to_owned();
        }
        let counter = if is_process { &self.next_process } else { &self.next_played };
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let host = number % 250 + 1;
        if is_process {
            // Node addresses end below 16.
            format!("127.{}.{}.{host}", self.block, 16 + number / 250 % 200)
        } else {
            format!("10.{}.{}.{host}", 64 + number / 62_500 % 64, number / 250 % 250)
        }
    }
}
