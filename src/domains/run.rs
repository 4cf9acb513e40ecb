//! Starts and stops the daemon's tasks.

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
    lacks: "the database lacks domains that Redis has; keeping them until the hold ends or the accept file is touched",
    has_all: "the database has all domains again; hold ended",
    withdrawing: "withdrawing domains that the database lacks",
};

/// Open files besides API connections: the database, Redis, DNS lookups, metrics.
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

/// Serves the API and replicates the database to Redis until the shutdown signal; then drains requests and replicates the last
/// changes. Holds the database's lock meanwhile.
///
/// # Errors
/// The database cannot be opened, or another server holds its lock; an address cannot be bound.
pub async fn serve(mut settings: Settings, mut lifecycle: Lifecycle) -> Result<ExitCode, Failure> {
    let (metrics, readiness) = (Metrics::register(lifecycle.registry()), lifecycle.readiness());
    let database = Database::open_or_create(&settings.database)?;
    let lock = database.lock()?;
    let backends = &mut settings.rules.policy.backends;
    if backends.allows_any() {
        warn!("no --allow-backend; any server can be a backend, and names can later resolve to other addresses");
    }
    let needed = u64::try_from(settings.max_connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    if let Some(limit) = raise_fd_limit().filter(|limit| *limit < needed) {
        warn!(limit, needed, "limit of open files is too low for --max-connections; some connections may fail");
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
    // Only now, as no more changes are committed.
    let _ = stop.send(());
    let _ = replicating.await;
    drop(lock);
    info!("shutdown complete");
    Ok(ExitCode::SUCCESS)
}
