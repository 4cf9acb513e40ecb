//! The daemon that restarts web services on the grid that should run but do not.
//!
//! `run` (rounds) -> `round` (one round) -> `observation` (what the round knows: wanted web services from `manifest_scanner` and
//! `manifest`, jobs from qstat, registered tools) -> `suspend_reason` (whether that is
//! plausible, by `baseline`) -> `decision` (for one tool) -> `restart_history` (kept by `state_store` and `redis_state`) ->
//! `starter` (restarts, by `start_command`, `environment` and `begin_marker`), with `service_log` (for maintainers).

mod baseline;
mod begin_marker;
mod decision;
mod environment;
mod human_duration;
mod manifest;
mod manifest_scanner;
mod metrics;
mod observation;
mod options;
mod redis_state;
mod restart_history;
mod round;
mod run;
mod service_log;
mod settings;
mod start_command;
mod start_outcome;
mod starter;
mod state_error;
mod state_store;
mod suspend_reason;

pub use manifest::{Manifest, SkipReason, parse_manifest};
pub use options::Options;
pub use run::{run_helper_role, serve};
// Reached by the fuzz targets too.
#[doc(hidden)]
pub use {
    environment::VariableName, manifest_scanner::ManifestGlob, restart_history::RestartHistory,
    start_command::StartCommand,
};
