//! What every daemon does the same way: its log, its exit status, and how it tells systemd and monitors about itself.

mod accept;
mod concurrency_limiter;
mod connection_limiter;
mod guard;
mod invalidations;
mod lifecycle;
mod log;
mod metrics;
mod project;
mod runtime;
mod status;
mod stop;
mod store;
mod systemd;
mod usage;
mod write_check;

pub use accept::{Acceptor, canonical_addr};
pub use concurrency_limiter::{ConcurrencyLimiter, ConcurrencyPermit};
pub use connection_limiter::{ConnectionLimiter, ConnectionMeter, Limit, Limits, Permit, Refused};
pub use guard::{Guard, GuardWords, log_not_accepted, parse_guard};
pub use invalidations::{InvalidationListener, Invalidations};
pub use lifecycle::{Failure, Lifecycle, bind, exit_with, run};
pub use log::{LogFormat, LogOptions, start_log};
pub(crate) use metrics::label_values;
pub use metrics::{Format, encode, new_registry, start_at_zero};
pub use project::{ProjectError, resolve_project};
pub use runtime::{block_on, on_worker};
pub use status::{Readiness, serve_status};
pub use stop::{StopSignals, raise_file_limit};
pub use store::{
    Idempotent, REDIS_DEADLINE, Reading, RedisUrlError, Store, StoreError, is_of_another_type, open_redis,
};
pub use systemd::{State, announce, keep_watchdog_fed, tell_systemd};
pub use usage::{EX_USAGE, exit_on, parse_duration};
pub use write_check::follow_writability;
