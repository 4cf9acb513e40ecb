//! Command-line options that all daemons share.

use std::net::SocketAddr;

use clap::Args;

use super::log::LogOptions;
use super::redis_options::RedisOptions;

/// Options of all daemons; a change takes a restart.
#[derive(Clone, Debug, Args)]
pub struct CommonOptions {
    /// Options of the Redis connection.
    #[command(flatten)]
    pub redis: RedisOptions,
    /// Address of the metrics endpoint, which serves /metrics, /live and /ready [default: none]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Options of the log.
    #[command(flatten)]
    pub log: LogOptions,
}

impl CommonOptions {
    /// The options that differ from `other`, except those of Redis, which settings files give too.
    pub fn differing_from(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let options = [
            ("--metrics-listen", self.metrics_listen == other.metrics_listen),
            ("--log-format or --log-level", self.log == other.log),
        ];
        options.into_iter().filter(|(_, same)| !same).map(|(option, _)| option)
    }
}
