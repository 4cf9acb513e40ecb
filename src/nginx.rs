//! The nginx module: a thin shell around the route table and the companion.
//!
//! Logic that does not depend on nginx lives outside this folder and is tested without nginx.
//!
//! - `ffi`: safe handles for nginx's structures; the only place with raw pointers
//! - `keepalive`: idle connections to backends
//! - `conf`: directives, merged settings, configuration warnings
//! - `request`: route lookup, phase handlers, variables, backend selection
//! - `upstream`: directives of an upstream block
//! - `lifecycle`: initial load and companions
//! - `hooks`, `module`: nginx's entry points and the module definition
//!
//! Each item uses only those above it.

mod conf;
mod ffi;
mod hooks;
mod keepalive;
mod lifecycle;
mod module;
mod request;
mod upstream;
