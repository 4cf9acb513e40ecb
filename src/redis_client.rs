//! The Redis client: URLs, and a connection that never blocks for long.

mod bounded_file;
mod connection;
mod error;
mod exchange;
mod password_file;
mod plain;
mod push;
mod renewed;
mod resolve;
mod resp;
mod role;
mod sentinel;
mod socket;
#[cfg(all(test, feature = "tls"))]
pub(crate) mod test_certificates;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_settings;
mod url;
mod waiter;
#[cfg(not(feature = "tls"))]
mod without_tls;

pub use connection::Connection;
pub use error::{ConnectionError, ServerError};
pub use exchange::Timeouts;
pub use password_file::read_password_file;
pub use push::Invalidation;
pub use resolve::forget_lookups;
pub use resp::{Decoder, Reply, RespError};
#[doc(hidden)]
pub use role::Role;
#[doc(hidden)]
pub use sentinel::address as master_address;
pub use sentinel::{MASTER_CHECK_INTERVAL, master_of, moved_master};
#[cfg(feature = "daemons")]
pub(crate) use tls_settings::TlsClient;
pub use tls_settings::TlsSettings;
pub use url::{Address, Endpoint, MAX_SENTINELS, Reach, RedisUrl, RedisUrlError, Sentinels, WrittenUrl};
#[cfg(not(feature = "tls"))]
use without_tls as tls_settings;
