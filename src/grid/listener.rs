//! Accepts clients within limits, reads one command from each, and replies once.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::denied_clients::DeniedClients;
use super::metrics::{ALLOW_CLIENT, CommandKind, Outcome};
use super::protocol::{MAX_COMMAND_LEN, Reply, end_last_line, parse_command};
use super::registrar::{Client, Registrar};
use crate::daemon::{Acceptor, ConnectionLimiter, ConnectionMeter, Limit, Limits, Permit, Refused, canonical_addr};

/// Time for clients to complete their command after shutdown was requested.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// After the reply a client may send for this long, and this much, before the connection is closed. Closing it with unread data
/// would reset it, and lose the reply.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;
/// How often a waiting client tries to get a permit. Polling shares freed permits among all that wait, also with a host that
/// opens many connections at once.
const PERMIT_RETRY: Duration = Duration::from_millis(20);
/// A client that has sent no command for this long may be evicted for one that waits.
const EVICTABLE_AFTER: Duration = Duration::from_millis(200);

/// Refused connections that may close in order after the reply; they count in no other limit. A further one evicts the oldest.
const REFUSALS: Limits = Limits { total: 128, per_host: 64, per_owner: 64 };

/// Serves until `shutdown`, then drains the open connections.
pub async fn serve_clients(listener: TcpListener, registrar: Arc<Registrar>, shutdown: impl Future<Output = ()>) {
    let limiter = ConnectionLimiter::new(registrar.metrics.connections.clone());
    let waiting: Arc<ConnectionLimiter<IpAddr>> = ConnectionLimiter::new(registrar.metrics.waiting.clone());
    let lingering = ConnectionLimiter::new(registrar.metrics.lingering.clone());
    let refusals = ConnectionLimiter::new(ConnectionMeter::default());
    let denied_clients = DeniedClients::new();
    let (stop, stopping) = watch::channel(false);
    let mut clients = JoinSet::new();
    let mut acceptor = Acceptor::new(listener);
    tokio::pin!(shutdown);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = clients.join_next() => continue,
            accepted = acceptor.accept() => accepted,
        };
        let policy = registrar.live.load();
        if !policy.admits(peer.ip()) {
            registrar.metrics.connections.refuse(ALLOW_CLIENT);
            denied_clients.log(peer.ip());
            clients.spawn(refuse(stream, refusals.admit(peer.ip(), &REFUSALS)));
            continue;
        }
        let limits = Limits::of(policy.max_connections);
        let (stopping, registrar) = (stopping.clone(), Arc::clone(&registrar));
        let (lingering, refusals) = (Arc::clone(&lingering), Arc::clone(&refusals));
        let idle_timeout = policy.idle_timeout;
        let refused = Arc::clone(&refusals);
        let session =
            move |permit| Session { peer, idle_timeout, stopping, permit, lingering, refusals: refused, limits };
        // A new client does not overtake waiting ones of its host.
        if !waiting.has(&peer.ip())
            && let Ok(permit) = limiter.try_admit(peer.ip(), &limits, EVICTABLE_AFTER)
        {
            clients.spawn(async move { session(permit).serve(stream, &registrar).await });
        } else if let Ok(waiting_permit) = waiting.admit(peer.ip(), &waiting_limits(&limits)) {
            // A waiting client is not evicted for a later one.
            waiting_permit.set_busy();
            let limiter = Arc::clone(&limiter);
            clients.spawn(async move {
                let permit = wait_for_permit(&limiter, peer.ip(), &limits, &stream, idle_timeout).await;
                drop(waiting_permit);
                match permit {
                    Some(permit) => session(permit).serve(stream, &registrar).await,
                    None => refuse(stream, refusals.admit(peer.ip(), &REFUSALS)).await,
                }
            });
        } else {
            // No more may wait: evict a client that has sent no command, however short it is connected.
            match limiter.admit(peer.ip(), &limits) {
                Ok(permit) => _ = clients.spawn(async move { session(permit).serve(stream, &registrar).await }),
                Err(refused) => {
                    log_refusal(peer.ip(), refused);
                    clients.spawn(refuse(stream, refusals.admit(peer.ip(), &REFUSALS)));
                }
            }
        }
    }
    drop(acceptor);
    info!(clients = clients.len(), "stopped accepting; draining open connections");
    let _ = stop.send(true);
    while clients.join_next().await.is_some() {}
}

/// Replies `fail` and closes in order: old clients take a connection that closes without a reply for success. The permit is one of
/// [`REFUSALS`], of which one can always be evicted, as none is ever busy.
async fn refuse(mut stream: TcpStream, permit: Result<Permit<IpAddr>, Refused>) {
    let Ok(permit) = permit else { return };
    let answer = async {
        if send_reply(&mut stream, Reply::Fail).await.is_ok() {
            wait_for_close(&mut stream).await;
        }
    };
    tokio::select! {
        () = answer => {}
        () = permit.evicted() => {}
    }
}

/// As many clients may wait as are served, half of them from one host.
fn waiting_limits(limits: &Limits) -> Limits {
    Limits { per_host: (limits.total / 2).max(1), ..*limits }
}

/// Waits for a permit; `None` if the client disconnects or none is free in time.
async fn wait_for_permit(
    limiter: &Arc<ConnectionLimiter<IpAddr, String>>,
    host: IpAddr,
    limits: &Limits,
    stream: &TcpStream,
    within: Duration,
) -> Option<Permit<IpAddr, String>> {
    let deadline = Instant::now() + within;
    loop {
        tokio::time::sleep(PERMIT_RETRY).await;
        if matches!(stream.peek(&mut [0]).now_or_never(), Some(Ok(0) | Err(_))) {
            return None;
        }
        match limiter.try_admit(host, limits, EVICTABLE_AFTER) {
            Ok(permit) => return Some(permit),
            Err(limit) if Instant::now() >= deadline => {
                log_refusal(host, limiter.refuse(&host, limit));
                return None;
            }
            Err(_) => {}
        }
    }
}

fn log_refusal(peer: IpAddr, refused: Refused) {
    if refused.first {
        warn!(%peer, limit = limit_name(refused.limit), "connection limit reached; refusing connections");
    }
}

/// A limit's name in the log.
fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::Total => "--max-connections",
        Limit::PerHost => "connections per host",
        Limit::PerOwner => "connections per user of a host",
    }
}

/// Why a connection ends without a command.
enum NoCommand {
    /// With the reason.
    Incomplete(&'static str),
    /// Another client needs the connection.
    Evicted,
}

/// One client's connection.
struct Session {
    peer: SocketAddr,
    idle_timeout: Duration,
    stopping: watch::Receiver<bool>,
    permit: Permit<IpAddr, String>,
    /// Connections after the reply.
    lingering: Arc<ConnectionLimiter<IpAddr>>,
    /// Connections that are refused, see [`REFUSALS`].
    refusals: Arc<ConnectionLimiter<IpAddr>>,
    limits: Limits,
}

impl Session {
    async fn serve(mut self, mut stream: TcpStream, registrar: &Registrar) {
        // Fails when the client has disconnected.
        let Ok(local) = stream.local_addr().map(canonical_addr) else { return };
        let peer = self.peer;
        let mut received = Vec::new();
        if let Err(why) = self.receive(&mut stream, &mut received).await {
            registrar.metrics.count_command(CommandKind::unknown, Outcome::no_command);
            // A health check that only connects is not worth a line.
            match why {
                NoCommand::Evicted => refuse(stream, self.refusals.admit(peer.ip(), &REFUSALS)).await,
                NoCommand::Incomplete(why) if !received.is_empty() => {
                    info!(peer = %peer.ip(), reason = why, "connection closed without a reply");
                }
                NoCommand::Incomplete(_) => {}
            }
            return;
        }
        if !self.permit.set_busy() {
            // Evicted as its command came.
            registrar.metrics.count_command(CommandKind::unknown, Outcome::no_command);
            refuse(stream, self.refusals.admit(peer.ip(), &REFUSALS)).await;
            return;
        }
        let reply = match parse_command(&received) {
            Ok(Some(command)) => {
                let client = Client { peer, local, stream: &stream, permit: &self.permit };
                registrar.decide(command, &client).await
            }
            Ok(None) => return,
            Err(error) => {
                registrar.metrics.count_command(CommandKind::unknown, Outcome::refused);
                let (reply, reason) = (Reply::Fail, error.to_string());
                warn!(peer = %peer.ip(), reply = reply.as_str(), reason, "command refused");
                reply
            }
        };
        // The outcome stands even if the client has disconnected.
        if !matches!(timeout(self.idle_timeout, send_reply(&mut stream, reply)).await, Ok(Ok(()))) {
            return;
        }
        // Frees the permit, so that a client that does not close keeps no other client out.
        drop(self.permit);
        let Ok(permit) = self.lingering.admit(peer.ip(), &self.limits) else { return };
        tokio::select! {
            () = wait_for_close(&mut stream) => {}
            () = permit.evicted() => {}
        }
    }

    /// Reads until a command is complete or invalid.
    async fn receive(&mut self, stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<(), NoCommand> {
        let deadline = Instant::now() + self.idle_timeout;
        let stopping = &mut self.stopping;
        let end = async {
            // Fails only when `serve_clients` is gone.
            let _ = stopping.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        tokio::pin!(end);
        let mut stream = stream.take(MAX_COMMAND_LEN as u64);
        loop {
            let read = tokio::select! {
                read = stream.read_buf(received) => read,
                () = sleep_until(deadline) => return Err(NoCommand::Incomplete("command incomplete at --idle-timeout")),
                () = &mut end => return Err(NoCommand::Incomplete("command incomplete at shutdown")),
                () = self.permit.evicted() => return Err(NoCommand::Evicted),
            };
            match read {
                Ok(0) => {
                    end_last_line(received);
                    let is_complete = !matches!(parse_command(received), Ok(None));
                    return if is_complete {
                        Ok(())
                    } else {
                        Err(NoCommand::Incomplete("client closed within the command"))
                    };
                }
                Ok(_) if !matches!(parse_command(received), Ok(None)) => return Ok(()),
                Ok(_) => {}
                Err(_) => return Err(NoCommand::Incomplete("connection lost within the command")),
            }
        }
    }
}

/// Sends the reply, and shuts the sending side down.
async fn send_reply(stream: &mut TcpStream, reply: Reply) -> io::Result<()> {
    stream.write_all(reply.as_str().as_bytes()).await?;
    stream.shutdown().await
}

/// Waits until the client closes, within limits.
async fn wait_for_close(stream: &mut TcpStream) {
    let mut bytes = [0; 4096];
    let mut left = LINGER_BYTES;
    let rest = async {
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    // A timeout is no error.
    let _ = timeout(LINGER, rest).await;
}
