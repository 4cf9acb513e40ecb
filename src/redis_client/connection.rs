//! One RESP3 connection to Redis, which waits in `read`, so that pushes arrive without delay.
//!
//! No call blocks for long: each wait has a deadline and is cut into slices of at most 100 ms, between which the caller's
//! `stop` is checked. After any error the connection is dropped: a stream with a missing reply cannot be repaired, and a new
//! connection always begins with a full scan.
//!
//! `resp` decodes replies instead of the `redis` crate, whose parser (also of its async connection) accepts any announced
//! length: it waits for `$536870912` or `*2000000000` instead of refusing them, uses 19 bytes of memory per received byte, and
//! cannot distinguish a hash of 200,000 small values, which is accepted, from one with a single value of 2 MB, which is
//! rejected. It also takes five times as long (1.4 instead of 0.25 us for a tool's reply: some 1.2 s more for 1,000,000 tools,
//! which took 1.7 s of CPU time), and fails at an error reply that is not UTF-8. Measured with redis 1.8.1.

use std::time::Instant;

use redis::cmd;

use super::error::{ConnectionError, ServerError};
use super::exchange::{Exchange, Timeouts, unexpected};
use super::push::Invalidation;
use super::resp::Reply;
use super::role::Role;
use super::sentinel::{MasterWatch, find_master};
use super::url::{Reach, RedisUrl};
use super::waiter::Waiter;

/// The name that `CLIENT LIST` shows.
const CLIENT_NAME: &str = "urlproxy";

/// A connection that is authenticated and has selected its database.
///
/// Commands are packed with [`redis::Cmd::get_packed_command`]. Each has exactly one reply, in order; pushes may arrive at any
/// time and are queued. After an error, drop the connection: all further calls fail with [`ConnectionError::GivenUp`].
pub struct Connection<'s> {
    exchange: Exchange<'s>,
    /// Only with Sentinels.
    watch: Option<MasterWatch>,
    /// According to the last ROLE.
    is_replica: bool,
}

impl<'s> Connection<'s> {
    /// Connects and logs in: `HELLO 3` with the URL's user and password, `CLIENT SETNAME`, `SELECT`. With Sentinels, connects
    /// to the server that they call the master and whose ROLE confirms it.
    ///
    /// `stop` is checked at least every 100 ms while waiting, now and in all later calls; a call ends when it returns true.
    ///
    /// # Errors
    /// Any [`ConnectionError`]; [`ConnectionError::Server`] if the server was reached but refuses to serve.
    pub fn open(url: &RedisUrl, timeouts: Timeouts, stop: &'s dyn Fn() -> bool) -> Result<Self, ConnectionError> {
        let waiter = Waiter::new(stop);
        match url.reach() {
            Reach::Direct(endpoint) => {
                let mut connection = Self::of(Exchange::open(endpoint, timeouts, waiter)?);
                connection.log_in(url)?;
                Ok(connection)
            }
            Reach::Sentinels(sentinels) => {
                let share = timeouts.connect / 2;
                let master = find_master(sentinels, waiter, Instant::now() + share)?;
                let endpoint = sentinels.endpoint(&master);
                let timeouts = Timeouts { connect: share, ..timeouts };
                let mut connection = Self::of(Exchange::open(&endpoint, timeouts, waiter)?);
                connection.watch = Some(MasterWatch::new(sentinels.clone(), master));
                connection.log_in(url)?;
                connection.check_role()?;
                Ok(connection)
            }
        }
    }

    fn of(exchange: Exchange<'s>) -> Self {
        Self { exchange, watch: None, is_replica: false }
    }

    /// Sends packed commands completely.
    ///
    /// Replies that arrive meanwhile are buffered, up to 64 MiB, so that a long pipeline cannot block both ends. Still, send at
    /// most some 1,000 small commands before reading their replies, which the server must buffer otherwise.
    ///
    /// # Errors
    /// [`ConnectionError::Stuck`], [`ConnectionError::Closed`], [`ConnectionError::Broken`], [`ConnectionError::Stopped`].
    pub fn send(&mut self, packed: &[u8]) -> Result<(), ConnectionError> {
        self.exchange.send(packed)
    }

    /// Waits for the next reply and passes it to `f`, including error replies.
    ///
    /// # Errors
    /// [`ConnectionError::Silent`], [`ConnectionError::Slow`], [`ConnectionError::Resp`], [`ConnectionError::Closed`],
    /// [`ConnectionError::Broken`], [`ConnectionError::Stopped`].
    pub fn reply<T>(&mut self, f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        self.exchange.reply(f)
    }

    /// Sends one packed command and passes its reply to `f`. No other reply may be outstanding.
    ///
    /// # Errors
    /// Those of [`Connection::send`] and [`Connection::reply`]; [`ConnectionError::Server`] for an error reply, after which
    /// the connection remains usable.
    pub fn ask<T>(&mut self, packed: &[u8], f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        self.exchange.ask(packed, f)
    }

    /// Pings the server and waits for its answer. With Sentinels, checks instead that the server is still the master, also
    /// according to the Sentinels' latest answer, about half a second old. Of a replica, checks that it is still connected to its
    /// master.
    ///
    /// # Errors
    /// Those of [`Connection::ask`]; [`ConnectionError::Unexpected`] for an answer other than `PONG`; with Sentinels or a
    /// replica, those of [`Connection::check_role`] and [`ConnectionError::MasterMoved`].
    pub fn ping(&mut self) -> Result<(), ConnectionError> {
        if let Some(watch) = &mut self.watch {
            watch.check().inspect_err(|_| self.exchange.give_up())?;
            return self.check_role();
        }
        if self.is_replica {
            return self.check_role();
        }
        self.ask(&cmd("PING").get_packed_command(), |reply| match reply {
            Reply::Text(b"PONG") => Ok(()),
            other => Err(unexpected(&other)),
        })?
        .inspect_err(|_| self.exchange.give_up())
    }

    /// Checks that the server's data is complete, before each full scan, which withdraws missing routes. A server that refuses
    /// ROLE is accepted, except with Sentinels.
    ///
    /// # Errors
    /// [`ConnectionError::BrokenLink`] for a replica with an incomplete copy; with Sentinels [`ConnectionError::NotMaster`] and
    /// [`ConnectionError::NoRole`]; those of [`Connection::send`] and [`Connection::reply`].
    pub fn check_role(&mut self) -> Result<(), ConnectionError> {
        self.send(&cmd("ROLE").get_packed_command())?;
        let role = self.reply(|reply| match reply {
            Reply::Error(text) => Err(ConnectionError::NoRole(ServerError::new(text))),
            reply => Role::of(&reply).ok_or_else(|| unexpected(&reply)),
        })?;
        self.is_replica = matches!(role, Ok(Role::Replica(_)));
        let outcome = match (role, &self.watch) {
            (Ok(Role::Master), _) | (Err(_), None) => Ok(()),
            (Err(error), Some(_)) => Err(error),
            (Ok(Role::Replica(_)), Some(watch)) => {
                let (address, master) = watch.master();
                Err(ConnectionError::NotMaster { address: address.to_string(), master: master.to_owned() })
            }
            (Ok(role), None) => role.broken_link().map_or(Ok(()), |state| Err(ConnectionError::BrokenLink(state))),
        };
        outcome.inspect_err(|_| self.exchange.give_up())
    }

    /// Waits until `until` for a push, and receives all available data. Returns whether [`Connection::next_push`] has one; at
    /// once if one was queued before. No reply may be outstanding.
    ///
    /// # Errors
    /// [`ConnectionError::Unexpected`] for an unsolicited reply, [`ConnectionError::Resp`], [`ConnectionError::Closed`],
    /// [`ConnectionError::Broken`], [`ConnectionError::Stopped`]. A timeout is not an error.
    pub fn wait_push(&mut self, until: Instant) -> Result<bool, ConnectionError> {
        self.exchange.wait_push(until)
    }

    /// Takes the oldest queued invalidation. The queue holds at most 16 MiB; beyond that, [`Invalidation::All`] replaces it.
    pub fn next_push(&mut self) -> Option<Invalidation> {
        self.exchange.next_push()
    }

    /// Whether the next invalidation is [`Invalidation::All`].
    pub fn is_flush_pending(&self) -> bool {
        self.exchange.is_flush_pending()
    }

    fn log_in(&mut self, url: &RedisUrl) -> Result<(), ConnectionError> {
        let mut hello = cmd("HELLO");
        hello.arg(3);
        let credentials = url.credentials();
        if let Some((user, password)) = credentials {
            hello.arg("AUTH").arg(user).arg(password);
        }
        let password = credentials.map_or("", |(_, password)| password);
        self.send(&hello.get_packed_command())?;
        self.reply(|reply| match reply {
            Reply::Map(_) => Ok(()),
            // Some servers quote the refused command, with the password.
            Reply::Error(text) => match ServerError::without(text, password.as_bytes()) {
                error if error.is_unknown_command() => Err(ConnectionError::TooOld),
                error => Err(error.into()),
            },
            other => Err(unexpected(&other)),
        })??;
        let mut packed = Vec::new();
        cmd("CLIENT").arg("SETNAME").arg(CLIENT_NAME).write_packed_command(&mut packed);
        cmd("SELECT").arg(url.db()).write_packed_command(&mut packed);
        self.send(&packed)?;
        // An ACL may forbid SETNAME; routes are readable all the same.
        self.reply(|_| ())?;
        self.reply(|reply| match reply {
            Reply::Error(text) => Err(ServerError::new(text).into()),
            Reply::Text(b"OK") => Ok(()),
            other => Err(unexpected(&other)),
        })?
    }
}
