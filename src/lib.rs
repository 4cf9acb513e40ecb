//! urlproxy: routes `/<tool>/...` to the current location of each tool.
//!
//! ```text
//!  writers (grid, kube, domains, ctl) ──▶ Redis ──▶ companion (sync) ──▶ table in shared memory
//!                                                                           │ lookup: no lock, no I/O
//!                                              client ──▶ nginx worker (nginx) ──▶ backend
//! ```
//!
//! Dependencies point one way: `nginx -> directive -> sync -> registry -> route`, `nginx -> admin -> table -> route`, `sync -> table`,
//! `grid|kube|monitor|domains|ctl -> registry -> route`, `monitor|webservice -> proxy_list -> grid` (active proxies, jobs),
//! `monitor|webservice|web_type -> tenant`, `webservice|grid -> web_type` (the site's types of web service), `ctl -> sync` (admission and
//! snapshots), `ctl -> grid|kube|monitor|domains|webservice` (their command lines). `withdrawal_guard` stands between `registry` and its
//! callers; `redis_client`, `clock`, `escape`, `kube_client`, `subprocess`, `tenant`, `text` and `units` depend on no program's module.
//! Only `nginx/ffi` (nginx behind safe handles) and `table` (a view of shared memory) use raw pointers.

#[cfg(all(any(feature = "module", feature = "daemons"), not(loom)))]
#[doc(hidden)]
pub mod admin;
mod backoff;
pub mod clock;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod ctl;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod daemon;
#[cfg(all(any(feature = "module", feature = "daemons"), not(loom)))]
#[doc(hidden)]
pub mod directive;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod domains;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod escape;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod grid;
#[cfg(all(feature = "module", not(loom)))]
mod keepalive;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod kube;
#[cfg(all(feature = "daemons", not(loom)))]
#[doc(hidden)]
pub mod kube_client;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod monitor;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod proxy_list;
pub mod redis_client;
pub mod registry;
pub mod route;
#[cfg(all(feature = "daemons", not(loom)))]
mod subprocess;
pub mod sync;
pub mod table;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod tenant;
pub mod text;
pub mod units;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod web_type;
#[cfg(all(feature = "daemons", not(loom)))]
pub mod webservice;
pub mod withdrawal_guard;

#[cfg(all(feature = "module", not(loom)))]
pub mod nginx;
