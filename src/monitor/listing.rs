//! Asks a proxy which tools it routes to: `GET /list`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use axum::http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::grid::client::{ActiveProxyError, Proxy};

/// What a list may have, in bytes: a hundred times that of 3,000 tools.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Stands for each active proxy.
const PLACEHOLDER: &str = "HOST";

/// Where lists are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListUrl {
    /// `None` is each active proxy.
    host: Option<String>,
    port: u16,
    path: String,
}

/// Why it is not known what is registered.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The active-proxy file.
    #[error(transparent)]
    Proxies(#[from] ActiveProxyError),
    /// Nobody to ask.
    #[error("no proxy in the active-proxy file")]
    NoProxy,
    /// Nobody there.
    #[error("{error} while asking {host} for its list")]
    Unreachable {
        /// Who was asked.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// What answers speaks no HTTP.
    #[error("{error} while asking {host} for its list")]
    Http {
        /// Who was asked.
        host: String,
        /// Why.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Silence.
    #[error("no whole answer within {after:?} while asking {host} for its list")]
    TimedOut {
        /// Who was asked.
        host: String,
        /// What it was given.
        after: Duration,
    },
    /// 503 is: nothing is loaded yet.
    #[error("{host} answers with status {status} instead of a list")]
    Status {
        /// Who was asked.
        host: String,
        /// What it said.
        status: u16,
    },
    /// No JSON object of tools.
    #[error("{error} in the list of {host}")]
    Malformed {
        /// Who was asked.
        host: String,
        /// What is wrong.
        error: serde_json::Error,
    },
}

/// One tool of a list.
#[derive(Deserialize)]
struct Entry {
    status: String,
}

impl ListUrl {
    /// Reads `http://HOST:8081/list`, `HOST` being the word itself, or a host.
    ///
    /// # Errors
    /// No such URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "invalid URL {text:?}, expected e.g. \"http://HOST:8081/list\", where HOST stands for each active proxy"
            )
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("http") || has_user {
            return Err(wrong());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            host: (host != PLACEHOLDER).then(|| host.to_owned()),
            port: uri.port_u16().unwrap_or(80),
            path: path.to_owned(),
        })
    }

    /// Whether it takes an active-proxy file to know whom to ask.
    pub fn is_for_each_proxy(&self) -> bool {
        self.host.is_none()
    }

    /// The tools that the first proxy routes to that has a list.
    ///
    /// # Errors
    /// None has; why the last has not.
    pub async fn fetch(&self, proxies: &[Proxy], limit: Duration) -> Result<HashSet<String>, ListError> {
        let hosts: Vec<String> = match &self.host {
            Some(host) => vec![host.clone()],
            None => proxies.iter().map(|proxy| proxy.host.to_string()).collect(),
        };
        let mut outcome = Err(ListError::NoProxy);
        for host in hosts {
            outcome = match timeout(limit, self.ask(&host)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ListError::TimedOut { host, after: limit }),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn ask(&self, host: &str) -> Result<HashSet<String>, ListError> {
        let owned = || host.to_owned();
        let http = |error| ListError::Http { host: owned(), error };
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((name, self.port)).await;
        let stream = stream.map_err(|error| ListError::Unreachable { host: owned(), error })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| http(error.into()))?;
        let authority = format!("{host}:{}", self.port);
        let request = hyper::Request::get(&self.path)
            .header(HOST, authority)
            .header(ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|error| http(error.into()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| http(error.into()))?;
            let status = response.status().as_u16();
            if status != 200 {
                return Err(ListError::Status { host: owned(), status });
            }
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(http)?;
            parse_listing(&body.to_bytes()).map_err(|error| ListError::Malformed { host: owned(), error })
        };
        tokio::pin!(answer);
        tokio::pin!(connection);
        tokio::select! {
            answer = &mut answer => answer,
            // The last of an answer may have come with the end of its connection.
            _ = &mut connection => answer.await,
        }
    }
}

/// The tools that are active in `{"<tool>":{"status":"active"},...}`.
fn parse_listing(json: &[u8]) -> Result<HashSet<String>, serde_json::Error> {
    let entries: HashMap<String, Entry> = serde_json::from_slice(json)?;
    Ok(entries.into_iter().filter(|(_, entry)| entry.status == "active").map(|(tool, _)| tool).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_host_or_stand_for_each() {
        let url =
            |host: Option<&str>, port, path: &str| ListUrl { host: host.map(str::to_owned), port, path: path.into() };
        for (text, want) in [
            ("http://HOST:8081/list", url(None, 8081, "/list")),
            ("http://proxy-1/list?a=b", url(Some("proxy-1"), 80, "/list?a=b")),
            ("http://[::1]:8081", url(Some("[::1]"), 8081, "/")),
        ] {
            assert_eq!(ListUrl::parse(text), Ok(want), "{text}");
        }
        for text in ["", "/list", "https://HOST/list", "http://", "http://:80/", "http://a b/", "http://u:p@h/list"] {
            assert!(ListUrl::parse(text).is_err_and(|error| error.contains("expected e.g.")), "{text}");
        }
    }

    #[test]
    fn only_what_is_active_is_listed() {
        let listed = parse_listing(br#"{"a":{"status":"active","x":1},"b":{"status":"gone"}}"#).unwrap();
        assert_eq!(listed, HashSet::from(["a".to_owned()]));
        assert!(parse_listing(b"{}").unwrap().is_empty());
        for wrong in ["", "[]", "null", "{\"a\":1}", "{\"a\":{}}", "{\"a\":{\"status\":\"active\"}", "<html>", "{}x"] {
            assert!(parse_listing(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
