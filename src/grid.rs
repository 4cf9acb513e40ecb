//! The daemon that jobs on the grid tell where they listen: who asks is told by the identd of the host that asks.
//!
//! `listener` (connections and their limits) -> `protocol` (what is asked) -> `registrar` (who may have what), with
//! `identd` (who asks), `destination` (where to) and `store` (Redis).

pub mod client;
mod command_text;

mod destination;
mod identd;
mod listener;
mod protocol;
mod registrar;
mod settings;
mod store;

pub use identd::{IdentError, Query, parse_ident_reply};
pub use listener::{MAX_CONNECTIONS_PER_HOST, serve};
pub use protocol::{Command, ProtocolError, Reply, parse_command};
pub use settings::{Options, Settings, SettingsError};
