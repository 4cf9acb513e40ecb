//! proxylistener, where jobs on the grid register their routes. The identd of a job's host authenticates the job.
//!
//! `listener` (connections, within limits) -> `protocol` (commands) -> `registrar` (authorization), with `identd` (who connects),
//! `destination` (allowed backends), `probe` (who owns a port), `decision` (the outcome, for log and metrics).
//! `audit` withdraws routes that no longer hold: `audit_scan` probes their ports, `history` remembers earlier audits.

pub mod client;

mod audit;
mod audit_scan;
mod command_text;
mod decision;
mod denied_clients;
mod destination;
mod history;
mod host_names;
mod identd;
mod jobs;
mod listener;
mod metrics;
mod options;
mod probe;
mod probe_limiter;
mod protocol;
mod qstat;
mod registrar;
mod reload;
mod routes;
mod run;
mod settings;

pub use identd::{IdentError, Query, parse_ident_reply};
pub use jobs::{Job, JobState, Jobs, Presence};
pub use options::Options;
pub use protocol::{Command, ProtocolError, Reply, parse_command};
pub use qstat::{JobsError, parse_jobs};
pub use run::serve;
