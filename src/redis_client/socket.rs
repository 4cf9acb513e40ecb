//! Non-blocking stream sockets: TCP, unix, or TLS over TCP.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::error::ConnectionError;
use super::plain::PlainSocket;
#[cfg(feature = "tls")]
use super::tls::TlsSocket;
use super::url::Endpoint;
use super::waiter::Waiter;

/// A connected socket. No call blocks: after `ErrorKind::WouldBlock`, wait with [`Waiter`].
pub(super) enum Socket {
    Plain(PlainSocket),
    #[cfg(feature = "tls")]
    Tls(Box<TlsSocket>),
}

impl Socket {
    /// Resolves, connects and completes the TLS handshake before the deadline; tries all addresses in order.
    pub(super) fn open(endpoint: &Endpoint, waiter: Waiter<'_>, deadline: Instant) -> Result<Self, ConnectionError> {
        match endpoint {
            Endpoint::Unix(path) => PlainSocket::unix(path, waiter, deadline).map(Self::Plain),
            Endpoint::Tcp { host, port } => PlainSocket::tcp(host, *port, waiter, deadline).map(Self::Plain),
            #[cfg(feature = "tls")]
            Endpoint::Tls { host, port, tls } => {
                let plain = PlainSocket::tcp(host, *port, waiter, deadline)?;
                TlsSocket::handshake(plain, host, tls, waiter, deadline).map(|tls| Self::Tls(Box::new(tls)))
            }
            #[cfg(not(feature = "tls"))]
            Endpoint::Tls { tls, .. } => match *tls {},
        }
    }

    /// Receives available bytes; 0 if the peer has closed.
    pub(super) fn receive(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.read(space),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.receive(space),
        }
    }

    /// Sends a part of `bytes`, at least one byte; with TLS, may buffer it for [`Socket::flush`].
    pub(super) fn transmit(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.transmit(bytes),
        }
    }

    /// Sends buffered bytes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// The error of the connection for an error of [`Socket::receive`], [`Socket::transmit`] or [`Socket::flush`].
    pub(super) fn failure(&mut self, error: io::Error) -> ConnectionError {
        match self {
            Self::Plain(_) => ConnectionError::Broken(error),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.failure(error),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(plain) => plain.as_fd(),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.as_fd(),
        }
    }
}
