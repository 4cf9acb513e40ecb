//! Putting the parts together.

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot, watch};
use tracing::warn;

use super::api::Api;
use super::commands::CommandError;
use super::database::{Database, DatabaseError};
use super::follower::{Parts, Progress, follow};
use super::listen::{Listening, listen};
use super::metrics::Metrics;
use super::pruner::prune;
use super::settings::{Settings, SettingsError};
use crate::daemon::{Guard, GuardWords, Readiness, raise_file_limit};

const GUARD_WORDS: GuardWords = GuardWords {
    lacks: "the database lacks domains that Redis has; they stay there unless that file is touched",
    has_all: "the database has all domains again; nothing was withdrawn",
    withdrawing: "withdrawing the domains that the database lacks",
};

/// Files that are open besides connections: the database's, Redis, those of look-ups and of metrics.
const OTHER_FILES: u64 = 256;

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The address cannot be had.
    #[error("{error} while listening at --listen {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// Why the program ends otherwise than in order.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A wrong command line.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It does not serve.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What was to be done was not.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The system's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    /// Whether the command line is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Command(CommandError::Settings(_)))
    }
}

/// A database and an address: all that it takes to serve.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    database: Database,
    listener: TcpListener,
    /// Held for as long as it serves.
    lock: File,
}

impl Server {
    /// Opens both; the server then has the database for itself.
    ///
    /// # Errors
    /// Either cannot be had.
    pub async fn open(settings: Settings) -> Result<Self, StartError> {
        let database = Database::open_or_create(&settings.database)?;
        let lock = database.lock()?;
        if settings.rules.policy.destinations.are_any() {
            warn!("no --allow-backend: any server may be a backend, and a name may mean another one later");
        }
        let needed = u64::try_from(settings.max_connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
        if let Some(limit) = raise_file_limit().filter(|limit| *limit < needed) {
            warn!(limit, needed, "the system allows fewer open files than --max-connections may need");
        }
        let address = settings.listen;
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|error| StartError::Listen { address, error })?;
        let mut server = Self { settings, database, listener, lock };
        if let Ok(address) = server.address() {
            server.exclude(address);
        }
        Ok(server)
    }

    /// From now on `socket`, which this program listens on, is no backend.
    pub fn exclude(&mut self, socket: SocketAddr) {
        self.settings.rules.policy.destinations.exclude(socket);
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; then lets requests end, and has Redis told of what was committed.
    pub async fn serve(self, metrics: Metrics, readiness: Readiness, shutdown: impl Future<Output = ()>) {
        let Self { settings, database, listener, lock } = self;
        let (progress, progressed) = watch::channel(Progress::default());
        let changed = Arc::new(Notify::new());
        let (stop, stopped) = oneshot::channel::<()>();
        let parts = Parts {
            database: database.clone(),
            client: settings.client,
            guard: Guard::new(settings.guard, &GUARD_WORDS),
            resync_interval: settings.resync_interval,
            changed: Arc::clone(&changed),
            progress,
            readiness,
            metrics: metrics.clone(),
        };
        let following = tokio::spawn(follow(parts, async {
            let _ = stopped.await;
        }));
        let pruning = tokio::spawn(prune(database.clone(), settings.audit_size, metrics.clone()));
        let (max_connections, drain_timeout) = (settings.max_connections, settings.drain_timeout);
        let listening = Listening { max_connections, drain_timeout, meter: metrics.connections.clone() };
        let api = Arc::new(Api::new(database, settings.rules, progressed, changed, metrics));
        listen(listener, api, listening, shutdown).await;
        pruning.abort();
        // Only now: nothing more is committed.
        let _ = stop.send(());
        let _ = following.await;
        drop(lock);
    }
}
