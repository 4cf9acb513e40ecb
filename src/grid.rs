//! The daemon that jobs on the grid tell where they listen: who asks is told by the identd of the host that asks.
//!
//! `listener` (connections, within limits) -> `protocol` (what is asked) -> `registrar` (who may have what), with
//! `identd` (who asks), `destination` (where to), `probe` (who listens there), `decision` (the outcome, for log and metrics).
//! `audit` (what goes, by what `scan` sees now and `history` knows from before) looks whether what was registered still holds.

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
mod listener;
mod metrics;
mod options;
mod probe;
mod probe_limiter;
mod protocol;
mod registrar;
mod reload;
mod routes;
mod run;
mod settings;

pub use identd::{IdentError, Query, parse_ident_reply};
pub use options::Options;
pub use protocol::{Command, ProtocolError, Reply, parse_command};
pub use run::serve;
