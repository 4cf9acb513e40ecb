//! The companion: keeps the table in step with Redis. No nginx.
//!
//! The scan is the truth, pushes are the accelerator: any doubt about a connection drops it, and a new connection
//! always means a full scan. A failed or partial scan removes nothing.

mod apply;
mod builder;
mod companion;
mod fit;
mod journal;
mod lease;
mod oversized;
mod recognised;
mod rejected;
mod scan;
mod slow_lane;
mod snapshot;
mod stop;
mod table_guard;
mod wanting_room;

pub use companion::{Settings, load_once, load_unless, run};
pub use journal::{Entry, Journal, JournalReader, Level};
pub use lease::Lease;
pub use snapshot::{Snapshot, SnapshotError, SnapshotSettings};
pub use stop::Stop;
