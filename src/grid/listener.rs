//! Takes clients in, within limits, reads what each asks, and answers once.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::metrics::{Asked, Metrics, Outcome};
use super::protocol::{MAX_COMMAND_LEN, Reply, parse_command};
use super::registrar::Registrar;

/// Connections that one host may have open, so that none can take them all. Of a small `--max-connections` it is half.
pub const MAX_CONNECTIONS_PER_HOST: usize = 64;
/// After the end is asked for, clients have so long to send what they have begun to.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A client that is answered may go on sending for so long, and so much, before it is cut off. Cutting it off at once
/// would take the reply back.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;
/// Between two tries to accept when the system has no more room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then finishes with the clients that are in.
pub async fn serve(listener: TcpListener, registrar: Arc<Registrar>, shutdown: impl Future<Output = ()>) {
    let room = Arc::new(Room::new(Arc::clone(&registrar.metrics)));
    let (stop, stopping) = watch::channel(false);
    let mut clients = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = clients.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_the_clients(&error) {
                    warn!(%error, "no connection accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let peer = canonical(peer);
        let policy = registrar.live.load();
        match Room::take(&room, peer.ip(), policy.max_connections) {
            Ok(place) => {
                let client = Client { peer, idle_timeout: policy.idle_timeout, stopping: stopping.clone() };
                let registrar = Arc::clone(&registrar);
                clients.spawn(async move {
                    client.serve(stream, &registrar).await;
                    drop(place);
                });
            }
            Err(Full { first, limit }) => {
                registrar.metrics.refused(limit.label());
                if first {
                    warn!(peer = %peer.ip(), by = limit.as_str(), "connections refused");
                }
            }
        }
    }
    drop(listener);
    info!(clients = clients.len(), "draining");
    let _ = stop.send(true);
    while clients.join_next().await.is_some() {}
}

/// Gone before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// A socket that takes both families shows IPv4 clients in IPv6 clothes.
fn canonical(mut address: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(v6) = address
        && let Some(v4) = v6.ip().to_ipv4_mapped()
    {
        address = SocketAddr::from((v4, v6.port()));
    }
    address
}

struct Client {
    peer: SocketAddr,
    idle_timeout: Duration,
    stopping: watch::Receiver<bool>,
}

impl Client {
    async fn serve(self, mut stream: TcpStream, registrar: &Registrar) {
        // Fails when the client is gone already.
        let Ok(local) = stream.local_addr().map(canonical) else { return };
        let (peer, idle_timeout) = (self.peer, self.idle_timeout);
        let mut received = Vec::new();
        if let Err(why) = self.receive(&mut stream, &mut received).await {
            registrar.metrics.decided(Asked::unknown, Outcome::no_command);
            // A probe that only connects is not worth a line.
            if !received.is_empty() {
                info!(peer = %peer.ip(), reason = why, "closed without a reply");
            }
            return;
        }
        let reply = match parse_command(&received) {
            Ok(Some(command)) => registrar.decide(command, peer, local).await,
            Ok(None) => return,
            Err(error) => {
                registrar.metrics.decided(Asked::unknown, Outcome::refused);
                let (reply, reason) = (Reply::Fail, error.to_string());
                warn!(peer = %peer.ip(), reply = reply.as_str(), reason, "refused");
                reply
            }
        };
        // The client may be gone; what was decided stays.
        let _ = timeout(idle_timeout, answer(&mut stream, reply)).await;
    }

    /// Reads until a command is whole, or can't become one.
    async fn receive(mut self, stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<(), &'static str> {
        let deadline = Instant::now() + self.idle_timeout;
        let end = async {
            // An error means that `serve` is gone.
            let _ = self.stopping.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::pin!(end);
        let mut stream = stream.take(MAX_COMMAND_LEN as u64);
        loop {
            let read = tokio::select! {
                read = stream.read_buf(received) => read,
                () = sleep_until(deadline) => return Err("no whole command in time"),
                () = &mut end => return Err("no whole command before the end"),
            };
            match read {
                Ok(0) => return Err("the connection ended within the command"),
                Ok(_) if !matches!(parse_command(received), Ok(None)) => return Ok(()),
                Ok(_) => {}
                Err(_) => return Err("the connection broke within the command"),
            }
        }
    }
}

/// Sends the reply and nothing more, and waits until the client has had it.
async fn answer(stream: &mut TcpStream, reply: Reply) -> io::Result<()> {
    stream.write_all(reply.as_str().as_bytes()).await?;
    stream.shutdown().await?;
    let mut bytes = [0; 4096];
    let mut left = LINGER_BYTES;
    let rest = async {
        while let read @ 1.. = stream.read(&mut bytes).await? {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
        Ok(())
    };
    timeout(LINGER, rest).await.unwrap_or(Ok(()))
}

/// How many connections there are, and whose.
struct Room {
    metrics: Arc<Metrics>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    told: bool,
    hosts: HashMap<IpAddr, Host>,
}

#[derive(Default)]
struct Host {
    open: usize,
    told: bool,
}

/// One connection's place, free again when dropped.
struct Place {
    room: Arc<Room>,
    host: IpAddr,
    /// Places there were when it was taken.
    most: usize,
}

/// There is no place.
#[derive(Debug, PartialEq, Eq)]
struct Full {
    /// Since there last was one.
    first: bool,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    PerHost,
    All,
}

impl Limit {
    fn as_str(self) -> &'static str {
        match self {
            Self::PerHost => "the limit of connections per host",
            Self::All => "the limit of connections, --max-connections",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::PerHost => "per_host",
            Self::All => "max_connections",
        }
    }
}

impl Room {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, taken: Mutex::new(Taken::default()) }
    }

    fn take(room: &Arc<Self>, host: IpAddr, most: usize) -> Result<Place, Full> {
        let mut taken = room.taken.lock();
        if let Some(host) = taken.hosts.get_mut(&host)
            && host.open >= most_per_host(most)
        {
            let first = !std::mem::replace(&mut host.told, true);
            return Err(Full { first, limit: Limit::PerHost });
        }
        if taken.total >= most {
            let first = !std::mem::replace(&mut taken.told, true);
            return Err(Full { first, limit: Limit::All });
        }
        taken.total += 1;
        taken.hosts.entry(host).or_default().open += 1;
        room.metrics.connections.inc();
        Ok(Place { room: Arc::clone(room), host, most })
    }
}

fn most_per_host(most: usize) -> usize {
    MAX_CONNECTIONS_PER_HOST.min(most / 2).max(1)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.total -= 1;
        self.room.metrics.connections.dec();
        // Told again only after it has been far from full: not at each single place that comes free.
        if taken.total <= self.most / 2 {
            taken.told = false;
        }
        if let Some(host) = taken.hosts.get_mut(&self.host) {
            host.open -= 1;
            if host.open == 0 {
                taken.hosts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_host_cannot_take_all_places() {
        let room = Arc::new(Room::new(Metrics::register(&mut Registry::default())));
        let take = |last| Room::take(&room, host(last), 100);
        let places: Vec<_> = (0..50).map(|_| take(1).unwrap()).collect();
        assert!(take(1).is_err_and(|full| full == Full { first: true, limit: Limit::PerHost }));
        assert!(take(1).is_err_and(|full| !full.first));
        let others: Vec<_> = (0..50).map(|_| take(2).unwrap()).collect();
        assert!(take(3).is_err_and(|full| full == Full { first: true, limit: Limit::All }));
        assert_eq!(room.metrics.connections.get(), 100);
        drop(places);
        assert!(take(3).is_ok());
        drop(others);
        let taken = room.taken.lock();
        assert!(taken.total == 0 && taken.hosts.is_empty() && room.metrics.connections.get() == 0);
    }

    #[test]
    fn the_limit_per_host_is_a_constant_and_never_zero() {
        for (most, per_host) in [(1, 1), (2, 1), (100, 50), (1024, MAX_CONNECTIONS_PER_HOST), (100_000, 64)] {
            assert_eq!(most_per_host(most), per_host, "{most}");
        }
    }

    #[test]
    fn an_ipv4_client_is_one_whatever_the_socket() {
        assert_eq!(canonical("[::ffff:10.0.0.1]:7".parse().unwrap()), "10.0.0.1:7".parse().unwrap());
        assert_eq!(canonical("[fd00::1]:7".parse().unwrap()), "[fd00::1]:7".parse().unwrap());
    }
}
