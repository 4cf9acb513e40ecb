//! Telling systemd how far the daemon is: sd_notify(3) over the socket that it names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It serves.
    Ready,
    /// It drains, and will end.
    Stopping,
    /// It is not stuck.
    Alive,
}

/// Tells systemd, or whoever set `NOTIFY_SOCKET`; nobody when it is not set.
///
/// # Errors
/// The system's, when the socket can't be reached.
pub fn tell_systemd(state: State) -> io::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) => tell(&socket, state),
        None => Ok(()),
    }
}

/// The same; when it fails, one line of the log says so.
pub fn announce(state: State) {
    if let Err(error) = tell_systemd(state) {
        tracing::warn!(%error, "systemd not told");
    }
}

/// Tells systemd twice in each of its watchdog's periods that this runtime still turns, if its unit has `WatchdogSec=`.
/// To be spawned beside the daemon's work: it ends with the runtime, or at once when nobody watches.
pub async fn keep_watchdog_fed() {
    let Some(period) = watchdog_period(std::env::var("WATCHDOG_USEC").ok().as_deref()) else { return };
    let mut ticks = tokio::time::interval(period / 2);
    loop {
        ticks.tick().await;
        // systemd notices by itself when it hears nothing.
        let _ = tell_systemd(State::Alive);
    }
}

/// sd_watchdog_enabled(3): a number of microseconds.
fn watchdog_period(text: Option<&str>) -> Option<Duration> {
    text?.parse().ok().filter(|&microseconds| microseconds > 0).map(Duration::from_micros)
}

fn tell(socket: &OsStr, state: State) -> io::Result<()> {
    let message = match state {
        State::Ready => "READY=1",
        State::Stopping => "STOPPING=1",
        State::Alive => "WATCHDOG=1",
    };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    #[test]
    fn both_kinds_of_socket_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let file = UnixDatagram::bind(&path).unwrap();
        tell(path.as_os_str(), State::Ready).unwrap();
        assert_eq!(heard(&file), "READY=1");

        let name = format!("urlproxy-test-{}", std::process::id());
        let abstract_socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        tell(OsStr::new(&format!("@{name}")), State::Stopping).unwrap();
        assert_eq!(heard(&abstract_socket), "STOPPING=1");

        assert!(tell(OsStr::new("/nowhere/at/all"), State::Ready).is_err());
    }

    #[test]
    fn a_watchdogs_period_is_a_positive_number() {
        assert_eq!(watchdog_period(Some("30000000")), Some(Duration::from_secs(30)));
        for text in [None, Some(""), Some("0"), Some("-1"), Some("soon")] {
            assert_eq!(watchdog_period(text), None, "{text:?}");
        }
    }
}
