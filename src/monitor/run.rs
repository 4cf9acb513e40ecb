//! Runs rounds until shutdown, or one round.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::info;

use super::begin_marker::run_as_begin_marker;
use super::metrics::Metrics;
use super::options::Options;
use super::redis_state::RedisState;
use super::round::Monitor;
use super::service_log::run_as_log_appender;
use super::settings::{Mode, Settings, StateLocation};
use super::state_store::StateStore;
use crate::daemon::{CommonOptions, DaemonOptions, Failure, Lifecycle, Readiness, Store};

impl DaemonOptions for Options {
    type Settings = Settings;

    fn common(&self) -> &CommonOptions {
        &self.common
    }

    async fn resolve(self) -> Result<Settings, Failure> {
        self.into_settings().map_err(Failure::usage)
    }
}

/// Runs a helper process, if the arguments say that this is one: appending to a service.log, or marking the begin of a start
/// command. Returns its exit status.
pub fn run_helper_role() -> Option<ExitCode> {
    let args: Vec<_> = std::env::args_os().collect();
    run_as_log_appender(&args).or_else(|| run_as_begin_marker(&args)).map(ExitCode::from)
}

/// Runs rounds until shutdown, which waits for restarts in progress; or one round, with exit status 1 if it is suspended. The
/// daemon is ready while rounds are not suspended.
///
/// # Errors
/// The state file is locked by another monitor or inaccessible.
pub async fn serve(settings: Settings, mut lifecycle: Lifecycle) -> Result<ExitCode, Failure> {
    let (metrics, readiness) = (Metrics::register(lifecycle.registry()), lifecycle.readiness());
    let (_, shutdown) = lifecycle.start().await?;
    let mode = settings.mode;
    let store = match &settings.state {
        StateLocation::File(path) if mode == Mode::DryRun => StateStore::open_read_only(path),
        StateLocation::File(path) => StateStore::open(path)?,
        StateLocation::Redis(url) => {
            let store = Store::new((**url).clone(), metrics.redis.clone());
            StateStore::Redis(Box::new(RedisState::new(store, mode == Mode::DryRun)))
        }
    };
    let mut rounds = interval(settings.limits.interval);
    // A round that took longer than the interval is followed by one round at once, not by all that were missed.
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (stop, stopping) = watch::channel(false);
    let mut monitor = Monitor::new(settings, store, metrics, stopping);
    tokio::pin!(shutdown);
    let is_ok = run_rounds(&mut monitor, mode, &mut rounds, stop, readiness, shutdown).await;
    monitor.release().await;
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_rounds(
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
            (table, is_ok) = monitor.dry_run() => {
                print!("{table}");
                is_ok
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
        let (is_ok, is_stopped) = tokio::select! {
            is_ok = &mut round => (is_ok, false),
            () = &mut shutdown => {
                info!("stopping; waiting for restarts in progress");
                let _ = stop.send(true);
                (round.await, true)
            }
        };
        readiness.set(is_ok && !is_stopped);
        match mode {
            _ if is_stopped => return true,
            Mode::Daemon => {}
            Mode::Once | Mode::DryRun => return is_ok,
        }
    }
}
