//! The daemon that restarts web services on the grid that should run and do not.
//!
//! `run` (round after round) -> `round` (one) -> `picture` (all that is known: `survey` and `manifest` of what is wanted,
//! with `account`; `qstat` and `jobs` of what runs; `listing` of what is registered) -> `brake` (whether that can be true, with
//! `watermark`) -> `decision` (of one tool) -> `memory` (what was done, kept by `keeper` and `redis_keeper`) -> `starter` (doing
//! it, by `template`, `environment`, `command` and `begin`), with `service_log` (telling maintainers).

mod account;
mod begin;
mod brake;
mod clock;
mod command;
mod decision;
mod environment;
mod jobs;
mod keeper;
mod keeper_error;
mod listing;
mod manifest;
mod memory;
mod metrics;
mod options;
mod picture;
mod qstat;
mod redis_keeper;
mod round;
mod run;
mod service_log;
mod settings;
mod start_outcome;
mod starter;
mod survey;
mod template;
mod watermark;

pub use jobs::{Job, JobState};
pub use manifest::{Manifest, Skip, Word, parse_manifest};
pub use options::Options;
pub use qstat::{JobsError, parse_jobs};
pub use run::{play_role, serve};
