//! The Redis client: URLs, and a connection that never blocks for long.

mod connection;
mod error;
mod exchange;
mod password_file;
mod plain;
mod push;
mod resolve;
mod resp;
mod role;
mod sentinel;
mod socket;
#[cfg(feature = "tls")]
mod tls;
mod url;
mod waiter;

pub use connection::Connection;
pub use error::{ConnectionError, ServerError};
pub use exchange::Timeouts;
pub use password_file::read_password_file;
pub use push::Invalidation;
pub use resolve::forget_lookups;
pub use resp::{Decoder, Reply, RespError};
pub use sentinel::{master_by_votes, master_of};
#[cfg(feature = "daemons")]
pub(crate) use tls::client_config;
pub use url::{Address, Authority, Endpoint, MAX_SENTINELS, Reach, RedisUrl, RedisUrlError, Sentinels, WrittenUrl};
