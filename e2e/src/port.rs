//! Ports of 127.0.0.1 for programs that have to be told theirs before they
//! listen. Nobody else gets one meanwhile: no connection going out, for they lie
//! below the ports that the system gives to those, and no other lab.

use std::net::TcpListener;

use anyhow::{Context, Result};

/// The system gives ports from 32768 on to connections, unless it is set otherwise.
const PORTS: std::ops::Range<u16> = 21_000..32_000;
/// Where a port is marked as taken.
const MARK_ADDRESS: &str = "127.255.255.254";

/// A port that is taken as long as this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _mark: TcpListener,
}

impl Port {
    /// Takes a port that nobody has.
    pub fn take() -> Result<Self> {
        let free = |number: u16| {
            let mark = TcpListener::bind((MARK_ADDRESS, number)).ok()?;
            TcpListener::bind(("127.0.0.1", number)).ok()?;
            Some(Self { number, _mark: mark })
        };
        PORTS.into_iter().find_map(free).with_context(|| format!("no port of {PORTS:?} is free on 127.0.0.1"))
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_taken_twice() -> Result<()> {
        let (one, two) = (Port::take()?, Port::take()?);
        assert_ne!(one.number(), two.number());
        let listens = TcpListener::bind(("127.0.0.1", one.number()));
        assert!(listens.is_ok(), "whoever is told of it can listen there");
        Ok(())
    }
}
