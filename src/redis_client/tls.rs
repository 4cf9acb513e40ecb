//! TLS over a non-blocking socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::error::ConnectionError;
use super::plain::PlainSocket;
use super::tls_settings::{TlsClient, TlsSettings};
use super::waiter::Waiter;

/// A TLS session and the socket below it.
pub(super) struct TlsSocket {
    socket: PlainSocket,
    session: ClientConnection,
    host: String,
    client: TlsClient,
}

impl TlsSocket {
    /// Completes the handshake: the server needs a certificate for `host`, see [`TlsSettings::prepare`].
    pub(super) fn handshake(
        socket: PlainSocket,
        host: &str,
        settings: &TlsSettings,
        waiter: Waiter<'_>,
        deadline: Instant,
    ) -> Result<Self, ConnectionError> {
        let failed = |reason: String| ConnectionError::Tls { host: host.to_owned(), reason };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let client = settings.prepare().map_err(failed)?;
        let session = ClientConnection::new(Arc::clone(&client.config), name);
        let session = session.map_err(|error| failed(error.to_string()))?;
        let mut tls = Self { socket, session, host: host.to_owned(), client };
        while tls.session.is_handshaking() {
            let awaited = match tls.flush().and_then(|()| tls.decrypt()) {
                Ok(0) => return Err(failed("connection closed by the server".into())),
                // A server may send without pause.
                Ok(_) => match waiter.slice(deadline)? {
                    Some(_) => continue,
                    None => return Err(failed("handshake timed out".into())),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if tls.session.wants_write() {
                        PollFlags::OUT
                    } else {
                        PollFlags::IN
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(match tls.failure(error) {
                        ConnectionError::Broken(error) => failed(error.to_string()),
                        error => error,
                    });
                }
            };
            if !waiter.ready(tls.as_fd(), awaited, deadline)? {
                return Err(failed("handshake timed out".into()));
            }
        }
        Ok(tls)
    }

    /// See `Socket::failure`. The server refuses a client's certificate only after the handshake, with an alert that may wait behind
    /// the error of a write.
    pub(super) fn failure(&mut self, error: io::Error) -> ConnectionError {
        let described = self.client.describe(&error);
        let described = described.or_else(|| {
            let alert = self.decrypt().err()?;
            self.client.describe(&alert)
        });
        match described {
            Some(reason) => ConnectionError::Tls { host: self.host.clone(), reason },
            None => ConnectionError::Broken(error),
        }
    }

    /// See `Socket::receive`.
    pub(super) fn receive(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(space) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.decrypt()?,
                received => return received,
            };
            // A key update or an alert may need an answer; if not now, it is sent with the next command.
            match self.flush() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    /// See `Socket::transmit`.
    pub(super) fn transmit(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        // rustls buffers at most 64 KiB.
        match self.session.writer().write(bytes)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    /// See `Socket::flush`.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Receives and decrypts some bytes; 0 if the peer has closed.
    fn decrypt(&mut self) -> io::Result<usize> {
        let received = self.session.read_tls(&mut self.socket)?;
        if let Err(error) = self.session.process_new_packets() {
            // Send the alert to the peer, if possible.
            let _ = self.flush();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(received)
    }
}

impl AsFd for TlsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
