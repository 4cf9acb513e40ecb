//! Putting the replication together.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot, watch};
use tracing::{info, warn};

use super::api::Api;
use super::command_error::CommandError;
use super::database::Database;
use super::metrics::Metrics;
use super::options::Options;
use super::pruner::prune;
use super::replicator::{self, Progress, replicate};
use super::server::{ServerConfig, serve_connections};
use super::settings::Settings;
use crate::daemon::{
    CommonOptions, DaemonOptions, Failure, GuardMessages, Lifecycle, LoggedGuard, bind, raise_fd_limit,
};

const GUARD_MESSAGES: GuardMessages = GuardMessages {
    lacks: "the database lacks domains that Redis has; they stay there unless that file is touched",
    has_all: "the database has all domains again; nothing was withdrawn",
    withdrawing: "withdrawing the domains that the database lacks",
};

/// Files that are open besides connections: the database's, Redis, those of look-ups and of metrics.
const OTHER_FILES: u64 = 256;

impl DaemonOptions for Options {
    type Settings = Settings;

    fn common(&self) -> &CommonOptions {
        &self.common
    }

    fn execute(&mut self) -> Option<Result<(), Failure>> {
        let command = self.command.take()?;
        Some(self.run_command(command, &mut io::stdout().lock()).map_err(|error| match error {
            CommandError::Settings(error) => Failure::usage(error),
            error => error.into(),
        }))
    }

    async fn resolve(self) -> Result<Settings, Failure> {
        self.into_settings().map_err(Failure::usage)
    }
}

/// Serves the API, and has Redis follow the database, until the daemon is to end; then lets requests end, and has Redis told of
/// what was committed. The database is the server's for as long.
///
/// # Errors
/// No database, or another server has it; an address that cannot be had.
pub async fn serve(mut settings: Settings, mut lifecycle: Lifecycle) -> Result<ExitCode, Failure> {
    let (metrics, readiness) = (Metrics::register(lifecycle.registry()), lifecycle.readiness());
    let database = Database::open_or_create(&settings.database)?;
    let lock = database.lock()?;
    let backends = &mut settings.rules.policy.backends;
    if backends.allows_any() {
        warn!("no --allow-backend: any server may be a backend, and a name may mean another one later");
    }
    let needed = u64::try_from(settings.max_connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    if let Some(limit) = raise_fd_limit().filter(|limit| *limit < needed) {
        warn!(limit, needed, "the system allows fewer open files than --max-connections may need");
    }
    let listener = bind("--listen", settings.listen).await?;
    let address = listener.local_addr()?;
    let (status_address, shutdown) = lifecycle.start().await?;
    [Some(address), status_address].into_iter().flatten().for_each(|own| backends.exclude(own));
    info!(%address, redis = settings.redis.reach().to_string(), "API listening");

    let (progress, progressed) = watch::channel(Progress::default());
    let changed = Arc::new(Notify::new());
    let (stop, stopped) = oneshot::channel::<()>();
    let replication = replicator::Config {
        database: database.clone(),
        redis: settings.redis,
        guard: LoggedGuard::new(settings.guard, &GUARD_MESSAGES),
        resync_interval: settings.resync_interval,
        changed: Arc::clone(&changed),
        progress,
        readiness,
        metrics: metrics.clone(),
    };
    let replicating = tokio::spawn(replicate(replication, async {
        let _ = stopped.await;
    }));
    let pruning = tokio::spawn(prune(database.clone(), settings.audit_size, metrics.clone()));
    let (max_connections, drain_timeout) = (settings.max_connections, settings.drain_timeout);
    let config = ServerConfig { max_connections, drain_timeout, meter: metrics.connections.clone() };
    let api = Arc::new(Api::new(database, settings.rules, progressed, changed, metrics));
    serve_connections(listener, api, config, shutdown).await;
    pruning.abort();
    // Only now: nothing more is committed.
    let _ = stop.send(());
    let _ = replicating.await;
    drop(lock);
    info!("shutdown complete");
    Ok(ExitCode::SUCCESS)
}
