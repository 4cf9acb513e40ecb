//! Fetches the list of tools that a proxy routes to: `GET /list`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{AGE, HeaderMap};
use serde::Deserialize;
use tokio::time::timeout;

use crate::daemon::{FetchError, fetch};
use crate::grid::client::{ActiveProxyError, Proxy};

/// The longest list, in bytes: a hundred times that of 3,000 tools.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The placeholder of each active proxy.
const PLACEHOLDER: &str = "HOST";

/// The URL of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListUrl {
    /// `None` for each active proxy.
    host: Option<String>,
    port: u16,
    path: String,
}

/// Why there is no valid list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The active-proxy file is invalid or unreadable.
    #[error(transparent)]
    Proxies(#[from] ActiveProxyError),
    /// The active-proxy file is empty.
    #[error("no proxy in the active-proxy file")]
    NoProxy,
    /// The connection failed.
    #[error("{error} while fetching the list of {host}")]
    Unreachable {
        /// The proxy's host.
        host: String,
        /// The system's error.
        error: io::Error,
    },
    /// The response is not HTTP, truncated or too long.
    #[error("{error} while fetching the list of {host}")]
    Http {
        /// The proxy's host.
        host: String,
        /// The HTTP client's error.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The proxy reached its time limit.
    #[error("no complete response within {after:?} while fetching the list of {host}")]
    TimedOut {
        /// The proxy's host.
        host: String,
        /// The time limit.
        after: Duration,
    },
    /// The proxy refused; 503 means that it has loaded no routes yet.
    #[error("{host} responds with status {status} instead of a list")]
    Status {
        /// The proxy's host.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// The list is out of date: the proxy has lost its source of routes.
    #[error("the list of {host} is {age:?} old, more than {max_age:?}")]
    Old {
        /// The proxy's host.
        host: String,
        /// The list's age.
        age: Duration,
        /// `--max-list-age`.
        max_age: Duration,
    },
    /// The header `Age` is not a number of seconds.
    #[error("invalid header \"Age: {value}\" of the list of {host}, expected seconds")]
    Age {
        /// The proxy's host.
        host: String,
        /// The header's value.
        value: String,
    },
    /// The body is not a JSON object of tools.
    #[error("{error} in the list of {host}")]
    Malformed {
        /// The proxy's host.
        host: String,
        /// The parser's error.
        error: serde_json::Error,
    },
}

/// A proxy's list.
#[derive(Debug, PartialEq, Eq)]
pub struct Listing {
    /// The tools that the proxy routes to.
    pub tools: HashSet<String>,
    /// Time since the list was last known to be true (`Age`); `None` if the proxy does not report it, like those of the old stack.
    pub age: Option<Duration>,
}

/// A tool in a list.
#[derive(Deserialize)]
struct Entry {
    status: String,
}

impl ListUrl {
    /// Reads `http://HOST:8081/list`, where `HOST` is that word or a host.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!(
                "invalid URL {text:?}, expected e.g. \"http://HOST:8081/list\", where HOST stands for each active proxy"
            )
        };
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("http") || has_user {
            return Err(invalid());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            host: (host != PLACEHOLDER).then(|| host.to_owned()),
            port: uri.port_u16().unwrap_or(80),
            path: path.to_owned(),
        })
    }

    /// Whether the hosts come from the active-proxy file.
    pub fn is_for_each_proxy(&self) -> bool {
        self.host.is_none()
    }

    /// Fetches the list of the first proxy that has a valid one, no older than `max_age`.
    ///
    /// # Errors
    /// No proxy has one; the error is that of the last proxy.
    pub async fn fetch(&self, proxies: &[Proxy], limit: Duration, max_age: Duration) -> Result<Listing, ListError> {
        let hosts: Vec<String> = match &self.host {
            Some(host) => vec![host.clone()],
            None => proxies.iter().map(|proxy| proxy.host.to_string()).collect(),
        };
        let mut outcome = Err(ListError::NoProxy);
        for host in hosts {
            outcome = match timeout(limit, self.fetch_from(&host)).await {
                Ok(Ok(Listing { age: Some(age), .. })) if age > max_age => Err(ListError::Old { host, age, max_age }),
                Ok(outcome) => outcome,
                Err(_) => Err(ListError::TimedOut { host, after: limit }),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn fetch_from(&self, host: &str) -> Result<Listing, ListError> {
        let owned = || host.to_owned();
        let fetched = fetch(host, self.port, &self.path, MAX_BYTES).await.map_err(|error| match error {
            FetchError::Unreachable(error) => ListError::Unreachable { host: owned(), error },
            FetchError::Http(error) => ListError::Http { host: owned(), error },
        })?;
        if fetched.status != 200 {
            return Err(ListError::Status { host: owned(), status: fetched.status });
        }
        let age = age_of(&fetched.headers).map_err(|value| ListError::Age { host: owned(), value })?;
        let tools = parse_listing(&fetched.body);
        let tools = tools.map_err(|error| ListError::Malformed { host: owned(), error })?;
        Ok(Listing { tools, age })
    }
}

/// The greatest `Age`: a cache on the way may have added its own (RFC 9111, section 5.1). Too large numbers saturate. The error
/// is an invalid value.
#[doc(hidden)]
pub fn age_of(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let mut greatest = None;
    for value in headers.get_all(AGE) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(text.escape_debug().take(40).collect());
        }
        let age = Duration::from_secs(text.parse::<u32>().unwrap_or(u32::MAX).into());
        greatest = greatest.max(Some(age));
    }
    Ok(greatest)
}

/// The tools that are active in `{"<tool>":{"status":"active"},...}`.
#[doc(hidden)]
pub fn parse_listing(json: &[u8]) -> Result<HashSet<String>, serde_json::Error> {
    let entries: HashMap<String, Entry> = serde_json::from_slice(json)?;
    Ok(entries.into_iter().filter(|(_, entry)| entry.status == "active").map(|(tool, _)| tool).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_host_or_the_placeholder() {
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

    /// A server on that address that answers each request with this age.
    async fn proxy(address: std::net::SocketAddr, age: &'static str) -> (std::net::SocketAddr, Proxy) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let response = format!("HTTP/1.1 200 OK\r\nAge: {age}\r\nContent-Length: 2\r\n\r\n{{}}");
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        let proxy = Proxy { host: address.ip().into(), port: 8282 };
        (address, proxy)
    }

    #[tokio::test]
    async fn newer_list_of_another_proxy_is_used() {
        let (address, old) = proxy("127.0.0.1:0".parse().unwrap(), "61").await;
        let (_, young) = proxy((std::net::Ipv4Addr::new(127, 0, 0, 2), address.port()).into(), "60").await;
        let url = ListUrl::parse(&format!("http://HOST:{}/list", address.port())).unwrap();
        let minute = Duration::from_secs(60);
        let listing = url.fetch(&[old.clone(), young], minute, minute).await.unwrap();
        assert_eq!(listing.age, Some(minute));
        let error = url.fetch(&[old], minute, minute).await.unwrap_err();
        assert_eq!(error.to_string(), "the list of 127.0.0.1 is 61s old, more than 60s");
    }

    #[test]
    fn greatest_age_counts_and_invalid_ages_are_errors() {
        let age = |values: &[&str]| {
            let pairs = values.iter().map(|value| (AGE, value.parse().unwrap()));
            age_of(&pairs.collect::<HeaderMap>())
        };
        let seconds = |seconds| Ok(Some(Duration::from_secs(seconds)));
        assert_eq!(age(&[]), Ok(None));
        assert_eq!(age(&["0"]), seconds(0));
        assert_eq!(age(&["7", "90", "8"]), seconds(90));
        assert_eq!(age(&["99999999999999999999"]), seconds(u32::MAX.into()));
        for invalid in ["", "soon", "-1", "1.5", "1, 2"] {
            assert_eq!(age(&["1", invalid]), Err(invalid.to_owned()));
        }
    }

    #[test]
    fn only_active_tools_are_listed() {
        let listed = parse_listing(br#"{"a":{"status":"active","x":1},"b":{"status":"gone"}}"#).unwrap();
        assert_eq!(listed, HashSet::from(["a".to_owned()]));
        assert!(parse_listing(b"{}").unwrap().is_empty());
        for invalid in ["", "[]", "null", "{\"a\":1}", "{\"a\":{}}", "{\"a\":{\"status\":\"active\"}", "<html>", "{}x"]
        {
            assert!(parse_listing(invalid.as_bytes()).is_err(), "{invalid}");
        }
    }
}
