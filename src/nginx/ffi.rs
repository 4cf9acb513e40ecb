//! Safe handles for nginx's structures: the only folder with raw pointers to them.
//!
//! A handle is one pointer with the lifetime of its target: a [`Request`](request::Request), its
//! [`Pool`](pool::Pool), the configuration [`Parser`](parser::Parser), a [`Cycle`](cycle::Cycle). nginx calls a function of
//! [`handler`], [`entry`], [`directive`], [`variable`], [`zone`] or [`peer`], which creates the handle for the duration of the
//! call and passes it to safe code. Safe code therefore cannot keep a handle, or anything that ends with the request.
//!
//! No reference to a whole nginx structure lives across a call into nginx, because nginx reads and writes it too.

#[macro_use]
mod raw_field;

pub(super) mod addr_text;
mod bit_fields;
pub(super) mod complex_value;
pub(super) mod config_error;
pub(super) mod connection;
pub(super) mod cycle;
pub(super) mod default_keepalive;
pub(super) mod directive;
pub(super) mod entry;
mod event;
pub(super) mod handler;
pub(super) mod header_filter;
pub(super) mod headers;
pub(super) mod log;
pub(super) mod module;
pub(super) mod panic_guard;
pub(super) mod parser;
pub(super) mod peer;
pub(super) mod pool;
pub(super) mod process;
pub(super) mod proxy;
pub(super) mod request;
pub(super) mod server_block;
pub(super) mod sockaddr;
pub(super) mod stream;
pub(super) mod timer;
mod turns;
pub(super) mod upstream;
pub(super) mod upstream_block;
pub(super) mod uri;
pub(super) mod variable;
pub(super) mod zone;
