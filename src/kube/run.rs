//! Putting the parts together.

use std::process::ExitCode;

use rustix::system::uname;
use tracing::{info, warn};

use super::events::send_events;
use super::follow::{Parts, follow};
use super::ledger::Ledger;
use super::lock::Lock;
use super::metrics::Metrics;
use super::options::Options;
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

const GUARD_WORDS: GuardMessages = GuardMessages {
    lacks: "the cluster lacks Services; their routes stay unless that file is touched",
    has_all: "the cluster has all Services again; nothing was withdrawn",
    withdrawing: "withdrawing the routes of Services that the cluster lacks",
};

/// Keeps Redis in step with the cluster until the daemon is to end; then gives up what others wait for.
///
/// # Errors
/// The system's.
pub async fn serve(settings: Settings, mut lifecycle: Lifecycle) -> Result<ExitCode, Failure> {
    let (metrics, readiness) = (Metrics::register(lifecycle.registry()), lifecycle.readiness());
    let (_, shutdown) = lifecycle.start().await?;
    info!(cluster = %settings.watch.config.cluster_url, redis = settings.redis.reach().to_string(), "following");
    if settings.watch.config.accept_invalid_certs {
        warn!("--insecure-skip-tls-verify: whoever is between here and the API server can route every tool");
    }
    if let Some(authority) = settings.watch.config.proxy_url.as_ref().and_then(|proxy| proxy.authority()) {
        // Without the user and password that may stand before.
        let proxy = authority.as_str().rsplit('@').next().unwrap_or_default();
        info!(proxy, "asking the API server through a proxy");
    }
    if settings.has_lease {
        warn!("--lease does nothing any more: of several kube2proxy on one Redis one writes; leave it out");
    }
    let host = uname().nodename().to_string_lossy().into_owned();
    let identity = format!("{host}_{}_{:08x}", std::process::id(), fastrand::u32(..));
    let invalidations = InvalidationListener::spawn(settings.redis.clone(), ROUTES_PREFIX);
    let store = Store::new(settings.redis, metrics.redis.clone());
    let guard = LoggedGuard::new(settings.guard, &GUARD_WORDS);
    let parts = Parts {
        ledger: Ledger::new(store, Lock::new(identity), host, guard, metrics.clone()),
        invalidations,
        notices: send_events(settings.watch.clone()),
        news: watch_all(&settings.watch),
        selectors: settings.watch.label_selectors.len(),
        resync_interval: settings.resync_interval,
        readiness,
        metrics,
    };
    on_worker(follow(parts, shutdown)).await;
    info!("shutdown complete");
    Ok(ExitCode::SUCCESS)
}
