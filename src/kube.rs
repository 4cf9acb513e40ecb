//! The daemon that watches a Kubernetes cluster's Services and writes their routes to Redis.
//!
//! `watch` (lists and watches) -> `service` (what a Service means) -> `desired` (all of them) -> `follow` (the one task) ->
//! `ledger` (what Redis has, and settling the difference), with `lock` (who of several may write), `recheck` (tools to look at
//! again), `events` (telling maintainers) and `allowance` (how much).

mod allowance;
mod desired;
mod error;
mod events;
mod follow;
mod ledger;
mod lock;
mod metrics;
mod options;
mod proxy;
mod recheck;
mod run;
mod service;
mod settings;
mod watch;

pub use options::Options;
pub use run::serve;
