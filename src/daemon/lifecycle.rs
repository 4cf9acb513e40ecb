//! A daemon's lifecycle: signals, metrics, readiness, and notifications to systemd.

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

/// Shared state of a running daemon. Created first inside the runtime: from then on, signals no longer kill the process.
#[derive(Debug)]
pub struct Lifecycle {
    signals: StopSignals,
    hangups: Option<Signal>,
    registry: Registry,
    readiness: Readiness,
    metrics_listen: Option<SocketAddr>,
}

impl Lifecycle {
    /// Catches signals. `name` is the prefix of the daemon's metrics, `metrics_listen` the address of the metrics endpoint.
    ///
    /// # Errors
    /// A signal handler cannot be installed.
    pub(super) fn begin(name: &str, metrics_listen: Option<SocketAddr>) -> io::Result<Self> {
        let (signals, hangups) = (StopSignals::catch()?, signal(SignalKind::hangup())?);
        let (mut registry, readiness) = (new_registry(name), Readiness::default());
        registry.sub_registry_with_prefix(name).register_collector(Box::new(readiness.clone()));
        Ok(Self { signals, hangups: Some(hangups), registry, readiness, metrics_listen })
    }

    /// The registry for the daemon's metrics.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The daemon's readiness. During shutdown it reports "not ready", whatever is set.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The SIGHUP stream, for a daemon that reloads its settings; `None` if it was taken before. If no daemon takes it, each
    /// SIGHUP is logged as ignored.
    pub fn take_hangups(&mut self) -> Option<Signal> {
        self.hangups.take()
    }

    /// Serves the metrics endpoint and reports READY to systemd; call it after everything that may fail. Returns the endpoint's
    /// address, if there is one, and a future that waits for SIGTERM or SIGINT, clears readiness and reports STOPPING.
    ///
    /// # Errors
    /// The metrics address cannot be bound; the error names it.
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

/// Binds the address that a command-line option gives.
///
/// # Errors
/// The address cannot be bound; the error names the option and the address.
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
    async fn bind_errors_name_the_option_and_the_address() {
        let taken = bind("--listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind("--metrics-listen", address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().ends_with(&format!("while binding --metrics-listen {address}")), "{error}");
    }
}
