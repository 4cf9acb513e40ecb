//! What all daemons share: options, logging, metrics, readiness, signals, exit statuses, connection limits, Redis.

mod accept;
mod concurrency_limiter;
mod connect;
mod connection_limiter;
#[cfg(test)]
mod fake_server;
mod http;
mod invalidations;
mod lifecycle;
mod log;
mod logged_guard;
mod metrics;
mod options;
mod program;
mod project;
mod redis_options;
mod runtime;
mod status;
mod stop;
mod store;
mod systemd;
mod tls;
mod usage;
mod write_probe;

pub use accept::{Acceptor, canonical_addr};
pub use concurrency_limiter::{ConcurrencyLimiter, ConcurrencyPermit};
pub use connection_limiter::{ConnectionLimiter, ConnectionMeter, Limit, Limits, Permit, Refused};
pub use http::{HttpResponse, TEXT_PLAIN, response_with};
pub use invalidations::{InvalidationListener, Invalidations};
pub use lifecycle::{Lifecycle, bind};
pub use log::{LogFormat, LogOptions, start_log};
pub use logged_guard::{GuardMessages, LoggedGuard, log_accept_error, parse_guard};
pub(crate) use metrics::label_values;
pub use metrics::{Format, encode, new_registry, start_at_zero};
pub use options::CommonOptions;
pub use program::{DaemonOptions, Failure, run};
pub use project::{ProjectError, ProjectOptions};
pub use redis_options::{RedisOptions, RedisOptionsError};
pub use runtime::on_worker;
pub use status::{Readiness, serve_status};
pub use stop::{StopSignals, raise_fd_limit};
pub(crate) use store::within_deadline;
pub use store::{Idempotent, Reading, Store, StoreError, is_wrong_type};
pub use usage::{EX_USAGE, exit_on, parse_duration};
pub use write_probe::probe_writes;
