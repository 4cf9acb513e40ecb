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

use super::protocol::{MAX_COMMAND_LEN, Reply, parse_command};
use super::registrar::Registrar;
use super::settings::Settings;

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
pub async fn serve(listener: TcpListener, settings: Settings, shutdown: impl Future<Output = ()>) {
    let room = Arc::new(Room::new(settings.max_connections));
    let registrar = Arc::new(settings.registrar);
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
        match Room::take(&room, peer.ip()) {
            Ok(place) => {
                let client = Client { peer, idle_timeout: settings.idle_timeout, stopping: stopping.clone() };
                let registrar = Arc::clone(&registrar);
                clients.spawn(async move {
                    client.serve(stream, &registrar).await;
                    drop(place);
                });
            }
            Err(Full { first, by }) => {
                if first {
                    warn!(peer = %peer.ip(), by, "connections refused");
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
    most: usize,
    most_per_host: usize,
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
}

/// There is no place.
#[derive(Debug, PartialEq, Eq)]
struct Full {
    /// Since there last was one.
    first: bool,
    by: &'static str,
}

impl Room {
    fn new(most: usize) -> Self {
        let most_per_host = MAX_CONNECTIONS_PER_HOST.min(most / 2).max(1);
        Self { most, most_per_host, taken: Mutex::new(Taken::default()) }
    }

    fn take(room: &Arc<Self>, host: IpAddr) -> Result<Place, Full> {
        let mut taken = room.taken.lock();
        if let Some(host) = taken.hosts.get_mut(&host)
            && host.open >= room.most_per_host
        {
            let first = !std::mem::replace(&mut host.told, true);
            return Err(Full { first, by: "the limit of connections per host" });
        }
        if taken.total >= room.most {
            let first = !std::mem::replace(&mut taken.told, true);
            return Err(Full { first, by: "the limit of connections, --max-connections" });
        }
        taken.total += 1;
        taken.hosts.entry(host).or_default().open += 1;
        Ok(Place { room: Arc::clone(room), host })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.total -= 1;
        // Told again only after it has been far from full: not at each single place that comes free.
        if taken.total <= self.room.most / 2 {
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
    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_host_cannot_take_all_places() {
        let room = Arc::new(Room::new(100));
        let places: Vec<_> = (0..50).map(|_| Room::take(&room, host(1)).unwrap()).collect();
        assert!(Room::take(&room, host(1)).is_err_and(|full| full.first && full.by.contains("per host")));
        assert!(Room::take(&room, host(1)).is_err_and(|full| !full.first));
        let others: Vec<_> = (0..50).map(|_| Room::take(&room, host(2)).unwrap()).collect();
        assert!(Room::take(&room, host(3)).is_err_and(|full| full.first && full.by.contains("--max-connections")));
        drop(places);
        assert!(Room::take(&room, host(3)).is_ok());
        drop(others);
        let taken = room.taken.lock();
        assert!(taken.total == 0 && taken.hosts.is_empty());
    }

    #[test]
    fn the_limit_per_host_is_a_constant_and_never_zero() {
        for (most, per_host) in [(1, 1), (2, 1), (100, 50), (1024, MAX_CONNECTIONS_PER_HOST), (100_000, 64)] {
            assert_eq!(Room::new(most).most_per_host, per_host, "{most}");
        }
    }

    #[test]
    fn an_ipv4_client_is_one_whatever_the_socket() {
        assert_eq!(canonical("[::ffff:10.0.0.1]:7".parse().unwrap()), "10.0.0.1:7".parse().unwrap());
        assert_eq!(canonical("[fd00::1]:7".parse().unwrap()), "[fd00::1]:7".parse().unwrap());
    }
}
