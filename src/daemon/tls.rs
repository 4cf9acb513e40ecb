//! TLS to Redis from tokio, set up like the nginx module's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::select_ok;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::redis_client::{TlsClient, TlsSettings};

/// Connects to the first address of the host that completes the TLS handshake. Reads certificates and keys each time, off the
/// runtime's threads.
///
/// # Errors
/// The last address's error; the host has no address; the system has no CA certificate.
pub(super) async fn open_tls(host: &str, port: u16, settings: &TlsSettings) -> io::Result<DescribedStream> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let settings = settings.clone();
    let client = spawn_blocking(move || settings.prepare()).await?.map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::clone(&client.config));
    let described = Described { client, host: host.to_owned() };
    let attempts: Vec<_> = lookup_host((host, port))
        .await?
        .map(|address| {
            let (connector, name, described) = (connector.clone(), name.clone(), &described);
            Box::pin(async move {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                connector.connect(name, socket).await.map_err(|error| described.error(error))
            })
        })
        .collect();
    if attempts.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no address of host {host:?}")));
    }
    let (stream, _) = select_ok(attempts).await?;
    Ok(DescribedStream { stream, described })
}

/// Describes errors of the TLS library for a log.
struct Described {
    client: TlsClient,
    host: String,
}

impl Described {
    fn error(&self, error: io::Error) -> io::Error {
        match self.client.describe(&error) {
            Some(reason) => io::Error::new(error.kind(), format!("TLS with {:?} failed: {reason}", self.host)),
            None => error,
        }
    }
}

/// A TLS stream whose errors say what is wrong. A server refuses a client's certificate only after the handshake, with an alert that
/// may wait behind the error of a write.
pub(super) struct DescribedStream {
    stream: TlsStream<TcpStream>,
    described: Described,
}

impl DescribedStream {
    /// The alert behind an error of a write, or else that error.
    fn error_of_write(&mut self, context: &mut Context<'_>, error: io::Error) -> io::Error {
        let mut space = [0; 1024];
        match Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut space)) {
            Poll::Ready(Err(alert)) => self.described.error(alert),
            _ => self.described.error(error),
        }
    }
}

impl AsyncRead for DescribedStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        Pin::new(&mut this.stream).poll_read(context, buffer).map_err(|error| this.described.error(error))
    }
}

impl AsyncWrite for DescribedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        written.map_err(|error| this.error_of_write(context, error))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        flushed.map_err(|error| this.error_of_write(context, error))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::redis_client::test_certificates::Files;
    use crate::redis_client::{Endpoint, Reach, RedisUrl};

    /// A server that wants clients with a certificate of the files' CA, and answers `+PONG` to anything.
    async fn server(files: &Files) -> u16 {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = |name| CertificateDer::pem_file_iter(files.path(name)).unwrap().flatten();
        let mut roots = RootCertStore::empty();
        assert_eq!(roots.add_parsable_certificates(certificates("ca.pem")), (1, 0));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.unwrap())
            .with_single_cert(
                certificates("cert.pem").collect(),
                PrivateKeyDer::from_pem_file(files.path("key.pem")).unwrap(),
            );
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(socket).await?;
                    while stream.read(&mut [0; 100]).await? > 0 {
                        stream.write_all(b"+PONG\r\n").await?;
                    }
                    io::Result::Ok(())
                });
            }
        });
        port
    }

    /// The server's answer, or the error.
    async fn answer(url: &str) -> io::Result<String> {
        let url: RedisUrl = url.parse().unwrap();
        let Reach::Direct(Endpoint::Tls { host, port, tls }) = url.reach() else { panic!("{url}") };
        let mut stream = open_tls(host, *port, tls).await?;
        stream.write_all(b"PING\r\n").await?;
        stream.flush().await?;
        let mut space = [0; 100];
        let length = stream.read(&mut space).await?;
        Ok(String::from_utf8_lossy(&space[..length]).into_owned())
    }

    #[tokio::test]
    async fn refused_certificates_are_described() {
        let (files, other) = (Files::new(), Files::new());
        let port = server(&files).await;
        let url = format!("rediss://127.0.0.1:{port}?ca={}", files.path("ca.pem"));
        let identity = |files: &Files| format!("&cert={}&key={}", files.path("cert.pem"), files.path("key.pem"));
        assert_eq!(answer(&format!("{url}{}", identity(&files))).await.unwrap(), "+PONG\r\n");
        for (parameters, want) in [
            (
                String::new(),
                "alert: CertificateRequired; the server may require a client certificate, expected e.g. \"",
            ),
            (identity(&other), "; the server does not accept the client certificate"),
        ] {
            let error = answer(&format!("{url}{parameters}")).await.unwrap_err().to_string();
            assert!(error.starts_with("TLS with \"127.0.0.1\" failed: ") && error.contains(want), "{error}");
        }
        let url = url.replace(&files.path("ca.pem"), &other.path("ca.pem"));
        let error = answer(&url).await.unwrap_err().to_string();
        assert!(error.starts_with("TLS with \"127.0.0.1\" failed: invalid peer certificate: "), "{error}");
    }
}
