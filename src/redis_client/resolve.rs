//! Host names to addresses, with a deadline that the system's resolver does not have.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Instant;

use super::error::ConnectionError;
use super::patience::Patience;

/// So many look-ups may be under way in a process; a resolver that hangs would otherwise collect threads.
const MAX_LOOKUPS: usize = 4;
/// Look-ups under way.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// Counts from zero again: after a fork, look-ups of the parent hang only there.
pub fn forget_lookups() {
    LOOKUPS.store(0, Ordering::Relaxed);
}

/// The addresses of `host`, in the order the system prefers; at least one.
///
/// getaddrinfo(3) may block for many seconds and cannot be interrupted, so a name is looked up on a thread of its own, which
/// is left to itself when the deadline passes first. It inherits the caller's signal mask. An address needs no thread.
pub(super) fn resolve(
    host: &str,
    port: u16,
    patience: Patience<'_>,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, ConnectionError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |error: Error| ConnectionError::Resolve { host: host.to_owned(), error };
    let lookup = Lookup::begin(&LOOKUPS).ok_or_else(|| failed(Error::other("earlier look-ups still hang")))?;
    let (answer, answered) = sync_channel(1);
    let name = host.to_owned();
    let look_up = move || {
        let addresses = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        drop(lookup);
        // Nobody waits any more when the deadline has passed.
        let _ = answer.send(addresses);
    };
    thread::Builder::new().name("urlproxy-dns".into()).spawn(look_up).map_err(failed)?;
    while let Some(slice) = patience.slice(deadline)? {
        match answered.recv_timeout(slice) {
            Ok(Ok(addresses)) if addresses.is_empty() => return Err(failed(Error::other("no address"))),
            Ok(addresses) => return addresses.map_err(failed),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(failed(Error::other("look-up ended without an answer"))),
        }
    }
    Err(failed(ErrorKind::TimedOut.into()))
}

/// One of the look-ups under way that the counter counts; it has ended when this is dropped.
struct Lookup(&'static AtomicUsize);

impl Lookup {
    fn begin(counter: &'static AtomicUsize) -> Option<Self> {
        let under_way = counter.fetch_add(1, Ordering::Relaxed);
        let lookup = Self(counter);
        (under_way < MAX_LOOKUPS).then_some(lookup)
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_and_addresses_resolve() {
        let patience = Patience::new(&|| false);
        let soon = Instant::now() + Duration::from_secs(10);
        for (host, want) in [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("localhost", ":1")] {
            let addresses = resolve(host, 1, patience, soon).unwrap();
            assert!(addresses.iter().all(|a| a.ip().is_loopback() && a.to_string().ends_with(want)), "{addresses:?}");
        }
        assert!(matches!(resolve("no such host", 1, patience, soon), Err(ConnectionError::Resolve { .. })));
        assert!(matches!(resolve("h", 1, Patience::new(&|| true), soon), Err(ConnectionError::Stopped)));
    }

    #[test]
    fn lookups_are_bounded() {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let begun: Vec<_> = (0..2 * MAX_LOOKUPS).filter_map(|_| Lookup::begin(&COUNTER)).collect();
        assert_eq!(begun.len(), MAX_LOOKUPS);
        drop(begun);
        assert!(Lookup::begin(&COUNTER).is_some());
    }
}
