//! Accepts connections of API clients, limits them, and drains them at shutdown.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::api::{Api, Connection};
use super::write_deadline::WriteDeadline;
use crate::daemon::{Acceptor, ConnectionLimiter, ConnectionMeter, Limits, Refused};

/// Connections of one client, and at most half of all connections.
const MAX_PER_CLIENT: usize = 128;
/// Time to receive a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for a client to read a whole response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct ServerConfig {
    pub max_connections: usize,
    pub drain_timeout: Duration,
    pub meter: ConnectionMeter,
}

/// Serves until `shutdown`, then drains requests for at most `drain_timeout`.
pub(super) async fn serve_connections(
    listener: TcpListener,
    api: Arc<Api>,
    settings: ServerConfig,
    shutdown: impl Future<Output = ()>,
) {
    let limiter = ConnectionLimiter::new(settings.meter);
    let limits = limits_of(settings.max_connections);
    let graceful = GracefulShutdown::new();
    let mut acceptor = Acceptor::new(listener);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = acceptor.accept() => accepted,
            () = shutdown.as_mut() => break,
        };
        let client = peer.ip();
        let connection: Arc<Connection> = match limiter.admit(host_of(client), &limits) {
            Ok(permit) => Arc::new(permit),
            Err(Refused { limit, first }) => {
                if first {
                    warn!(peer = %client, limit = limit.label(), "connection limit reached; refusing connections");
                }
                continue;
            }
        };
        // Responses are small: Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        let (api, permit) = (Arc::clone(&api), Arc::clone(&connection));
        let answer = service_fn(move |request| {
            let (api, permit) = (Arc::clone(&api), Arc::clone(&permit));
            async move { Ok::<_, Infallible>(api.answer(client, &permit, request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let stream = TokioIo::new(WriteDeadline::new(stream, WRITE_TIMEOUT));
        let serving = graceful.watch(builder.serve_connection(stream, answer));
        tokio::spawn(async move {
            tokio::select! {
                served = serving => if let Err(error) = served {
                    debug!(%error, %peer, "connection failed");
                },
                () = connection.evicted() => debug!(%peer, "idle connection evicted for a new one"),
            }
        });
    }
    drop(acceptor);
    if timeout(settings.drain_timeout, graceful.shutdown()).await.is_err() {
        warn!(drain_timeout = ?settings.drain_timeout, "drain timeout reached; open requests aborted");
    }
}

fn limits_of(total: usize) -> Limits {
    let per_host = MAX_PER_CLIENT.min(total / 2).max(1);
    Limits { total, per_host, per_owner: per_host }
}

/// The key of a client's limit: an IPv4 address, or an IPv6 /64 network, in which one host can have any number of addresses.
fn host_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_ipv4_addresses_or_ipv6_networks() {
        for (client, want) in [
            ("10.0.0.1", "10.0.0.1"),
            ("fd00:1:2:3::1", "fd00:1:2:3::"),
            ("fd00:1:2:3:ffff:ffff:ffff:ffff", "fd00:1:2:3::"),
            ("fd00:1:2:4::1", "fd00:1:2:4::"),
        ] {
            assert_eq!(host_of(client.parse().unwrap()), want.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn one_client_gets_at_most_half() {
        for (total, want) in [(1, 1), (2, 1), (100, 50), (512, MAX_PER_CLIENT), (100_000, MAX_PER_CLIENT)] {
            assert_eq!(limits_of(total).per_host, want, "{total}");
        }
    }
}
