//! Making connections to the servers of the tests.

use std::time::Duration;

use urlproxy::redis_client::{Connection, ConnectionError, RedisUrl, Reply, Timeouts};

use crate::support::wait::SOON;

/// For what is meant to happen, however busy the machine.
pub const PATIENT: Timeouts = Timeouts { connect: SOON, silence: SOON, reply: SOON };

/// For what is meant to run out.
pub const SHORT: Timeouts = Timeouts {
    connect: Duration::from_millis(300),
    silence: Duration::from_millis(300),
    reply: Duration::from_millis(1500),
};

fn go_on() -> bool {
    false
}

/// Connects with [`PATIENT`], and is never stopped.
pub fn open(url: &str) -> Result<Connection<'static>, ConnectionError> {
    Connection::open(&source(url), PATIENT, &go_on)
}

/// Connects with [`SHORT`], and is never stopped.
pub fn open_impatient(url: &str) -> Result<Connection<'static>, ConnectionError> {
    Connection::open(&source(url), SHORT, &go_on)
}

/// Parses a URL that is right.
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

/// Turns tracking on for keys that begin with `prefix:`.
pub fn track(connection: &mut Connection<'_>) {
    assert_eq!(ask(connection, &["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "prefix:"]), "OK");
}

/// Why a connection was not made.
pub fn refusal(outcome: Result<Connection<'_>, ConnectionError>) -> String {
    outcome.err().map_or_else(|| "accepted".to_owned(), |error| error.to_string())
}
