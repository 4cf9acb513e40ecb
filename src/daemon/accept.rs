//! Accepts connections: retries failures, and logs an outage once when it begins and once when it ends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{info, warn};

/// Delay after a failed accept, e.g. for lack of file descriptors.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// A listening socket.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    is_accepting: bool,
}

impl Acceptor {
    /// Accepts on `listener`.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, is_accepting: true }
    }

    /// Returns the next connection and its client's canonical address. Cancel safe: dropping the future loses no connection.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if !std::mem::replace(&mut self.is_accepting, true) {
                        info!("accepting connections again");
                    }
                    return (stream, canonical_addr(peer));
                }
                Err(error) if is_client_abort(&error) => {}
                Err(error) => {
                    if std::mem::take(&mut self.is_accepting) {
                        warn!(%error, "accept failed; retrying");
                    }
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}

/// Whether the client closed before its connection was accepted.
fn is_client_abort(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Turns an IPv4-mapped IPv6 address, as dual-stack sockets report IPv4 clients, into the IPv4 address.
pub fn canonical_addr(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().map_or(address, |v4| SocketAddr::from((v4, v6.port()))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_become_ipv4_and_others_keep_their_scope() {
        for (text, want) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("[fd00::1]:80", "[fd00::1]:80"),
            ("[fe80::1%2]:80", "[fe80::1%2]:80"),
        ] {
            assert_eq!(canonical_addr(text.parse().unwrap()).to_string(), want, "{text}");
        }
    }
}
