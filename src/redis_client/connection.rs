//! One connection to Redis, speaking RESP3 and waiting in its read, so that a push is seen the moment it comes.
//!
//! No call blocks for long: each wait is cut into slices of at most 100 ms, between which the caller's `stop` is asked, and
//! ends at a deadline. Whatever goes wrong, the connection is given up: a stream with a reply missing cannot be repaired,
//! and a new connection always means a full scan.
//!
//! Replies are decoded here (`resp`) and not by the `redis` crate. Its parser, which its async connection uses too, takes any length
//! that a header announces: it waits for `$536870912` or `*2000000000` instead of refusing them, makes 19 bytes of one byte received,
//! and cannot tell a hash of 200,000 small values, which is read, from one with a single value of 2 MB, which is set aside. It also
//! needs five times as long (1.4 instead of 0.25 us for a tool's reply: some 1.2 s more for 1,000,000 tools, which took 1.7 s
//! of processor time), and gives a stream up for an error reply that is not UTF-8. Measured with redis 1.8.1.

use std::time::Instant;

use redis::cmd;

use super::error::{ConnectionError, ServerError};
use super::exchange::{Exchange, Timeouts, unexpected};
use super::patience::Patience;
use super::push::Invalidation;
use super::resp::Reply;
use super::role::Role;
use super::sentinel::{Watch, find_master};
use super::url::{Endpoint, Reach, RedisUrl};

/// The name that `CLIENT LIST` shows.
const CLIENT_NAME: &str = "urlproxy";

/// A connection that is logged in and has its database selected.
///
/// Commands are packed with [`redis::Cmd::get_packed_command`]. Each that is sent has exactly one reply, in order; pushes
/// come at any time and are set aside while a reply is waited for. After an error drop the connection: all further calls
/// fail with [`ConnectionError::GivenUp`].
pub struct Connection<'s> {
    exchange: Exchange<'s>,
    /// With Sentinels.
    watch: Option<Watch>,
    /// The server said so when it was last asked.
    is_replica: bool,
}

impl<'s> Connection<'s> {
    /// Connects and logs in: `HELLO 3` with the URL's user and password, `CLIENT SETNAME`, `SELECT`. With Sentinels, to
    /// the server that they call the master and that says it is one.
    ///
    /// `stop` is asked at least every 100 ms of waiting, now and in every later call; when it answers true the call ends.
    ///
    /// # Errors
    /// Any [`ConnectionError`]; [`ConnectionError::Server`] when the server was reached but refuses to serve.
    pub fn open(url: &RedisUrl, timeouts: Timeouts, stop: &'s dyn Fn() -> bool) -> Result<Self, ConnectionError> {
        let patience = Patience::new(stop);
        match url.reach() {
            Reach::Direct(endpoint) => {
                let mut connection = Self::of(Exchange::open(endpoint, timeouts, patience)?);
                connection.log_in(url)?;
                Ok(connection)
            }
            Reach::Sentinels(sentinels) => {
                let share = timeouts.connect / 2;
                let master = find_master(sentinels, patience, Instant::now() + share)?;
                let endpoint = Endpoint::Tcp { host: master.host.clone(), port: master.port };
                let timeouts = Timeouts { connect: share, ..timeouts };
                let mut connection = Self::of(Exchange::open(&endpoint, timeouts, patience)?);
                connection.watch = Some(Watch::new(sentinels.clone(), master));
                connection.log_in(url)?;
                connection.check_role()?;
                Ok(connection)
            }
        }
    }

    fn of(exchange: Exchange<'s>) -> Self {
        Self { exchange, watch: None, is_replica: false }
    }

    /// Sends packed commands, all of them.
    ///
    /// Replies that come meanwhile are received and kept, up to 64 MiB, so a long pipeline cannot block both ends; still
    /// send no more than some 1,000 small commands before reading their replies, or the server has to keep those.
    ///
    /// # Errors
    /// [`ConnectionError::Stuck`], [`ConnectionError::Closed`], [`ConnectionError::Broken`], [`ConnectionError::Stopped`].
    pub fn send(&mut self, packed: &[u8]) -> Result<(), ConnectionError> {
        self.exchange.send(packed)
    }

    /// Waits for the next reply and gives it to `f`, error replies too: whether those matter depends on the command.
    ///
    /// # Errors
    /// [`ConnectionError::Silent`], [`ConnectionError::Slow`], [`ConnectionError::Resp`], [`ConnectionError::Closed`],
    /// [`ConnectionError::Broken`], [`ConnectionError::Stopped`].
    pub fn reply<T>(&mut self, f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        self.exchange.reply(f)
    }

    /// Sends one packed command and gives its reply to `f`. No other reply may be outstanding.
    ///
    /// # Errors
    /// Those of [`Connection::send`] and [`Connection::reply`]; [`ConnectionError::Server`] for an error reply, after which
    /// the connection remains usable.
    pub fn ask<T>(&mut self, packed: &[u8], f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        self.exchange.ask(packed, f)
    }

    /// Asks whether the server is there, and waits for its answer as for any reply. With Sentinels it must also say that it
    /// is still the master, and they must not have told of another when last asked, about a second ago. A replica must say that it
    /// still has its master: otherwise it answers, and knows nothing new.
    ///
    /// # Errors
    /// Those of [`Connection::ask`]; [`ConnectionError::Unexpected`] when the answer is not `PONG`; with Sentinels, and
    /// of a replica, those of [`Connection::check_role`]; [`ConnectionError::Moved`].
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

    /// Asks whether what the server has can be taken for all there is: for each full comparison, as what it does not find is
    /// withdrawn. A server that does not tell its role is believed, except with Sentinels.
    ///
    /// # Errors
    /// [`ConnectionError::BrokenLink`] for a replica without a whole copy; with Sentinels [`ConnectionError::NotMaster`] and
    /// [`ConnectionError::NoRole`]; those of [`Connection::send`] and [`Connection::reply`].
    pub fn check_role(&mut self) -> Result<(), ConnectionError> {
        self.send(&cmd("ROLE").get_packed_command())?;
        let told = self.reply(|reply| match reply {
            Reply::Error(text) => Err(ConnectionError::NoRole(ServerError::new(text))),
            reply => Role::of(&reply).ok_or_else(|| unexpected(&reply)),
        })?;
        self.is_replica = matches!(told, Ok(Role::Replica(_)));
        let outcome = match (told, &self.watch) {
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

    /// Waits until `until` for a push, and takes in everything that has come by then. True when there is one for
    /// [`Connection::next_push`], at once when there was one before. No reply may be outstanding.
    ///
    /// # Errors
    /// [`ConnectionError::Unexpected`] for a reply that nobody asked for, [`ConnectionError::Resp`],
    /// [`ConnectionError::Closed`], [`ConnectionError::Broken`], [`ConnectionError::Stopped`]. Time running out is none.
    pub fn wait_push(&mut self, until: Instant) -> Result<bool, ConnectionError> {
        self.exchange.wait_push(until)
    }

    /// Takes the oldest invalidation that has come.
    ///
    /// At most 16 MiB of them are kept; if more come all are replaced by [`Invalidation::All`].
    pub fn next_push(&mut self) -> Option<Invalidation> {
        self.exchange.next_push()
    }

    /// Whether the oldest push still to be taken says that any key may have changed.
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
            // Some servers quote the command that they refuse.
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
        // A user who may not name itself can still read routes.
        self.reply(|_| ())?;
        self.reply(|reply| match reply {
            Reply::Error(text) => Err(ServerError::new(text).into()),
            Reply::Text(b"OK") => Ok(()),
            other => Err(unexpected(&other)),
        })?
    }
}
