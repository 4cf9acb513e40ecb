//! The nginx module: a shell around the table and the companion. What decides something lives elsewhere, but for what only
//! nginx can tell.
//!
//! - `ffi`: nginx behind safe handles; all raw pointers are there
//! - `keepalive`: idle connections to backends
//! - `conf`: what the configuration says, and warnings about it
//! - `request`: the route of a request, found once; phases, variables, the choice of a backend
//! - `upstream`: the directives of an upstream
//! - `lifecycle`: first load and companions
//! - `hooks`, `module`: what nginx calls, and what it loads
//!
//! Each uses those above it, never one below.

mod conf;
mod ffi;
mod hooks;
mod keepalive;
mod lifecycle;
mod module;
mod request;
mod upstream;
