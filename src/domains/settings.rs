//! What invisible-unicorn goes by: a command line, and what it means.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::debug;

use super::api::AccessRules;
use super::backend_policy::BackendPolicy;
use super::mapping_policy::MappingPolicy;
use super::options::{Options, PROGRAM, PolicyOptions};
use super::reserved::{Reserved, ReservedError};
use super::suffixes::{Suffixes, SuffixesError};
use crate::daemon::RedisOptionsError;
use crate::redis_client::{Address, Endpoint, Reach, RedisUrl, master_of};
use crate::withdrawal_guard::GuardSettings;

/// What a Redis listens on unless told otherwise.
const REDIS_PORT: u16 = 6379;
/// All Sentinels together may take so long to say where the master is; without an answer the start goes on.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that a command line says to the server.
#[derive(Debug)]
pub struct Settings {
    /// Where to serve.
    pub listen: SocketAddr,
    /// The database.
    pub database: PathBuf,
    /// The Redis.
    pub redis: RedisUrl,
    /// What may only Redis have and still be removed at once.
    pub guard: Option<GuardSettings>,
    /// Everything is compared this often.
    pub resync_interval: Duration,
    /// How long requests may take at the end.
    pub drain_timeout: Duration,
    /// Most connections to the API at once.
    pub max_connections: usize,
    /// How large the log of changes may grow, in bytes.
    pub audit_size: u64,
    pub(super) rules: AccessRules,
}

/// What is wrong with a command line whose values are right one by one.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No URL of a Redis.
    #[error(transparent)]
    Redis(#[from] RedisOptionsError),
    /// No list of suffixes.
    #[error(transparent)]
    Suffixes(#[from] SuffixesError),
    /// No list of reserved domains.
    #[error(transparent)]
    Reserved(#[from] ReservedError),
}

impl Options {
    /// Resolves what was written, once.
    ///
    /// # Errors
    /// Which of the values, or of the files that they name, is wrong.
    pub(super) fn into_settings(mut self) -> Result<Settings, SettingsError> {
        let (policy, redis) = self.take_policy()?;
        Ok(Settings {
            listen: self.listen,
            database: self.database,
            redis,
            guard: self.withdrawal_guard.into_settings(PROGRAM),
            resync_interval: self.resync_interval,
            drain_timeout: self.drain_timeout,
            max_connections: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            audit_size: self.audit_size,
            rules: AccessRules { policy, require_tokens: self.require_tokens, read_only: self.read_only },
        })
    }

    /// The rules, also for a command that maps domains while the server may run with the same options, and the Redis.
    pub(super) fn take_policy(&mut self) -> Result<(MappingPolicy, RedisUrl), SettingsError> {
        let redis = self.common.redis.to_url()?;
        let mut policy = std::mem::take(&mut self.policy).into_policy()?;
        exclude_own(&mut policy.backends, &redis, [Some(self.listen), self.common.metrics_listen]);
        Ok((policy, redis))
    }
}

/// The server's own sockets are no backends, nor is its Redis.
fn exclude_own(backends: &mut BackendPolicy, redis: &RedisUrl, listening: [Option<SocketAddr>; 2]) {
    // Port 0 is any: what it is the server says when it listens.
    listening.into_iter().flatten().filter(|socket| socket.port() != 0).for_each(|socket| backends.exclude(socket));
    match redis.reach() {
        Reach::Direct(Endpoint::Tcp { host, port } | Endpoint::Tls { host, port, .. }) => {
            backends.exclude_redis(host, *port);
        }
        Reach::Direct(Endpoint::Unix(_)) => {}
        // Which server is the master changes: often each of them has a Sentinel beside it.
        Reach::Sentinels(sentinels) => {
            for Address { host, port } in &sentinels.addresses {
                backends.exclude_redis(host, *port);
                backends.exclude_redis(host, REDIS_PORT);
            }
            if let Ok(Address { host, port }) = master_of(sentinels, Instant::now() + SENTINEL_TIMEOUT) {
                backends.exclude_redis(&host, port);
            }
        }
    }
}

impl PolicyOptions {
    fn into_policy(self) -> Result<MappingPolicy, SettingsError> {
        let (suffixes, list) = Suffixes::choose(self.protected_suffixes)?;
        debug!(list = list.as_ref().map_or("none".into(), |path| path.display().to_string()), "public suffixes");
        Ok(MappingPolicy {
            suffixes,
            reserved: Reserved::read(self.reserve_domain, self.reserved_domains.as_deref())?,
            backends: BackendPolicy::restricted_to(self.allow_backend),
            max_domains: self.max_domains,
            max_total_domains: self.max_total_domains,
            max_backends: self.max_backends,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sentinels_may_name_is_no_backend() {
        let redis = "sentinel://127.0.0.1:1,redis-2.example/mymaster".parse().unwrap();
        let networks = vec!["127.0.0.0/8".parse().unwrap()];
        let mut backends = BackendPolicy::restricted_to(networks);
        exclude_own(&mut backends, &redis, [None, None]);
        let is_allowed = |url: &str| backends.check(&url.parse().unwrap()).is_ok();
        assert!(is_allowed("http://127.0.0.1:80"));
        assert!(!is_allowed("http://127.0.0.1:1") && !is_allowed("http://127.0.0.1:6379"));
        let mut backends = BackendPolicy::default();
        exclude_own(&mut backends, &redis, [None, None]);
        let is_allowed = |url: &str| backends.check(&url.parse().unwrap()).is_ok();
        assert!(!is_allowed("http://redis-2.example:26379") && !is_allowed("http://redis-2.example:6379"));
    }
}
