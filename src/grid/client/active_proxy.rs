//! The active-proxy file: the proxies to register with, one per line.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::failure::HasExitStatus;
use super::status::{EX_CONFIG, EX_NOINPUT};
use crate::route::{Backend, Host};

/// Default of `--active-proxy-file`.
pub const DEFAULT_PATH: &str = "/etc/active-proxy";
/// proxylistener's default port.
const DEFAULT_PORT: u16 = 8282;

/// The address of a proxylistener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address.
    pub host: Host,
    /// TCP port, never 0.
    pub port: u16,
}

/// Why the proxies are unknown.
#[derive(Debug, thiserror::Error)]
pub enum ActiveProxyError {
    /// The file is missing or unreadable.
    #[error("{error} while reading the active-proxy file {path:?}, expected one proxy per line")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A line is not a proxy.
    #[error(
        "{path:?} line {line}: invalid proxy {text:?}, expected host, host:port, address, [IPv6 address] or [IPv6 address]:port"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line, at most 120 characters of it.
        text: String,
    },
}

impl HasExitStatus for ActiveProxyError {
    fn status(&self) -> u8 {
        match self {
            Self::Unreadable { .. } => EX_NOINPUT,
            Self::Malformed { .. } => EX_CONFIG,
        }
    }
}

/// Reads the file. A file without a proxy is valid: register nowhere.
pub fn read(path: &Path) -> Result<Vec<Proxy>, ActiveProxyError> {
    let content = fs::read(path).map_err(|error| ActiveProxyError::Unreadable { path: path.to_owned(), error })?;
    parse_active_proxies(&content).map_err(|(line, text)| ActiveProxyError::Malformed {
        path: path.to_owned(),
        line,
        text,
    })
}

/// Parses an active-proxy file. Ignores blank lines, comments from `#` on, and duplicates.
///
/// # Errors
/// The number, from 1, and the text of the first invalid line.
pub fn parse_active_proxies(content: &[u8]) -> Result<Vec<Proxy>, (usize, String)> {
    let mut proxies = Vec::new();
    for (number, line) in (1..).zip(content.split(|&byte| byte == b'\n')) {
        let wrong = || (number, String::from_utf8_lossy(line).trim().chars().take(120).collect());
        let text = std::str::from_utf8(line).map_err(|_| wrong())?;
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let proxy = parse_proxy(text).ok_or_else(wrong)?;
        if !proxies.contains(&proxy) {
            proxies.push(proxy);
        }
    }
    Ok(proxies)
}

/// Accepts the authority of a URL, and a plain IPv6 address.
fn parse_proxy(text: &str) -> Option<Proxy> {
    if let Ok(address) = text.parse() {
        return Some(Proxy { host: Host::V6(address), port: DEFAULT_PORT });
    }
    let backend = |text: String| text.parse::<Backend>().ok();
    if text.contains('/') {
        return None;
    }
    // The default port first: appended to a port it does not parse.
    let Backend { host, port, .. } =
        backend(format!("http://{text}:{DEFAULT_PORT}")).or_else(|| backend(format!("http://{text}")))?;
    Some(Proxy { host, port })
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(content: &str) -> Result<Vec<String>, (usize, String)> {
        Ok(parse_active_proxies(content.as_bytes())?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_forms_of_a_proxy_are_parsed() {
        for (line, want) in [
            ("proxy-1", "proxy-1:8282"),
            ("Proxy.Example.ORG", "proxy.example.org:8282"),
            ("proxy.example.org:82", "proxy.example.org:82"),
            ("10.0.0.1", "10.0.0.1:8282"),
            ("10.0.0.1:82", "10.0.0.1:82"),
            ("fd00::1", "[fd00::1]:8282"),
            ("[fd00::1]", "[fd00::1]:8282"),
            ("[fd00::1]:82", "[fd00::1]:82"),
            ("  proxy-1 \t\r", "proxy-1:8282"),
            ("proxy-1 # the one in row B", "proxy-1:8282"),
        ] {
            assert_eq!(parsed(line), Ok(vec![want.into()]), "{line:?}");
        }
    }

    #[test]
    fn file_may_list_several_proxies_or_none() {
        assert_eq!(parsed("# both\na\n\nb:1\na:8282\n"), Ok(vec!["a:8282".into(), "b:1".into()]));
        for empty in ["", "\n", "  \n# none\n\n"] {
            assert_eq!(parsed(empty), Ok(vec![]), "{empty:?}");
        }
    }

    #[test]
    fn first_invalid_line_is_named() {
        for wrong in [
            "a b",
            "http://a",
            "a/",
            "a:82/",
            "a:0",
            "a:",
            ":82",
            "a:65536",
            "a:b",
            "[fd00::1",
            "[fd00::1]:",
            "a,b",
            "-a",
            "1.2.3",
        ] {
            assert_eq!(parsed(&format!("good\n# fine\n{wrong}\n")), Err((3, wrong.into())), "{wrong:?}");
        }
        assert_eq!(parse_active_proxies(b"a\n\xff\n"), Err((2, "\u{fffd}".into())));
        let long = "a ".repeat(1000);
        assert_eq!(parsed(&long).unwrap_err().1.chars().count(), 120);
    }

    proptest! {
        #[test]
        fn proxies_survive_a_round_trip(content in "([a-z0-9.:\\[\\]# -]{0,20}\n){0,3}|\\PC{0,20}") {
            if let Ok(proxies) = parse_active_proxies(content.as_bytes()) {
                let written: String = proxies.iter().map(|proxy| format!("{proxy}\n")).collect();
                prop_assert_eq!(parse_active_proxies(written.as_bytes()), Ok(proxies));
            }
        }
    }
}
