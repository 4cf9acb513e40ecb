//! Resolves host names with a deadline, which the system's resolver lacks.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Instant;

use super::error::ConnectionError;
use super::waiter::Waiter;

/// Most concurrent lookups in a process, so that a hanging resolver does not accumulate threads.
const MAX_LOOKUPS: usize = 4;
/// Number of lookups in progress.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// Resets the count of lookups after a fork: the parent's lookups do not exist in the child.
pub fn forget_lookups() {
    LOOKUPS.store(0, Ordering::Relaxed);
}

/// The addresses of `host`, in the system's order of preference; at least one.
///
/// getaddrinfo(3) may block for many seconds and cannot be interrupted, so a name is resolved on a separate thread, which is
/// abandoned at the deadline. It inherits the caller's signal mask. An address needs no thread.
pub(super) fn resolve(
    host: &str,
    port: u16,
    waiter: Waiter<'_>,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, ConnectionError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |error: Error| ConnectionError::Resolve { host: host.to_owned(), error };
    let lookup = Lookup::begin(&LOOKUPS).ok_or_else(|| failed(Error::other("earlier lookups still hang")))?;
    let (answer, answered) = sync_channel(1);
    let name = host.to_owned();
    let lookup_host = move || {
        let addresses = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        drop(lookup);
        // Fails if the caller has given up at its deadline.
        let _ = answer.send(addresses);
    };
    thread::Builder::new().name("urlproxy-dns".into()).spawn(lookup_host).map_err(failed)?;
    while let Some(slice) = waiter.slice(deadline)? {
        match answered.recv_timeout(slice) {
            Ok(Ok(addresses)) if addresses.is_empty() => return Err(failed(Error::other("no address"))),
            Ok(addresses) => return addresses.map_err(failed),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(failed(Error::other("lookup ended without an answer"))),
        }
    }
    Err(failed(ErrorKind::TimedOut.into()))
}

/// A counted lookup in progress; dropping it decrements the counter.
struct Lookup(&'static AtomicUsize);

impl Lookup {
    fn begin(counter: &'static AtomicUsize) -> Option<Self> {
        let in_progress = counter.fetch_add(1, Ordering::Relaxed);
        let lookup = Self(counter);
        (in_progress < MAX_LOOKUPS).then_some(lookup)
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
        let waiter = Waiter::new(&|| false);
        let soon = Instant::now() + Duration::from_secs(10);
        for (host, want) in [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("localhost", ":1")] {
            let addresses = resolve(host, 1, waiter, soon).unwrap();
            assert!(addresses.iter().all(|a| a.ip().is_loopback() && a.to_string().ends_with(want)), "{addresses:?}");
        }
        assert!(matches!(resolve("no such host", 1, waiter, soon), Err(ConnectionError::Resolve { .. })));
        assert!(matches!(resolve("h", 1, Waiter::new(&|| true), soon), Err(ConnectionError::Stopped)));
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
