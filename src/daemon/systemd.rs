//! Says to systemd that the daemon is ready, about to end, or alive.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::interval;
use tracing::warn;

/// Notifies systemd, or whatever set `NOTIFY_SOCKET`; when that fails, one line of the log says so.
pub(super) fn notify_systemd(state: NotifyState<'_>) {
    if let Err(error) = send(state) {
        warn!(%error, "systemd notification failed; systemd does not see this change of state");
    }
}

/// Notifies systemd twice in each period of its watchdog that this runtime still turns, if the unit has `WatchdogSec=`.
/// To be spawned beside the daemon's work: it ends with the runtime, or at once without a watchdog.
pub(super) async fn feed_watchdog() {
    let Some(period) = watchdog_enabled().filter(|period| !period.is_zero()) else { return };
    let mut ticks = interval(period / 2);
    loop {
        ticks.tick().await;
        // systemd notices by itself when it hears nothing.
        let _ = send(NotifyState::Watchdog);
    }
}

fn send(state: NotifyState<'_>) -> io::Result<()> {
    let socket = std::env::var_os("NOTIFY_SOCKET");
    match socket.as_deref().and_then(abstract_name) {
        Some(name) => send_to_abstract(name, state),
        None => notify(&[state]),
    }
}

/// sd_notify(3): `@` stands for the zero byte that an abstract socket's name begins with.
fn abstract_name(socket: &OsStr) -> Option<&[u8]> {
    socket.as_bytes().strip_prefix(b"@")
}

/// sd-notify 0.5 takes every name for a path.
fn send_to_abstract(name: &[u8], state: NotifyState<'_>) -> io::Result<()> {
    let address = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?.send_to_addr(state.to_string().as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abstract_socket_gets_the_state() {
        let name = format!("urlproxy-test-{}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let socket = format!("@{name}");
        send_to_abstract(abstract_name(OsStr::new(&socket)).unwrap(), NotifyState::Stopping).unwrap();
        let mut bytes = [0; 64];
        let len = systemd.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"STOPPING=1");
        assert!(send_to_abstract(b"urlproxy-test-nowhere", NotifyState::Ready).is_err());
        assert_eq!(abstract_name(OsStr::new("/run/systemd/notify")), None);
    }
}
