//! Putting the parts together.

use std::future::Future;

use rustix::system::uname;
use tracing::{info, warn};

use super::events::send_events;
use super::follow::{Parts, follow};
use super::ledger::Ledger;
use super::lock::Lock;
use super::metrics::Metrics;
use super::settings::Settings;
use super::watch::watch_all;
use crate::daemon::{Guard, GuardWords, InvalidationListener, Readiness, Store};
use crate::registry::ROUTES_PREFIX;

const GUARD_WORDS: GuardWords = GuardWords {
    lacks: "the cluster lacks Services; their routes stay unless that file is touched",
    has_all: "the cluster has all Services again; nothing was withdrawn",
    withdrawing: "withdrawing the routes of Services that the cluster lacks",
};

/// Keeps Redis in step with the cluster until `shutdown`; then gives up what others wait for.
pub async fn serve(settings: Settings, metrics: Metrics, readiness: Readiness, shutdown: impl Future<Output = ()>) {
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
    let invalidations = InvalidationListener::listen(settings.client.clone(), ROUTES_PREFIX);
    let store = Store::new(settings.client, metrics.redis.clone());
    let guard = Guard::new(settings.guard, &GUARD_WORDS);
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
    follow(parts, shutdown).await;
}
