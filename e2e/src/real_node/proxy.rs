//! The way from the node to the API server, which listens on the machine's
//! loopback interface only: a socket of the node's network namespace, served
//! by this process. It does for the service `kubernetes` what kube-proxy does
//! on other nodes.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::namespaces::Namespaces;

/// Forwards connections until it is stopped or dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    // Dropping it ends the tasks.
    tasks: JoinSet<()>,
}

impl Proxy {
    /// Accepts connections to each of `addresses` inside the node and carries
    /// them to `target` outside.
    pub fn start(node: &Namespaces, addresses: &[SocketAddr], target: SocketAddr) -> Result<Self> {
        let mut tasks = JoinSet::new();
        for address in addresses {
            let listener = listen_inside(node.network(), *address)
                .with_context(|| format!("cannot listen on {address} in the real node"))?;
            listener.set_nonblocking(true)?;
            tasks.spawn(serve(TcpListener::from_std(listener)?, target));
        }
        Ok(Self { tasks })
    }

    /// Closes the sockets and all connections.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve(listener: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that failed already is its maker's problem.
                if let Ok((inside, _)) = accepted {
                    connections.spawn(carry(inside, target));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut inside: TcpStream, target: SocketAddr) {
    // Either end sees the other's error as the end of its connection.
    if let Ok(mut outside) = TcpStream::connect(target).await {
        let _ = inside.set_nodelay(true);
        let _ = outside.set_nodelay(true);
        let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
    }
}

/// A socket belongs to the network namespace of the thread that makes it, for
/// ever; so one thread moves there, makes it and ends.
fn listen_inside(network: PathBuf, address: SocketAddr) -> Result<std::net::TcpListener> {
    let thread = std::thread::spawn(move || -> Result<std::net::TcpListener> {
        let namespace = File::open(&network)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(std::net::TcpListener::bind(address)?)
    });
    thread.join().map_err(|_| anyhow!("the thread that makes the socket failed"))?
}
