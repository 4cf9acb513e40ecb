//! What invisible-unicorn goes by: a command line, and what it means.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use redis::Client;

use super::api::Rules;
use super::options::{Options, PolicyOptions};
use super::policy::Policy;
use super::suffixes::{Suffixes, SuffixesError};
use crate::daemon::{RedisUrlError, open_redis};
use crate::registry::GuardSettings;

/// Everything that a command line says to the server.
#[derive(Debug)]
pub struct Settings {
    /// Where to serve.
    pub listen: SocketAddr,
    /// The database.
    pub database: PathBuf,
    /// The Redis, for people.
    pub redis: String,
    /// The same, for the program.
    pub client: Client,
    /// What may only Redis have and still be removed at once.
    pub guard: Option<GuardSettings>,
    /// Everything is compared this often.
    pub resync_interval: Duration,
    /// How long requests may take at the end.
    pub drain_timeout: Duration,
    /// Where to tell of itself.
    pub metrics_listen: Option<SocketAddr>,
    pub(super) rules: Rules,
}

/// What is wrong with a command line whose values are right one by one.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No URL of a Redis.
    #[error("invalid --redis: {0}")]
    Redis(#[from] RedisUrlError),
    /// No list of suffixes.
    #[error(transparent)]
    Suffixes(#[from] SuffixesError),
}

impl Options {
    /// Resolves what was written, once.
    ///
    /// # Errors
    /// A file that is not there or wrong, no Redis.
    pub fn into_settings(self) -> Result<Settings, SettingsError> {
        let (client, redis) = open_redis(&self.redis)?;
        let policy = self.policy.into_policy()?;
        Ok(Settings {
            listen: self.listen,
            database: self.database,
            redis,
            client,
            guard: self.withdrawal_guard.0,
            resync_interval: self.resync_interval,
            drain_timeout: self.drain_timeout,
            metrics_listen: self.metrics_listen,
            rules: Rules { policy, require_tokens: self.require_tokens, read_only: self.read_only },
        })
    }
}

impl PolicyOptions {
    pub(super) fn into_policy(self) -> Result<Policy, SettingsError> {
        let suffixes = self.protected_suffixes.map(|path| Suffixes::read(&path)).transpose()?;
        Ok(Policy {
            suffixes: suffixes.unwrap_or_default(),
            networks: self.allow_backend,
            max_domains: self.max_domains,
            max_backends: self.max_backends,
        })
    }
}
