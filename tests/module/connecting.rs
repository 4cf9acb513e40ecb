//! Connects to the test servers.

use std::time::Duration;

use urlproxy::redis_client::{Connection, ConnectionError, RedisUrl, Reply, Timeouts};

use crate::support::wait::SOON;

/// Timeouts that must not expire, even on a busy machine.
pub const LONG: Timeouts = Timeouts { connect: SOON, silence: SOON, reply: SOON };

/// Timeouts that must expire.
pub const SHORT: Timeouts = Timeouts {
    connect: Duration::from_millis(300),
    silence: Duration::from_millis(300),
    reply: Duration::from_millis(1500),
};

fn never_stop() -> bool {
    false
}

/// Connects with [`LONG`], without a stop.
pub fn open(url: &str) -> Result<Connection<'static>, ConnectionError> {
    open_parsed(&source(url))
}

/// Like [`open`], with a parsed URL.
pub fn open_parsed(url: &RedisUrl) -> Result<Connection<'static>, ConnectionError> {
    Connection::open(url, LONG, &never_stop)
}

/// Connects with [`SHORT`], without a stop.
pub fn open_with_short_timeouts(url: &str) -> Result<Connection<'static>, ConnectionError> {
    Connection::open(&source(url), SHORT, &never_stop)
}

/// Parses a valid URL.
pub fn source(url: &str) -> RedisUrl {
    url.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// The reply to a command as text, or the error.
pub fn ask(connection: &mut Connection<'_>, words: &[&str]) -> String {
    let mut command = redis::Cmd::new();
    command.arg(words);
    let shown = connection.ask(&command.get_packed_command(), |reply| match reply {
        Reply::Text(text) => String::from_utf8_lossy(text).into_owned(),
        other => format!("{other:?}"),
    });
    shown.unwrap_or_else(|error| error.to_string())
}

/// Enables tracking of keys that begin with `prefix:`.
pub fn track(connection: &mut Connection<'_>) {
    assert_eq!(ask(connection, &["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "prefix:"]), "OK");
}

/// The error of a failed connection.
pub fn refusal(outcome: Result<Connection<'_>, ConnectionError>) -> String {
    outcome.err().map_or_else(|| "accepted".to_owned(), |error| error.to_string())
}
