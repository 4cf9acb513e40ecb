//! A connected stream socket that never blocks: TCP, unix, or TLS over TCP.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::error::ConnectionError;
use super::patience::Patience;
use super::plain::PlainSocket;
#[cfg(feature = "tls")]
use super::tls::TlsSocket;
use super::url::Endpoint;

/// A connected socket. No call blocks: `ErrorKind::WouldBlock` says that [`Patience`] is needed first.
pub(super) enum Socket {
    Plain(PlainSocket),
    #[cfg(feature = "tls")]
    Tls(Box<TlsSocket>),
}

impl Socket {
    /// Connects within the deadline, names looked up and TLS agreed on; of several addresses the first that answers.
    pub(super) fn open(
        endpoint: &Endpoint,
        patience: Patience<'_>,
        deadline: Instant,
    ) -> Result<Self, ConnectionError> {
        match endpoint {
            Endpoint::Unix(path) => PlainSocket::unix(path, patience, deadline).map(Self::Plain),
            Endpoint::Tcp { host, port } => PlainSocket::tcp(host, *port, patience, deadline).map(Self::Plain),
            #[cfg(feature = "tls")]
            Endpoint::Tls { host, port, ca } => {
                let plain = PlainSocket::tcp(host, *port, patience, deadline)?;
                TlsSocket::agree(plain, host, ca.as_ref(), patience, deadline).map(|tls| Self::Tls(Box::new(tls)))
            }
            #[cfg(not(feature = "tls"))]
            Endpoint::Tls { host, .. } => {
                Err(ConnectionError::Tls { host: host.clone(), reason: "this build is without TLS".into() })
            }
        }
    }

    /// Receives what is there; 0 when the peer has closed.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.read(room),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.receive(room),
        }
    }

    /// Takes as much of `bytes` as can be sent now or, with TLS, be kept for [`Socket::flush`]; at least one byte.
    pub(super) fn transmit(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.transmit(bytes),
        }
    }

    /// Sends what was kept.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.flush(),
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
