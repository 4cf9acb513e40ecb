//! Statistics in the zone, for operators: nothing here affects a lookup.
//!
//! Workers count requests in [`WorkerStats`] and [`Series`]; the companion describes itself in [`SourceState`] and, as text, in
//! [`Notes`], and answers [`Questions`]. All are independent figures, read one by one; only text needs an ordering (edges E7, E8).

mod histogram;
mod note;
mod question;
mod series;
mod source_state;
mod worker_stats;

pub use histogram::{DURATION_BOUNDS_MILLISECONDS, DurationHistogram};
pub use note::{Change, ChangeKind, Note, Notes, RejectedNote};
pub use question::{ANSWER_BYTES, Question, Questions, Reply, Ticket};
#[cfg(all(test, loom))]
pub(super) use series::Label;
pub use series::{NAME_BYTES, Series, SeriesView};
pub use source_state::{PROPAGATION_BOUNDS_MICROSECONDS, REASONS, ResyncCause, SnapshotState, SourceState, SourceView};
pub use worker_stats::{RequestResult, WorkerStats, WorkerTally};
