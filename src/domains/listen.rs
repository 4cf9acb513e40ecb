//! Connections: as many as there may be, none longer than it speaks.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::api::Api;

/// More connections than these wait to be accepted.
const CONNECTIONS: usize = 512;
/// More of one client are closed at once: nobody can keep all the others out.
const PER_CLIENT: usize = 128;
/// A connection may be silent so long before a request's head is there.
const HEAD: Duration = Duration::from_secs(15);
/// After a failure to accept, as when there are no file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then lets requests end for as long as `drain_timeout`.
pub(super) async fn listen(
    listener: TcpListener,
    api: Arc<Api>,
    drain_timeout: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let clients = Arc::new(Clients::default());
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.as_mut() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "no connection accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let client = peer.ip().to_canonical();
        let Some(seat) = Clients::seat(&clients, client) else {
            debug!(%peer, "connection closed: its client has {PER_CLIENT} already");
            continue;
        };
        // Answers are small: nobody waits for more of them.
        let _ = stream.set_nodelay(true);
        let api = Arc::clone(&api);
        let answer = service_fn(move |request| {
            let api = Arc::clone(&api);
            async move { Ok::<_, Infallible>(api.answer(client, request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), answer));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, %peer, "connection broken off");
            }
            drop((place, seat));
        });
    }
    drop(listener);
    if timeout(drain_timeout, graceful.shutdown()).await.is_err() {
        warn!(?drain_timeout, "requests broken off");
    }
}

/// How many connections each client has.
#[derive(Debug, Default)]
struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// One of them; it is given back with the value.
struct Seat {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    fn seat(clients: &Arc<Self>, client: IpAddr) -> Option<Seat> {
        let mut counts = clients.0.lock();
        let count = counts.entry(client).or_default();
        if *count >= PER_CLIENT {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Seat { clients: Arc::clone(clients), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_so_many_and_another_its_own() {
        let clients = Arc::new(Clients::default());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut seats: Vec<_> = (0..PER_CLIENT).map(|_| Clients::seat(&clients, one)).collect();
        assert!(seats.iter().all(Option::is_some) && Clients::seat(&clients, one).is_none());
        assert!(Clients::seat(&clients, other).is_some());
        seats.pop();
        assert!(Clients::seat(&clients, one).is_some());
        drop(seats);
        assert!(clients.0.lock().is_empty());
    }
}
