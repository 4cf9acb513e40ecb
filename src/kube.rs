//! The daemon that watches a Kubernetes cluster's Services and writes their routes to Redis.
//!
//! `watch` (lists and watches) -> `service` (the route of one Service) -> `desired` (the routes of all Services) -> `reconciler`
//! (the one task) -> `ledger` (the routes in Redis, and the writes), with `leader_lock` (which replica writes), `recheck_queue`
//! (tools to compare again), `events` (Kubernetes Events for maintainers) and `notice_limiter` (how many of them).

mod desired;
mod events;
mod leader_lock;
mod ledger;
mod metrics;
mod notice_limiter;
mod options;
mod recheck_queue;
mod reconciler;
mod run;
mod service;
mod settings;
mod watch;

pub use options::Options;
pub use run::serve;
// Reached by the fuzz targets too.
#[doc(hidden)]
pub use service::{NamespaceTemplate, route_of};
#[doc(hidden)]
pub use settings::ConfigFile;
