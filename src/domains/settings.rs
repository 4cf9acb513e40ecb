//! Settings of invisible-unicorn, validated from its command line.

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

/// Redis' default port.
const REDIS_PORT: u16 = 6379;
/// Time for all Sentinels together to name the master; without an answer, the start continues.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of the server.
#[derive(Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub database: PathBuf,
    pub redis: RedisUrl,
    pub guard: Option<GuardSettings>,
    pub resync_interval: Duration,
    pub drain_timeout: Duration,
    pub max_connections: usize,
    /// Bytes.
    pub audit_size: u64,
    pub(super) rules: AccessRules,
}

/// Why a parsed command line is invalid.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Redis(#[from] RedisOptionsError),
    #[error(transparent)]
    Suffixes(#[from] SuffixesError),
    #[error(transparent)]
    Reserved(#[from] ReservedError),
}

impl Options {
    /// Validates the options.
    ///
    /// # Errors
    /// The invalid option or file.
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

    /// The mapping policy and Redis, for the server and for commands with the same options.
    pub(super) fn take_policy(&mut self) -> Result<(MappingPolicy, RedisUrl), SettingsError> {
        let redis = self.common.redis.to_url()?;
        let mut policy = std::mem::take(&mut self.policy).into_policy()?;
        exclude_own(&mut policy.backends, &redis, [Some(self.listen), self.common.metrics_listen]);
        Ok((policy, redis))
    }
}

/// Excludes the server's own sockets and its Redis from the backends.
fn exclude_own(backends: &mut BackendPolicy, redis: &RedisUrl, listening: [Option<SocketAddr>; 2]) {
    // With port 0, the server excludes the port that it gets.
    listening.into_iter().flatten().filter(|socket| socket.port() != 0).for_each(|socket| backends.exclude(socket));
    match redis.reach() {
        Reach::Direct(Endpoint::Tcp { host, port } | Endpoint::Tls { host, port, .. }) => {
            backends.exclude_redis(host, *port);
        }
        Reach::Direct(Endpoint::Unix(_)) => {}
        // The master may change to another host; often the Sentinels' hosts run Redis too.
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
        debug!(
            list = list.as_ref().map_or("none".into(), |path| path.display().to_string()),
            "public suffix list loaded"
        );
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
    fn hosts_of_sentinels_are_not_allowed_as_backends() {
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
