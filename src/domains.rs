//! invisible-unicorn: projects map whole domains to backends over HTTP; its database is replicated to Redis.
//!
//! A request goes `server` (connections) -> `api` -> `request` (parsing), `token` (authorization), `mapping_policy` with
//! `backend_policy`, `reserved` and `suffixes` (rules) -> `change` (mapping, `outbox` and `audit` in one transaction) -> `database`.
//! `replicator` is the only task that writes to Redis, through `replica`; `foreign_domains` protects domains that the database
//! never had. `commands` and `operator` are the commands of the command line, `ownership` decides which domains are related, and
//! `pruner` limits the audit log.

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
// Reached by the fuzz targets too.
#[doc(hidden)]
pub use {
    request::{Resource, accepts_problem, bearer, read_mapping},
    reserved::parse_reserved,
    suffixes::Suffixes,
};
