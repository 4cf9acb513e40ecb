//! A daemon from its start to its end: signals, metrics, readiness, systemd.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use prometheus_client::registry::Registry;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::metrics::new_registry;
use super::status::{Readiness, serve_status};
use super::stop::StopSignals;
use super::systemd::{feed_watchdog, notify_systemd};

/// What every daemon has while it runs. Made inside of the runtime, first: its signals no longer end the process then.
#[derive(Debug)]
pub struct Lifecycle {
    signals: StopSignals,
    hangups: Option<Signal>,
    registry: Registry,
    readiness: Readiness,
    metrics_listen: Option<SocketAddr>,
}

impl Lifecycle {
    /// Begins; `name` is what the names of the daemon's metrics begin with, `metrics_listen` where monitors ask for them.
    ///
    /// # Errors
    /// The system's, when a signal cannot be caught.
    pub(super) fn begin(name: &str, metrics_listen: Option<SocketAddr>) -> io::Result<Self> {
        let (signals, hangups) = (StopSignals::catch()?, signal(SignalKind::hangup())?);
        let (registry, readiness) = (new_registry(name), Readiness::default());
        Ok(Self { signals, hangups: Some(hangups), registry, readiness, metrics_listen })
    }

    /// Where the daemon's metrics are registered.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Whether it does its work. Whatever is set, it is not ready when it is about to end.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// SIGHUP, for a daemon that reads its settings again. One that does not take it has a line in its log instead, which
    /// says that this takes a restart. `None` when it was taken already.
    pub fn take_hangups(&mut self) -> Option<Signal> {
        self.hangups.take()
    }

    /// Tells systemd, and monitors, that it serves: comes after all that may fail. Returns where monitors ask, if they can, and
    /// what waits for SIGTERM or SIGINT and tells them that it is about to end.
    ///
    /// # Errors
    /// The address for monitors cannot be had; it is named.
    pub async fn start(self) -> io::Result<(Option<SocketAddr>, impl Future<Output = ()>)> {
        let Self { signals, hangups, registry, readiness, metrics_listen } = self;
        let mut status_address = None;
        if let Some(address) = metrics_listen {
            let listener = bind("--metrics-listen", address).await?;
            let address = serve_status(listener, registry, readiness.clone())?;
            info!(%address, "metrics endpoint listening");
            status_address = Some(address);
        }
        if let Some(hangups) = hangups {
            tokio::spawn(log_ignored_hangups(hangups));
        }
        tokio::spawn(feed_watchdog());
        notify_systemd(NotifyState::Ready);
        let shutdown = async move {
            signals.received().await;
            readiness.shut_down();
            notify_systemd(NotifyState::Stopping);
        };
        Ok((status_address, shutdown))
    }
}

/// Listens at an address that this option of the command line says.
///
/// # Errors
/// The system's, with the option and the address.
pub async fn bind(option: &str, address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{error} while binding {option} {address}"));
    TcpListener::bind(address).await.map_err(named)
}

async fn log_ignored_hangups(mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        warn!(
            "SIGHUP ignored; options and the files that they name are read only at startup, restart to apply changes"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_cannot_be_had_is_named() {
        let taken = bind("--listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind("--metrics-listen", address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().ends_with(&format!("while binding --metrics-listen {address}")), "{error}");
    }
}
