//! Asks a proxy which tools it routes to: `GET /list`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AGE, HOST, HeaderMap};
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
    /// It was true once: its proxy has lost its source of routes.
    #[error("the list of {host} was last known to be true {age:?} ago, more than {most:?}")]
    Old {
        /// Who was asked.
        host: String,
        /// How long ago.
        age: Duration,
        /// What is believed.
        most: Duration,
    },
    /// An `Age` that is no number of seconds.
    #[error("invalid header \"Age: {value}\" of the list of {host}, expected seconds")]
    Age {
        /// Who was asked.
        host: String,
        /// What it said.
        value: String,
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

/// What a proxy has told.
#[derive(Debug, PartialEq, Eq)]
pub struct Listing {
    /// The tools that it routes to.
    pub tools: HashSet<String>,
    /// How long ago that was last known to be true (`Age`); `None` from a proxy that does not say, as those of the old stack.
    pub age: Option<Duration>,
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

    /// The list of the first proxy that has one no older than `most`.
    ///
    /// # Errors
    /// None has; why the last has not.
    pub async fn fetch(&self, proxies: &[Proxy], limit: Duration, most: Duration) -> Result<Listing, ListError> {
        let hosts: Vec<String> = match &self.host {
            Some(host) => vec![host.clone()],
            None => proxies.iter().map(|proxy| proxy.host.to_string()).collect(),
        };
        let mut outcome = Err(ListError::NoProxy);
        for host in hosts {
            outcome = match timeout(limit, self.ask(&host)).await {
                Ok(Ok(Listing { age: Some(age), .. })) if age > most => Err(ListError::Old { host, age, most }),
                Ok(outcome) => outcome,
                Err(_) => Err(ListError::TimedOut { host, after: limit }),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn ask(&self, host: &str) -> Result<Listing, ListError> {
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
            let age = age_of(response.headers()).map_err(|value| ListError::Age { host: owned(), value })?;
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(http)?;
            let tools = parse_listing(&body.to_bytes());
            let tools = tools.map_err(|error| ListError::Malformed { host: owned(), error })?;
            Ok(Listing { tools, age })
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

/// The greatest age of those told: a cache on the way may have added its own (RFC 9111, section 5.1). A number that is too
/// large is the largest there is. Fails with what is none.
fn age_of(headers: &HeaderMap) -> Result<Option<Duration>, String> {
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

    /// A server on that address that answers each request with this age.
    async fn proxy(address: std::net::SocketAddr, age: &'static str) -> (std::net::SocketAddr, Proxy) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let answer = format!("HTTP/1.1 200 OK\r\nAge: {age}\r\nContent-Length: 2\r\n\r\n{{}}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let proxy = Proxy { host: address.ip().into(), port: 8282 };
        (address, proxy)
    }

    #[tokio::test]
    async fn a_proxy_with_a_younger_list_is_asked_instead() {
        let (address, old) = proxy("127.0.0.1:0".parse().unwrap(), "61").await;
        let (_, young) = proxy((std::net::Ipv4Addr::new(127, 0, 0, 2), address.port()).into(), "60").await;
        let url = ListUrl::parse(&format!("http://HOST:{}/list", address.port())).unwrap();
        let minute = Duration::from_secs(60);
        let listing = url.fetch(&[old.clone(), young], minute, minute).await.unwrap();
        assert_eq!(listing.age, Some(minute));
        let error = url.fetch(&[old], minute, minute).await.unwrap_err();
        assert_eq!(error.to_string(), "the list of 127.0.0.1 was last known to be true 61s ago, more than 60s");
    }

    #[test]
    fn the_greatest_age_counts_and_what_is_none_is_no_list() {
        let age = |values: &[&str]| {
            let pairs = values.iter().map(|value| (AGE, value.parse().unwrap()));
            age_of(&pairs.collect::<HeaderMap>())
        };
        let seconds = |seconds| Ok(Some(Duration::from_secs(seconds)));
        assert_eq!(age(&[]), Ok(None));
        assert_eq!(age(&["0"]), seconds(0));
        assert_eq!(age(&["7", "90", "8"]), seconds(90));
        assert_eq!(age(&["99999999999999999999"]), seconds(u32::MAX.into()));
        for wrong in ["", "soon", "-1", "1.5", "1, 2"] {
            assert_eq!(age(&["1", wrong]), Err(wrong.to_owned()));
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
