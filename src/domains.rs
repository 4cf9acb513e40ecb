//! invisible-unicorn: projects map whole domains to backends over HTTP; its database is replicated to Redis.
//!
//! `listen` (connections) -> `api` (one request, one answer) -> `request`, `token`, `policy` (what is asked, by whom, whether it may
//! be) -> `change` (a change, its `outbox` rows and its `audit` row in one transaction) -> `database`; beside them `replicator` (the one
//! task that writes to Redis), with `replica` (that Redis) and `foreign` (what is not ours there). `commands` and `operator` are what its
//! command line does instead of serving. `ownership` says which domains belong together; `pruner` keeps the audit log small.

mod api;
mod api_error;
mod audit;
mod backend_policy;
mod backup;
mod change;
mod command_error;
mod commands;
mod database;
mod foreign_domains;
mod import;
mod mapping;
mod mapping_policy;
mod metrics;
mod operator;
mod options;
mod outbox;
mod ownership;
mod pruner;
mod replica;
mod replicator;
mod request;
mod reserved;
mod resolver;
mod run;
mod schema;
mod server;
mod settings;
mod suffixes;
mod token;
mod write_deadline;

pub use options::Options;
pub use run::serve;
