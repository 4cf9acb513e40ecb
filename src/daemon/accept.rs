//! Accepting connections: what fails is tried again, and an outage is two lines in the log.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{info, warn};

/// After a failure to accept, as when there are no file descriptors.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// A listening socket.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    is_accepting: bool,
}

impl Acceptor {
    /// Accepts on this socket.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, is_accepting: true }
    }

    /// The next connection and its client: an IPv4 client is one also on a socket of both families. Nothing is lost when this is
    /// dropped.
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

/// The client was gone before it was accepted.
fn is_client_abort(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// A socket that takes both families shows IPv4 clients as IPv6 addresses.
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
    fn an_address_is_in_its_own_family_and_keeps_its_scope() {
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
