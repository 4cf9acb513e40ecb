//! nginx behind safe handles: only this folder deals with its raw pointers.
//!
//! A handle is one pointer and the lifetime of what it points to: a [`Request`](request::Request), its
//! [`Pool`](pool::Pool), the [`Parser`](parser::Parser) of the configuration, a [`Cycle`](cycle::Cycle). nginx calls a function
//! of [`handler`], [`entry`], [`directive`], [`variable`], [`zone`] or [`peer`]; that makes the handle, for the time of the call, and
//! hands it to safe code. So safe code cannot keep a handle, nor anything that ends with the request.
//!
//! No reference to one of nginx's structures as a whole lives across a call of nginx, which reads and writes them too.

#[macro_use]
mod raw_field;

pub(super) mod addr_text;
pub(super) mod complex_value;
pub(super) mod config_error;
pub(super) mod connection;
pub(super) mod cycle;
pub(super) mod default_keepalive;
pub(super) mod directive;
pub(super) mod entry;
pub(super) mod handler;
pub(super) mod headers;
pub(super) mod log;
pub(super) mod module;
pub(super) mod output;
pub(super) mod panic_guard;
pub(super) mod parser;
pub(super) mod peer;
pub(super) mod pool;
pub(super) mod process;
pub(super) mod proxy;
pub(super) mod request;
pub(super) mod sockaddr;
pub(super) mod timer;
pub(super) mod upstream;
pub(super) mod upstream_block;
pub(super) mod variable;
pub(super) mod zone;
