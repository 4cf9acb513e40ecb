//! Starts kube2proxy's parts.

use std::process::ExitCode;

use rustix::system::uname;
use tracing::{info, warn};

use super::events::send_events;
use super::leader_lock::LeaderLock;
use super::ledger::Ledger;
use super::metrics::Metrics;
use super::options::Options;
use super::reconciler::{ReconcilerConfig, reconcile};
use super::settings::Settings;
use super::watch::watch_all;
use crate::daemon::{
    CommonOptions, DaemonOptions, Failure, GuardMessages, InvalidationListener, Lifecycle, LoggedGuard, Store,
    on_worker,
};
use crate::registry::ROUTES_PREFIX;

impl DaemonOptions for Options {
    type Settings = Settings;

    fn common(&self) -> &CommonOptions {
        &self.common
    }

    async fn resolve(self) -> Result<Settings, Failure> {
        self.into_settings().await.map_err(Failure::usage)
    }
}

const GUARD_MESSAGES: GuardMessages = GuardMessages {
    lacks: "many Services missing from the cluster; their routes stay until the hold ends or the accept file is touched",
    has_all: "missing Services are back; hold ended",
    withdrawing: "withdrawing the routes of missing Services",
};

/// Keeps Redis in step with the cluster until shutdown, then releases the lock.
pub async fn serve(settings: Settings, mut lifecycle: Lifecycle) -> Result<ExitCode, Failure> {
    let (metrics, readiness) = (Metrics::register(lifecycle.registry()), lifecycle.readiness());
    let (_, shutdown) = lifecycle.start().await?;
    info!(cluster = %settings.watch.config.cluster_url, redis = settings.redis.reach().to_string(), "following the cluster's Services");
    if settings.watch.config.accept_invalid_certs {
        warn!(
            "--insecure-skip-tls-verify is set; a man in the middle of the connection to the API server can route every tool"
        );
    }
    if let Some(authority) = settings.watch.config.proxy_url.as_ref().and_then(|proxy| proxy.authority()) {
        // The user and password before the host are not logged.
        let proxy = authority.as_str().rsplit('@').next().unwrap_or_default();
        info!(proxy, "connecting to the API server through a proxy");
    }
    if settings.has_lease {
        warn!("--lease has no effect; remove it, a lock in Redis elects the leader");
    }
    let host = uname().nodename().to_string_lossy().into_owned();
    let identity = format!("{host}_{}_{:08x}", std::process::id(), fastrand::u32(..));
    let invalidations = InvalidationListener::spawn(settings.redis.clone(), ROUTES_PREFIX);
    let store = Store::new(settings.redis, metrics.redis.clone());
    let guard = LoggedGuard::new(settings.guard, &GUARD_MESSAGES);
    let config = ReconcilerConfig {
        ledger: Ledger::new(store, LeaderLock::new(identity), host, guard, metrics.clone()),
        invalidations,
        rejection_events: send_events(settings.watch.clone()),
        events: watch_all(&settings.watch),
        selectors: settings.watch.label_selectors.len(),
        resync_interval: settings.resync_interval,
        readiness,
        metrics,
    };
    on_worker(reconcile(config, shutdown)).await;
    info!("shutdown complete");
    Ok(ExitCode::SUCCESS)
}
