//! Round after round, or one.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::info;

use super::keeper::{Keeper, KeeperError};
use super::metrics::Metrics;
use super::redis_keeper::RedisKeeper;
use super::round::Monitor;
use super::settings::{Mode, Settings, StateAt};
use crate::daemon::{Readiness, Store};

/// Goes round until `shutdown`, finishing the restarts that are under way; or once. Tells whether the last round was not
/// braked, or there was no last one to tell of. It is ready while rounds are not braked.
///
/// # Errors
/// The history of restarts belongs to another monitor, or cannot be had at all.
pub async fn serve(
    settings: Settings,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: impl Future<Output = ()>,
) -> Result<bool, KeeperError> {
    let mode = settings.mode;
    let keeper = match &settings.state {
        StateAt::File(path) if mode == Mode::DryRun => Keeper::look_at(path),
        StateAt::File(path) => Keeper::open(path)?,
        StateAt::Redis(client) => {
            let store = Store::new((**client).clone(), metrics.redis.clone());
            Keeper::Redis(Box::new(RedisKeeper::new(store, mode == Mode::DryRun)))
        }
    };
    let mut rounds = interval(settings.pace.interval);
    // One that took longer than the interval is followed at once by one, not by all that were missed.
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (stop, stopping) = watch::channel(false);
    let mut monitor = Monitor::new(settings, keeper, metrics, stopping);
    tokio::pin!(shutdown);
    let outcome = go_round(&mut monitor, mode, &mut rounds, stop, readiness, shutdown).await;
    monitor.end().await;
    Ok(outcome)
}

async fn go_round(
    monitor: &mut Monitor,
    mode: Mode,
    rounds: &mut Interval,
    stop: watch::Sender<bool>,
    readiness: Readiness,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    if mode == Mode::DryRun {
        return tokio::select! {
            () = &mut shutdown => true,
            (table, is_whole) = monitor.rehearse() => {
                print!("{table}");
                is_whole
            }
        };
    }
    loop {
        tokio::select! {
            () = &mut shutdown => return true,
            _ = rounds.tick() => {}
        }
        let round = monitor.round();
        tokio::pin!(round);
        let (is_whole, is_stopped) = tokio::select! {
            is_whole = &mut round => (is_whole, false),
            () = &mut shutdown => {
                info!("ending after the restarts that are under way");
                let _ = stop.send(true);
                (round.await, true)
            }
        };
        readiness.set(is_whole && !is_stopped);
        match mode {
            _ if is_stopped => return true,
            Mode::Daemon => {}
            Mode::Once | Mode::DryRun => return is_whole,
        }
    }
}
