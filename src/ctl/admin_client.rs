//! Asks the admin API of nginx, `urlproxy_admin`.

use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::api::RoutesPage;
use crate::daemon::{FetchError, fetch};

/// Time for one response.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of one response: a page of routes has at most ten thousand records, most of a few hundred bytes.
const MAX_BYTES: usize = 256 << 20;
/// Records per page of routes.
const PAGE: &str = "10000";

/// The URL below which the admin API is: `http://host[:port][/path/]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUrl {
    host: String,
    port: u16,
    /// Begins and ends with a slash.
    base: String,
}

/// Not the URL of an admin API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid URL {0:?}, expected e.g. {example:?}", example = AdminUrl::DEFAULT)]
pub struct AdminUrlError(String);

impl AdminUrl {
    /// The default URL, that of the shipped configuration.
    pub const DEFAULT: &str = "http://127.0.0.1:8081/";
}

impl FromStr for AdminUrl {
    type Err = AdminUrlError;

    fn from_str(text: &str) -> Result<Self, AdminUrlError> {
        let invalid = || AdminUrlError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("http") || has_user || uri.query().is_some() {
            return Err(invalid());
        }
        let slash = if uri.path().ends_with('/') { "" } else { "/" };
        Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(80), base: format!("{}{slash}", uri.path()) })
    }
}

impl std::fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.base)
    }
}

/// Why the admin API gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No connection, or no valid response.
    #[error("{error} while asking {url} (--admin)")]
    Fetch {
        /// The URL that was fetched.
        url: String,
        /// What failed.
        error: FetchError,
    },
    /// No complete response in time.
    #[error("no complete response within {TIMEOUT:?} from {0} (--admin)")]
    TimedOut(String),
    /// An error response.
    #[error("{url} answers {status}: {error}")]
    Status {
        /// The URL that was fetched.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's reason.
        error: String,
    },
    /// Not the JSON of an admin API.
    #[error("{error} in the response of {url}; is that the location with \"urlproxy_admin\"?")]
    Malformed {
        /// The URL that was fetched.
        url: String,
        /// The parser's error.
        error: serde_json::Error,
    },
}

/// A client of one admin API.
#[derive(Clone, Debug)]
pub struct AdminClient {
    url: AdminUrl,
}

impl AdminClient {
    /// Connects at each request.
    pub fn new(url: AdminUrl) -> Self {
        Self { url }
    }

    /// The response to a GET of a path below the API's URL, with these parameters.
    ///
    /// # Errors
    /// Every [`AdminError`].
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, AdminError> {
        let AdminUrl { host, port, base } = &self.url;
        let pairs = parameters.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value)));
        let query = pairs.collect::<Vec<_>>().join("&");
        let question = if query.is_empty() { "" } else { "?" };
        let target = format!("{base}{path}{question}{query}");
        // Long parameters are the caller's own; the path is enough to find the server.
        let url = || format!("{}{path}", self.url);
        let fetched = timeout(TIMEOUT, fetch(host, *port, &target, MAX_BYTES)).await;
        let fetched = fetched.map_err(|_| AdminError::TimedOut(url()))?;
        let fetched = fetched.map_err(|error| AdminError::Fetch { url: url(), error })?;
        if fetched.status != 200 {
            let error = serde_json::from_slice::<Value>(&fetched.body).ok();
            let error = error.as_ref().and_then(|error| error.get("error")?.as_str()).unwrap_or("no reason given");
            return Err(AdminError::Status { url: url(), status: fetched.status, error: error.to_owned() });
        }
        serde_json::from_slice(&fetched.body).map_err(|error| AdminError::Malformed { url: url(), error })
    }

    /// Like [`get`](Self::get), as a type.
    ///
    /// # Errors
    /// Every [`AdminError`].
    pub async fn get_as<T: DeserializeOwned>(&self, path: &str, parameters: &[(&str, &str)]) -> Result<T, AdminError> {
        self.read(path, self.get(path, parameters).await?)
    }

    /// Reads a response to `path` as a type.
    ///
    /// # Errors
    /// [`AdminError::Malformed`].
    pub fn read<T: DeserializeOwned>(&self, path: &str, value: Value) -> Result<T, AdminError> {
        let malformed = |error| AdminError::Malformed { url: format!("{}{path}", self.url), error };
        serde_json::from_value(value).map_err(malformed)
    }

    /// The table's records page by page, in table order.
    ///
    /// # Errors
    /// Every [`AdminError`].
    pub async fn routes(
        &self,
        parameters: &[(&str, &str)],
        mut each: impl FnMut(RoutesPage),
    ) -> Result<(), AdminError> {
        let mut cursor = None;
        loop {
            let mut all = vec![("limit", PAGE)];
            all.extend(parameters);
            all.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page: RoutesPage = self.get_as("api/routes", &all).await?;
            cursor = page.next.clone();
            each(page);
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

/// Text for one segment or parameter of a URL: everything is encoded but the unreserved characters of RFC 3986, section 2.3.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_host_and_perhaps_a_path() {
        for (text, want) in [
            (AdminUrl::DEFAULT, "http://127.0.0.1:8081/"),
            ("http://proxy-1", "http://proxy-1:80/"),
            ("http://[::1]:8081/urlproxy", "http://[::1]:8081/urlproxy/"),
        ] {
            assert_eq!(text.parse::<AdminUrl>().unwrap().to_string(), want);
        }
        for text in
            ["", "8081", "127.0.0.1:8081", "https://a/", "http://", "http://a b/", "http://u:p@h/", "http://a/?b"]
        {
            let error = text.parse::<AdminUrl>().unwrap_err().to_string();
            assert!(error.contains("expected e.g. \"http://127.0.0.1:8081/\""), "{text}: {error}");
        }
    }

    #[test]
    fn parameters_are_encoded() {
        assert_eq!(percent_encoded("a-b.c_d~1"), "a-b.c_d~1");
        assert_eq!(percent_encoded("/x y?&=%+#ü"), "%2Fx%20y%3F%26%3D%25%2B%23%C3%BC");
    }
}
