//! The companion: keeps the table in step with Redis. No nginx.
//!
//! Scans are authoritative; pushes only make changes arrive faster. The companion drops a connection at the first doubt,
//! and each new connection begins with a full scan. A failed or partial scan removes nothing.
#![warn(missing_docs)]

mod apply;
mod build_queue;
mod builder;
mod change_log;
mod companion;
mod deferred;
mod digest_cache;
mod give_way;
mod journal;
mod origins;
mod oversized;
mod pace;
mod prepare;
mod rejected;
mod scan;
mod snapshot;
mod stop;
mod table_guard;
mod writer_lock;

pub use companion::{Settings, load_once, load_until, run};
pub use journal::{Entry, Journal, JournalReader, Level};
pub use prepare::admit_into_zone;
#[doc(hidden)]
pub use snapshot::encode as encode_snapshot;
pub use snapshot::{Snapshot, SnapshotError, SnapshotSettings, read_snapshot_file};
pub use stop::StopCheck;
pub use writer_lock::WriterLock;
