//! Round after round, or one.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::info;

use super::begin::begin_if_told;
use super::keeper::Keeper;
use super::metrics::Metrics;
use super::options::Options;
use super::redis_keeper::RedisKeeper;
use super::round::Monitor;
use super::service_log::append_if_told;
use super::settings::{Mode, Settings, StateAt};
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

/// What a process that the monitor starts of its own program does, when this is one: its exit status.
pub fn play_role() -> Option<ExitCode> {
    let args: Vec<_> = std::env::args_os().collect();
    append_if_told(&args).or_else(|| begin_if_told(&args)).map(ExitCode::from)
}

/// Goes round until the daemon is to end, finishing the restarts that are under way; or once. Fails by its exit status when the
/// last round was braked. It is ready while rounds are not braked.
///
/// # Errors
/// The history of restarts belongs to another monitor, or cannot be had at all.
pub async fn serve(settings: Settings, mut lifecycle: Lifecycle) -> Result<ExitCode, Failure> {
    let (metrics, readiness) = (Metrics::register(lifecycle.registry()), lifecycle.readiness());
    let (_, shutdown) = lifecycle.start().await?;
    let mode = settings.mode;
    let keeper = match &settings.state {
        StateAt::File(path) if mode == Mode::DryRun => Keeper::look_at(path),
        StateAt::File(path) => Keeper::open(path)?,
        StateAt::Redis(url) => {
            let store = Store::new((**url).clone(), metrics.redis.clone());
            Keeper::Redis(Box::new(RedisKeeper::new(store, mode == Mode::DryRun)))
        }
    };
    let mut rounds = interval(settings.pace.interval);
    // One that took longer than the interval is followed at once by one, not by all that were missed.
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (stop, stopping) = watch::channel(false);
    let mut monitor = Monitor::new(settings, keeper, metrics, stopping);
    tokio::pin!(shutdown);
    let is_whole = go_round(&mut monitor, mode, &mut rounds, stop, readiness, shutdown).await;
    monitor.end().await;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
