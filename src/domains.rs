//! The daemon that lets projects map whole domains, over HTTP, and has Redis follow its database.
//!
//! `listen` (connections) -> `api` (one request, one answer) -> `request`, `token`, `policy` (what is asked, by whom, whether it may
//! be) -> `change` (a change, its `outbox` rows and its `audit` row in one transaction) -> `database`; beside them `follower` (the one
//! task that writes to Redis), with `replica` (that Redis) and `strangers` (what is not ours there). `commands` and `operator` are what its
//! command line does instead of serving. `ownership` says which domains belong together; `pruner` keeps the audit log small.

mod api;
mod audit;
mod backup;
mod change;
mod command_error;
mod commands;
mod database;
mod deadline;
mod destinations;
mod follower;
mod import;
mod listen;
mod mapping;
mod metrics;
mod operator;
mod options;
mod outbox;
mod ownership;
mod policy;
mod pruner;
mod refusal;
mod replica;
mod request;
mod reserved;
mod resolver;
mod run;
mod schema;
mod settings;
mod strangers;
mod suffixes;
mod token;

pub use options::Options;
pub use run::serve;
