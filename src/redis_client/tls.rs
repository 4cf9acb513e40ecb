//! TLS over a socket that never blocks, with the provider of cryptography chosen here and nowhere else.

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
use super::patience::Patience;
use super::plain::PlainSocket;
use super::url::Authority;

/// A TLS session and the socket below it.
pub(super) struct TlsSocket {
    socket: PlainSocket,
    session: ClientConnection,
}

impl TlsSocket {
    /// Shakes hands: the server must show a certificate for `host`, see [`client_config`].
    pub(super) fn agree(
        socket: PlainSocket,
        host: &str,
        ca: Option<&Authority>,
        patience: Patience<'_>,
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
            if !patience.ready(tls.as_fd(), awaited, deadline)? {
                return Err(failed("handshake timed out".into()));
            }
        }
        Ok(tls)
    }

    /// See `Socket::receive`.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(room) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.decrypt()?,
                received => return received,
            };
            // A key update or an alert may want an answer; it leaves with the next command if not now.
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
        // rustls keeps at most 64 KiB.
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

    /// Receives and decrypts some bytes; 0 when the peer has closed.
    fn decrypt(&mut self) -> io::Result<usize> {
        let received = self.session.read_tls(&mut self.socket)?;
        if let Err(error) = self.session.process_new_packets() {
            // The peer is told why, if the socket takes it.
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

/// Trusts `ca`, or the system's authorities (as OpenSSL finds them; `SSL_CERT_FILE` and `SSL_CERT_DIR` count) as far as they can
/// be read. These are read anew each time, so that a renewed authority needs no reload.
///
/// # Errors
/// There are none.
pub(crate) fn client_config(ca: Option<&Authority>) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots(ca)?).with_no_client_auth())
}

/// The authorities to trust, or why there are none.
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
