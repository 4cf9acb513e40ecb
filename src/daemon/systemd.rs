//! Notifies systemd: ready, stopping, watchdog.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::interval;
use tracing::warn;

/// Notifies systemd, or whatever set `NOTIFY_SOCKET`; logs failures.
pub(super) fn notify_systemd(state: NotifyState<'_>) {
    if let Err(error) = send(state) {
        warn!(%error, "systemd notification failed; systemd does not see this change of state");
    }
}

/// Notifies systemd twice per watchdog period that this runtime is alive, if the unit has `WatchdogSec=`. Spawn it beside the
/// daemon's work: it ends with the runtime, or at once without a watchdog.
pub(super) async fn feed_watchdog() {
    let Some(period) = watchdog_enabled().filter(|period| !period.is_zero()) else { return };
    let mut ticks = interval(period / 2);
    loop {
        ticks.tick().await;
        // If this fails, systemd notices the missing notification.
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

/// The name of an abstract socket: `@` stands for its leading zero byte, sd_notify(3).
fn abstract_name(socket: &OsStr) -> Option<&[u8]> {
    socket.as_bytes().strip_prefix(b"@")
}

/// sd-notify 0.5 treats every name as a path.
fn send_to_abstract(name: &[u8], state: NotifyState<'_>) -> io::Result<()> {
    let address = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?.send_to_addr(state.to_string().as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abstract_sockets_receive_the_state() {
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
