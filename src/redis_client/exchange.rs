//! Commands and replies over one socket, with byte limits and timeouts.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::error::{ConnectionError, ServerError};
use super::push::{Invalidation, Pushes};
use super::resp::{Decoder, MAX_REPLY_BYTES, Reply};
use super::socket::Socket;
use super::url::Endpoint;
use super::waiter::Waiter;

/// Most bytes of replies buffered while commands are still being sent.
const MAX_EARLY_BYTES: usize = MAX_REPLY_BYTES;
/// Most reads in one wait for pushes, once a push is queued.
const MAX_READS: usize = 64;

/// Timeouts of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For asking Sentinels, resolving the host, connecting and the TLS handshake together.
    pub connect: Duration,
    /// For the next byte of a due reply, or for the server to read some bytes of a command.
    pub silence: Duration,
    /// For a complete reply, or for the server to read all commands of one `send`.
    pub reply: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), silence: Duration::from_secs(2), reply: Duration::from_secs(10) }
    }
}

/// A connected socket with its decoder and push queue. Not authenticated.
///
/// After an error drop it: all further calls fail with [`ConnectionError::GivenUp`].
pub(super) struct Exchange<'s> {
    socket: Socket,
    decoder: Decoder,
    pushes: Pushes,
    timeouts: Timeouts,
    waiter: Waiter<'s>,
    /// A limit below the decoder's own, for a peer with only short replies.
    max_reply_bytes: Option<usize>,
    given_up: bool,
}

impl<'s> Exchange<'s> {
    /// Connects, without login.
    pub(super) fn open(endpoint: &Endpoint, timeouts: Timeouts, waiter: Waiter<'s>) -> Result<Self, ConnectionError> {
        let socket = Socket::open(endpoint, waiter, Instant::now() + timeouts.connect)?;
        let (decoder, pushes) = (Decoder::new(), Pushes::default());
        Ok(Self { socket, decoder, pushes, timeouts, waiter, max_reply_bytes: None, given_up: false })
    }

    /// Sets a limit on all replies that are due, in bytes.
    pub(super) fn limit_replies(&mut self, bytes: usize) {
        self.max_reply_bytes = Some(bytes);
    }

    /// Makes all further calls fail.
    pub(super) fn give_up(&mut self) {
        self.given_up = true;
    }

    /// See [`Connection::send`](super::Connection::send).
    pub(super) fn send(&mut self, packed: &[u8]) -> Result<(), ConnectionError> {
        self.unless_given_up(|exchange| exchange.transmit(packed))
    }

    /// See [`Connection::reply`](super::Connection::reply).
    pub(super) fn reply<T>(&mut self, f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        self.unless_given_up(|exchange| exchange.await_reply(f))
    }

    /// See [`Connection::ask`](super::Connection::ask).
    pub(super) fn ask<T>(&mut self, packed: &[u8], f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        self.send(packed)?;
        let answer = self.reply(|reply| match reply {
            Reply::Error(text) => Err(ServerError::new(text)),
            reply => Ok(f(reply)),
        })?;
        Ok(answer?)
    }

    /// See [`Connection::wait_push`](super::Connection::wait_push).
    pub(super) fn wait_push(&mut self, until: Instant) -> Result<bool, ConnectionError> {
        self.unless_given_up(|exchange| exchange.await_push(until))
    }

    /// See [`Connection::next_push`](super::Connection::next_push).
    pub(super) fn next_push(&mut self) -> Option<Invalidation> {
        self.pushes.take()
    }

    /// See [`Connection::is_flush_pending`](super::Connection::is_flush_pending).
    pub(super) fn is_flush_pending(&self) -> bool {
        self.pushes.is_flush_pending()
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
                    // The server may not read on until it can send replies.
                    let mut events = PollFlags::OUT;
                    if self.decoder.unread_bytes() < MAX_EARLY_BYTES {
                        self.receive()?;
                        events |= PollFlags::IN;
                    }
                    let deadline = (begun + self.timeouts.reply).min(moved + self.timeouts.silence);
                    if !self.waiter.ready(self.socket.as_fd(), events, deadline)? {
                        return Err(ConnectionError::Stuck(begun.elapsed()));
                    }
                }
                Err(error) => return Err(self.socket.failure(error)),
            }
        }
    }

    fn await_reply<T>(&mut self, f: impl FnOnce(Reply<'_>) -> T) -> Result<T, ConnectionError> {
        let mut deadline = None;
        loop {
            if let Some(limit) = self.max_reply_bytes
                && self.decoder.unread_bytes() > limit
            {
                return Err(ConnectionError::Unexpected(format!("of more than {limit} bytes")));
            }
            match self.decoder.next_reply()? {
                Some(Reply::Push(push)) => self.pushes.note(&push),
                Some(reply) => return Ok(f(reply)),
                // Reads the clock only now: most replies of a pipeline are buffered.
                None => self.fill(*deadline.get_or_insert_with(|| Instant::now() + self.timeouts.reply))?,
            }
        }
    }

    /// Waits for at least one more byte; `deadline` is that of the whole reply.
    fn fill(&mut self, deadline: Instant) -> Result<(), ConnectionError> {
        let now = Instant::now();
        if now >= deadline {
            return Err(ConnectionError::Slow(self.timeouts.reply));
        }
        let silence = now + self.timeouts.silence;
        while self.receive()? == 0 {
            if !self.waiter.ready(self.socket.as_fd(), PollFlags::IN, silence.min(deadline))? {
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
            // A server that never pauses must not delay the caller's pushes or deadline.
            if reads >= MAX_READS && (some || self.waiter.slice(until)?.is_none()) {
                return Ok(some);
            }
            if self.receive()? > 0 {
                reads += 1;
            } else if some {
                return Ok(true);
            } else if !self.waiter.ready(self.socket.as_fd(), PollFlags::IN, until)? {
                return Ok(false);
            }
        }
    }

    /// Receives available bytes; returns their number, 0 if there are none yet.
    fn receive(&mut self) -> Result<usize, ConnectionError> {
        match self.socket.receive(self.decoder.space()) {
            Ok(0) => Err(ConnectionError::Closed),
            Ok(received) => {
                self.decoder.filled(received);
                Ok(received)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(self.socket.failure(error)),
        }
    }
}

/// The error for an unexpected reply, with a short description.
pub(super) fn unexpected(reply: &Reply<'_>) -> ConnectionError {
    ConnectionError::Unexpected(match reply {
        Reply::Text(text) => format!("\"{}\"", ServerError::new(text)),
        Reply::Error(text) => ServerError::new(text).to_string(),
        Reply::Array(values) | Reply::Push(values) => format!("of {} elements", values.len()),
        Reply::Map(pairs) => format!("of {} pairs", pairs.len()),
        other => format!("{other:?}"),
    })
}
