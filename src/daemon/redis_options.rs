//! Which Redis: what a command line says of it.

use clap::Args;
use redis::Client;

use super::store::{RedisUrlError, open_redis};

/// The Redis of command lines that name none.
pub const DEFAULT_REDIS_URL: &str = "redis://127.0.0.1:6379/0";

/// What every daemon's command line says of its Redis.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct RedisOptions {
    /// URL of Redis: redis://[user:password@]host[:port][/db] or unix:///path
    // `None` only where a program takes the default away, to have one of its own.
    #[arg(long, value_name = "URL", env = "URLPROXY_REDIS", hide_env_values = true, default_value = DEFAULT_REDIS_URL)]
    pub redis: Option<String>,
}

/// The URL is none.
#[derive(Debug, thiserror::Error)]
#[error("invalid --redis: {0}")]
pub struct InvalidRedis(#[from] RedisUrlError);

impl RedisOptions {
    /// A client, and the server's address for people, without the password.
    ///
    /// # Errors
    /// No URL of a Redis that daemons can speak to.
    pub fn open(&self) -> Result<(Client, String), InvalidRedis> {
        self.open_or(None)
    }

    /// The same; without an option, at the URL `otherwise` if there is one.
    ///
    /// # Errors
    /// As before.
    pub fn open_or(&self, otherwise: Option<&str>) -> Result<(Client, String), InvalidRedis> {
        Ok(open_redis(self.redis.as_deref().or(otherwise).unwrap_or(DEFAULT_REDIS_URL))?)
    }
}
