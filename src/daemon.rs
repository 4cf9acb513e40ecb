//! What every daemon does the same way: its log, its exit status, and how it tells systemd about itself.

mod log;
mod stop;
mod systemd;
mod usage;

pub use log::{LogFormat, start_log};
pub use stop::{StopSignals, raise_file_limit};
pub use systemd::{State, tell_systemd};
pub use usage::{EX_USAGE, exit_on, parse_duration};
