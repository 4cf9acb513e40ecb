//! Putting the parts together.

use std::future::Future;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::system::uname;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::events::send_events;
use super::follow::{Parts, follow};
use super::lease::{Leadership, Timing, take_part};
use super::ledger::Ledger;
use super::metrics::Metrics;
use super::settings::Settings;
use super::watch::Watch;
use crate::daemon::{Guard, GuardWords, Readiness, Store};

const GUARD_WORDS: GuardWords = GuardWords {
    lacks: "the cluster lacks Services; their routes stay unless that file is touched",
    has_all: "the cluster has all Services again; nothing was withdrawn",
    withdrawing: "withdrawing the routes of Services that the cluster lacks",
};

/// Keeps Redis in step with the cluster until `shutdown`; then gives back what others wait for.
pub async fn serve(settings: Settings, metrics: Metrics, readiness: Readiness, shutdown: impl Future<Output = ()>) {
    if settings.watch.config.accept_invalid_certs {
        warn!("--insecure-skip-tls-verify: whoever is between here and the API server can route every tool");
    }
    let host = uname().nodename().to_string_lossy().into_owned();
    let identity = format!("{host}_{}_{:08x}", std::process::id(), random());
    let (leader, leadership) = watch::channel(Leadership::Standby);
    let (stop, stopping) = watch::channel(false);
    let lease = match settings.lease {
        Some(name) => {
            let cluster = settings.watch.clone();
            let client_of = move || cluster.client();
            tokio::spawn(take_part(client_of, name, identity.clone(), Timing::default(), leader, stopping))
        }
        None => {
            // The only one, by the operator's word. Never over: a year at a time is as good as for ever.
            let until = Instant::now() + Duration::from_secs(365 * 24 * 3600);
            let _ = leader.send(Leadership::Leading { until });
            // Kept until the end: a channel without a sender is closed.
            tokio::spawn(async move { leader.closed().await })
        }
    };
    let store = Store::new(settings.client, metrics.redis.clone());
    let ledger = Ledger::new(store, identity, host, Guard::new(settings.guard, &GUARD_WORDS), metrics.clone());
    let parts = Parts {
        notices: send_events(settings.watch.clone()),
        watch: Watch::new(settings.watch),
        ledger,
        templates: settings.templates,
        resync_interval: settings.resync_interval,
        leadership,
        readiness,
        metrics,
    };
    follow(parts, shutdown).await;
    // Only now: nothing is written any more, so another may.
    let _ = stop.send(true);
    let _ = lease.await;
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without it two processes of one host and number would be the same, one after the other.
    let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
    u32::from_ne_bytes(bytes)
}
