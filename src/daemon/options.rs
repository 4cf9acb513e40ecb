//! The options that all daemons have.

use std::net::SocketAddr;

use clap::Args;

use super::log::LogOptions;
use super::redis_options::RedisOptions;

/// What every daemon's command line says. Only a restart changes any of it.
#[derive(Clone, Debug, Args)]
pub struct CommonOptions {
    /// Its Redis.
    #[command(flatten)]
    pub redis: RedisOptions,
    /// Address for HTTP requests for /metrics, /live and /ready [default: none]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Its log.
    #[command(flatten)]
    pub log: LogOptions,
}

impl CommonOptions {
    /// The options that differ from `other`'s, but for those of Redis: what they mean is also in a file.
    pub fn differing_from(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let options = [
            ("--metrics-listen", self.metrics_listen == other.metrics_listen),
            ("--log-format or --log-level", self.log == other.log),
        ];
        options.into_iter().filter(|(_, same)| !same).map(|(option, _)| option)
    }
}
