//! urlproxy: `/<tool>/...` goes to wherever that tool runs now.
//!
//! ```text
//!  writers (grid, kube, domains, cli) ──▶ Redis ──▶ companion (sync) ──▶ table in shared memory
//!                                                                           │ lookup: no lock, no I/O
//!                                              client ──▶ nginx worker (nginx) ──▶ backend
//! ```
//!
//! Dependencies point one way: `nginx -> sync -> registry -> route`, `nginx -> table -> route`, `sync -> table`,
//! `grid|kube|monitor|domains -> registry -> route`, `monitor -> grid` (which proxies there are). `withdrawal_guard` stands
//! between `registry` and its callers; `redis_client`, `clock` and `units` need no other.
//! Raw pointers are in `nginx/ffi` (nginx behind safe handles) and in `table` (a view over shared memory) alone.

mod backoff;
pub mod clock;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod daemon;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod domains;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod grid;
#[cfg(all(feature = "module", not(loom)))]
mod keepalive;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod kube;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod monitor;
pub mod redis_client;
pub mod registry;
pub mod route;
pub mod sync;
pub mod table;
pub mod units;
pub mod withdrawal_guard;

#[cfg(all(feature = "module", not(loom)))]
pub mod nginx;
