//! One connection to Redis, speaking RESP3 and waiting in its read, so that a push is seen the moment it comes.
//!
//! No call blocks for long: each wait is cut into slices of at most 100 ms, between which the caller's `stop` is asked, and
//! ends at a deadline. Whatever goes wrong, the connection is given up: a stream with a reply missing cannot be repaired,
//! and a new connection always means a full scan.

mod error;
mod patience;
mod push;
mod resolve;
mod role;
mod sentinel;
mod socket;
#[cfg(feature = "tls")]
mod tls;

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use redis::cmd;
use rustix::event::PollFlags;

pub use error::{ConnectionError, ServerError};
use patience::Patience;
pub use push::Invalidation;
use push::Pushes;
pub use resolve::forget_lookups;
use role::Role;
use sentinel::{Watch, find_master};
use socket::Socket;

use super::resp::{Decoder, MAX_REPLY_BYTES, Reply};
use super::source::{Endpoint, Reach, Source};

/// The name that `CLIENT LIST` shows.
pub const CLIENT_NAME: &str = "urlproxy";
/// So many bytes of replies are kept while commands are still being sent.
const MAX_EARLY_BYTES: usize = MAX_REPLY_BYTES;
/// So many reads may follow each other in one wait for pushes once there is one to deliver.
const MAX_READS: usize = 64;

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For asking Sentinels, looking up the host, connecting and agreeing on TLS together.
    pub connect: Duration,
    /// For the next byte of a reply that is due, or for the server to take some bytes of a command.
    pub silence: Duration,
    /// For a whole reply, or for the server to take all commands of one `send`, however steadily the bytes move.
    pub reply: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), silence: Duration::from_secs(2), reply: Duration::from_secs(10) }
    }
}

/// A connection that is logged in and has its database selected.
///
/// Commands are packed with [`redis::Cmd::get_packed_command`]. Each that is sent has exactly one reply, in order; pushes
/// come at any time and are set aside while a reply is waited for. After an error drop the connection: all further calls
/// fail with [`ConnectionError::GivenUp`].
pub struct Connection<'s> {
    socket: Socket,
    decoder: Decoder,
    pushes: Pushes,
    timeouts: Timeouts,
    patience: Patience<'s>,
    given_up: bool,
    /// With Sentinels.
    watch: Option<Watch>,
    /// The server said so when it was last asked.
    is_replica: bool,
}

impl<'s> Connection<'s> {
    /// Connects and logs in: `HELLO 3` with the source's user and password, `CLIENT SETNAME`, `SELECT`. With Sentinels, to
    /// the server that they call the master and that says it is one.
    ///
    /// `stop` is asked at least every 100 ms of waiting, now and in every later call; when it answers true the call ends.
    ///
    /// # Errors
    /// Any [`ConnectionError`]; [`ConnectionError::Server`] when the server was reached but refuses to serve.
    pub fn open(source: &Source, timeouts: Timeouts, stop: &'s dyn Fn() -> bool) -> Result<Self, ConnectionError> {
        let patience = Patience::new(stop);
        match source.reach() {
            Reach::Direct(endpoint) => {
                let mut connection = Self::reach(endpoint, timeouts, patience)?;
                connection.log_in(source)?;
                Ok(connection)
            }
            Reach::Sentinels(sentinels) => {
                let share = timeouts.connect / 2;
                let master = find_master(sentinels, patience, Instant::now() + share)?;
                let endpoint = Endpoint::Tcp { host: master.host.clone(), port: master.port };
                let mut connection = Self::reach(&endpoint, Timeouts { connect: share, ..timeouts }, patience)?;
                connection.watch = Some(Watch::new(sentinels.clone(), master));
                connection.log_in(source)?;
                connection.check_role()?;
                Ok(connection)
            }
        }
    }

    /// Connects, no more.
    fn reach(endpoint: &Endpoint, timeouts: Timeouts, patience: Patience<'s>) -> Result<Self, ConnectionError> {
        let socket = Socket::open(endpoint, patience, Instant::now() + timeouts.connect)?;
        let (decoder, pushes) = (Decoder::new(), Pushes::default());
        Ok(Self { socket, decoder, pushes, timeouts, patience, given_up: false, watch: None, is_replica: false })
    }

    /// Sends packed commands, all of them.
    ///
    /// Replies that come meanwhile are received and kept, up to 64 MiB, so a long pipeline cannot block both ends; still
    /// send no more than some 1,000 small commands before reading their replies, or the server has to keep those.
    ///
    /// # Errors
    /// [`ConnectionError::Stuck`], [`ConnectionError::Closed`], [`ConnectionError::Broken`], [`ConnectionError::Stopped`].
    pub fn send(&mut self, packed: &[u8]) -> Result<(), ConnectionError> {
        self.unless_given_up(|connection| connection.transmit(packed))
    }

    /// Waits for the next reply and gives it to `f`, error replies too: whether those matter depends on the command.
    ///
    /// # Errors
    /// [`ConnectionError::Silent`], [`ConnectionError::Slow`], [`ConnectionError::Resp`], [`ConnectionError::Closed`],
    /// [`ConnectionError::Broken`], [`ConnectionError::Stopped`].
    pub fn reply<T>(&mut self, f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        self.unless_given_up(|connection| connection.await_reply(f))
    }

    /// Sends one packed command and gives its reply to `f`. No other reply may be outstanding.
    ///
    /// # Errors
    /// Those of [`Connection::send`] and [`Connection::reply`]; [`ConnectionError::Server`] for an error reply, after which
    /// the connection remains usable.
    pub fn ask<T>(&mut self, packed: &[u8], f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        self.send(packed)?;
        let answer = self.reply(|reply| match reply {
            Reply::Error(text) => Err(ServerError::new(text)),
            reply => Ok(f(reply)),
        })?;
        Ok(answer?)
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
            watch.check().inspect_err(|_| self.given_up = true)?;
            return self.check_role();
        }
        if self.is_replica {
            return self.check_role();
        }
        self.ask(&cmd("PING").get_packed_command(), |reply| match reply {
            Reply::Text(b"PONG") => Ok(()),
            other => Err(unexpected(&other)),
        })?
        .inspect_err(|_| self.given_up = true)
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
        outcome.inspect_err(|_| self.given_up = true)
    }

    /// Waits until `until` for a push, and takes in everything that has come by then. True when there is one for
    /// [`Connection::next_push`], at once when there was one before. No reply may be outstanding.
    ///
    /// # Errors
    /// [`ConnectionError::Unexpected`] for a reply that nobody asked for, [`ConnectionError::Resp`],
    /// [`ConnectionError::Closed`], [`ConnectionError::Broken`], [`ConnectionError::Stopped`]. Time running out is none.
    pub fn wait_push(&mut self, until: Instant) -> Result<bool, ConnectionError> {
        self.unless_given_up(|connection| connection.await_push(until))
    }

    /// Takes the oldest invalidation that has come.
    ///
    /// At most 16 MiB of them are kept; if more come all are replaced by [`Invalidation::All`].
    pub fn next_push(&mut self) -> Option<Invalidation> {
        self.pushes.take()
    }

    /// Whether the oldest push still to be taken says that any key may have changed.
    pub fn is_flush_pending(&self) -> bool {
        self.pushes.is_flush_pending()
    }

    fn log_in(&mut self, source: &Source) -> Result<(), ConnectionError> {
        let mut hello = cmd("HELLO");
        hello.arg(3);
        let credentials = source.credentials();
        if let Some((user, password)) = credentials {
            hello.arg("AUTH").arg(user).arg(password);
        }
        let password = credentials.map_or(&b""[..], |(_, password)| password);
        self.send(&hello.get_packed_command())?;
        self.reply(|reply| match reply {
            Reply::Map(_) => Ok(()),
            // Some servers quote the command that they refuse.
            Reply::Error(text) => match ServerError::without(text, password) {
                error if error.is_unknown_command() => Err(ConnectionError::TooOld),
                error => Err(error.into()),
            },
            other => Err(unexpected(&other)),
        })??;
        let mut packed = Vec::new();
        cmd("CLIENT").arg("SETNAME").arg(CLIENT_NAME).write_packed_command(&mut packed);
        cmd("SELECT").arg(source.db()).write_packed_command(&mut packed);
        self.send(&packed)?;
        // A user who may not name itself can still read routes.
        self.reply(|_| ())?;
        self.reply(|reply| match reply {
            Reply::Error(text) => Err(ServerError::new(text).into()),
            Reply::Text(b"OK") => Ok(()),
            other => Err(unexpected(&other)),
        })?
    }

    fn unless_given_up<T>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<T, ConnectionError>,
    ) -> Result<T, ConnectionError> {
        if self.given_up {
            return Err(ConnectionError::GivenUp);
        }
        let outcome = call(self);
        self.given_up = outcome.is_err();
        outcome
    }

    fn transmit(&mut self, packed: &[u8]) -> Result<(), ConnectionError> {
        let begun = Instant::now();
        let mut moved = begun;
        let mut rest = packed;
        loop {
            let sent = if rest.is_empty() { self.socket.flush().map(|()| 0) } else { self.socket.transmit(rest) };
            match sent {
                Ok(_) if rest.is_empty() => return Ok(()),
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    moved = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // The server may not read on before it got rid of some replies.
                    let mut events = PollFlags::OUT;
                    if self.decoder.unread_bytes() < MAX_EARLY_BYTES {
                        self.receive()?;
                        events |= PollFlags::IN;
                    }
                    let deadline = (begun + self.timeouts.reply).min(moved + self.timeouts.silence);
                    if !self.patience.ready(self.socket.as_fd(), events, deadline)? {
                        return Err(ConnectionError::Stuck(begun.elapsed()));
                    }
                }
                Err(error) => return Err(ConnectionError::Broken(error)),
            }
        }
    }

    fn await_reply<T>(&mut self, f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        let mut deadline = None;
        loop {
            match self.decoder.next_reply()? {
                Some(Reply::Push(push)) => self.pushes.note(&push),
                Some(reply) => return Ok(f(reply)),
                // Looks at the clock only now: most replies of a pipeline are here already.
                None => self.fill(*deadline.get_or_insert_with(|| Instant::now() + self.timeouts.reply))?,
            }
        }
    }

    /// Waits for at least one byte more; `deadline` is that of the whole reply.
    fn fill(&mut self, deadline: Instant) -> Result<(), ConnectionError> {
        let now = Instant::now();
        if now >= deadline {
            return Err(ConnectionError::Slow(self.timeouts.reply));
        }
        let silence = now + self.timeouts.silence;
        while self.receive()? == 0 {
            if !self.patience.ready(self.socket.as_fd(), PollFlags::IN, silence.min(deadline))? {
                return Err(if silence <= deadline {
                    ConnectionError::Silent(self.timeouts.silence)
                } else {
                    ConnectionError::Slow(self.timeouts.reply)
                });
            }
        }
        Ok(())
    }

    fn await_push(&mut self, until: Instant) -> Result<bool, ConnectionError> {
        let mut reads = 0;
        loop {
            while let Some(reply) = self.decoder.next_reply()? {
                let Reply::Push(push) = reply else { return Err(unexpected(&reply)) };
                self.pushes.note(&push);
            }
            let some = !self.pushes.is_empty();
            // A server that never pauses must not keep the caller from what it has, nor from its deadline.
            if reads >= MAX_READS && (some || self.patience.slice(until)?.is_none()) {
                return Ok(some);
            }
            if self.receive()? > 0 {
                reads += 1;
            } else if some {
                return Ok(true);
            } else if !self.patience.ready(self.socket.as_fd(), PollFlags::IN, until)? {
                return Ok(false);
            }
        }
    }

    /// Takes in what there is now: the number of bytes, 0 when there is nothing yet.
    fn receive(&mut self) -> Result<usize, ConnectionError> {
        match self.socket.receive(self.decoder.room()) {
            Ok(0) => Err(ConnectionError::Closed),
            Ok(received) => {
                self.decoder.filled(received);
                Ok(received)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(ConnectionError::Broken(error)),
        }
    }
}

/// The error for a reply that does not belong here, described in a few words.
fn unexpected(reply: &Reply<'_>) -> ConnectionError {
    ConnectionError::Unexpected(match reply {
        Reply::Text(text) => format!("\"{}\"", ServerError::new(text)),
        Reply::Error(text) => ServerError::new(text).to_string(),
        Reply::Array(values) | Reply::Push(values) => format!("of {} elements", values.len()),
        Reply::Map(pairs) => format!("of {} pairs", pairs.len()),
        other => format!("{other:?}"),
    })
}
