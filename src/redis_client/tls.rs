//! TLS over a non-blocking socket; the only place that chooses the crypto provider.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_native_certs::load_native_certs;

use super::error::ConnectionError;
use super::plain::PlainSocket;
use super::url::Authority;
use super::waiter::Waiter;

/// A TLS session and the socket below it.
pub(super) struct TlsSocket {
    socket: PlainSocket,
    session: ClientConnection,
}

impl TlsSocket {
    /// Completes the handshake: the server needs a certificate for `host`, see [`client_config`].
    pub(super) fn handshake(
        socket: PlainSocket,
        host: &str,
        ca: Option<&Authority>,
        waiter: Waiter<'_>,
        deadline: Instant,
    ) -> Result<Self, ConnectionError> {
        let failed = |reason: String| ConnectionError::Tls { host: host.to_owned(), reason };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let config = client_config(ca).map_err(failed)?;
        let session = ClientConnection::new(Arc::new(config), name).map_err(|error| failed(error.to_string()))?;
        let mut tls = Self { socket, session };
        while tls.session.is_handshaking() {
            let outcome = tls.flush().and_then(|()| tls.decrypt());
            let awaited = match outcome {
                Ok(0) => return Err(failed("connection closed by the server".into())),
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if tls.session.wants_write() {
                        PollFlags::OUT
                    } else {
                        PollFlags::IN
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error.to_string())),
            };
            if !waiter.ready(tls.as_fd(), awaited, deadline)? {
                return Err(failed("handshake timed out".into()));
            }
        }
        Ok(tls)
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

/// A configuration that trusts `ca`, or the readable ones of the system's authorities (located as OpenSSL does, with
/// `SSL_CERT_FILE` and `SSL_CERT_DIR`). They are read each time, so that a renewed authority needs no reload.
///
/// # Errors
/// No authority could be read.
pub(crate) fn client_config(ca: Option<&Authority>) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots(ca)?).with_no_client_auth())
}

/// The trusted authorities, or why there are none.
fn roots(ca: Option<&Authority>) -> Result<RootCertStore, String> {
    if let Some(ca) = ca {
        return ca.roots();
    }
    let mut roots = RootCertStore::empty();
    let system = load_native_certs();
    roots.add_parsable_certificates(system.certs);
    match (roots.is_empty(), system.errors.first()) {
        (false, _) => Ok(roots),
        (true, None) => Err("the system has no certificate authorities".into()),
        (true, Some(error)) => Err(format!("the system's certificate authorities cannot be read: {error}")),
    }
}
