//! TLS to Redis from tokio, set up like the nginx module's.

use std::io;
use std::sync::Arc;

use futures_util::future::select_ok;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::redis_client::TlsSettings;

/// Connects to the first address of the host that completes the TLS handshake. Reads certificates and keys each time, off the
/// runtime's threads.
///
/// # Errors
/// The last address's error; the host has no address; the system has no CA certificate.
pub(super) async fn open_tls(host: &str, port: u16, settings: &TlsSettings) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let settings = settings.clone();
    let client = spawn_blocking(move || settings.prepare()).await?.map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::clone(&client.config));
    let attempts: Vec<_> = lookup_host((host, port))
        .await?
        .map(|address| {
            let (connector, name) = (connector.clone(), name.clone());
            Box::pin(async move {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                connector.connect(name, socket).await
            })
        })
        .collect();
    if attempts.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no address of host {host:?}")));
    }
    select_ok(attempts).await.map(|(stream, _)| stream)
}
