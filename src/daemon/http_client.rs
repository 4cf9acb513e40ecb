//! Fetches a resource over HTTP: one connection, one GET, a bounded body.

use std::io;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HOST, HeaderMap};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Bytes of an error's body that are read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// A complete response.
#[derive(Debug)]
pub struct Fetched {
    /// The HTTP status.
    pub status: u16,
    /// The header lines.
    pub headers: HeaderMap,
    /// The body. Empty for an error with a long or truncated one.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The connection failed.
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    /// The response is not HTTP, truncated or too long.
    #[error("{0}")]
    Http(Box<dyn std::error::Error + Send + Sync>),
}

fn http(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> FetchError {
    FetchError::Http(error.into())
}

/// GETs `path` from `host`, a name or an address (IPv6 in brackets). The body of a response with status 200 has at most
/// `max_bytes`. Has no deadline.
///
/// # Errors
/// No connection, or no complete response of HTTP/1.1.
pub async fn fetch(host: &str, port: u16, path: &str, max_bytes: usize) -> Result<Fetched, FetchError> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = hyper::Request::get(path)
        .header(HOST, format!("{host}:{port}"))
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(http)?;
    let response = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let limit = if status == 200 { max_bytes } else { MAX_ERROR_BYTES };
        let body = match Limited::new(response.into_body(), limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) if status != 200 => Bytes::new(),
            Err(error) => return Err(FetchError::Http(error)),
        };
        Ok(Fetched { status, headers, body })
    };
    tokio::pin!(response);
    tokio::pin!(connection);
    tokio::select! {
        response = &mut response => response,
        // The end of the body may arrive together with the end of the connection.
        _ = &mut connection => response.await,
    }
}
