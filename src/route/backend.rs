//! Backends: `scheme://host[:port][/]`, without a path.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::domain::{MAX_DOMAIN_LEN, is_label};

/// The protocol of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The scheme of a URL, `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL without one.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The host of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, in brackets when written in a URL.
    V6(Ipv6Addr),
    /// A DNS name (RFC 1123, underscores allowed), in lower case.
    Name(Box<str>),
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6(ip),
        }
    }
}

/// One HTTP server of a tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// HTTP or HTTPS.
    pub scheme: Scheme,
    /// Address or name.
    pub host: Host,
    /// TCP port, never 0.
    pub port: u16,
}

/// Why a text is not a backend. Each variant has the text, shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Neither `http://` nor `https://`.
    #[error("backend {0:?} has no scheme, expected http://host:port or https://host:port")]
    Scheme(String),
    /// A path, a query, credentials, a space ... besides `host:port`.
    #[error("backend {0:?} has more than a host and a port, expected scheme://host:port")]
    Extra(String),
    /// A colon without a port between 1 and 65535 after it.
    #[error("backend {0:?} has no port between 1 and 65535, expected scheme://host:port")]
    Port(String),
    /// Not an IPv4 address, a bracketed IPv6 address or a DNS name.
    #[error("backend {0:?} has no valid host, expected an IPv4 address, an [IPv6 address] or a DNS name")]
    Host(String),
}

impl Backend {
    /// The address to connect to, if the host is an address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let ip = match &self.host {
            Host::V4(ip) => IpAddr::V4(*ip),
            Host::V6(ip) => IpAddr::V6(*ip),
            Host::Name(_) => return None,
        };
        Some(SocketAddr::new(ip, self.port))
    }
}

/// Also accepts the forms in old data: a scheme in upper case, no port, one `/` at the end.
impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Self, BackendError> {
        let shown = || text.chars().take(120).collect::<String>();
        let (scheme, rest) = text.split_once("://").ok_or_else(|| BackendError::Scheme(shown()))?;
        let scheme =
            [Scheme::Http, Scheme::Https].into_iter().find(|known| scheme.eq_ignore_ascii_case(known.as_str()));
        let scheme = scheme.ok_or_else(|| BackendError::Scheme(shown()))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(|c: char| !c.is_ascii_graphic() || "/?#@\\".contains(c)) {
            return Err(BackendError::Extra(shown()));
        }
        // Without a port, the last colon of an IPv6 address is inside the brackets.
        let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, parse_port(port).ok_or_else(|| BackendError::Port(shown()))?),
            None => (rest, scheme.default_port()),
        };
        let host = parse_host(host).ok_or_else(|| BackendError::Host(shown()))?;
        Ok(Self { scheme, host, port })
    }
}

/// One to five digits, not 0.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port > 0)
}

fn parse_host(text: &str) -> Option<Host> {
    if let Some(v6) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return v6.parse().ok().map(Host::V6);
    }
    if let Ok(v4) = text.parse() {
        return Some(Host::V4(v4));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    // Resolvers take `127.1`, `127.0x1` and `2130706433` for addresses; this is the rule of the URL standard.
    let numeric = name.rsplit('.').next().is_some_and(|l| {
        let hex = |t: &str| t.bytes().all(|b| b.is_ascii_hexdigit());
        l.bytes().all(|b| b.is_ascii_digit()) || l.strip_prefix("0x").or(l.strip_prefix("0X")).is_some_and(hex)
    });
    let is_name = name.len() <= MAX_DOMAIN_LEN && !numeric && name.split('.').all(|label| is_label(label.as_bytes()));
    is_name.then(|| Host::Name(name.to_ascii_lowercase().into()))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(ip) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_round_trip() {
        for url in [
            "http://10.0.0.1:8000",
            "https://[fd00::1]:443",
            "http://tools-exec-01.eqiad:65535",
            "http://a_b:1",
            "http://10gen:80",
        ] {
            assert_eq!(url.parse::<Backend>().unwrap().to_string(), url);
        }
        assert_eq!("http://Host.Example.:80".parse::<Backend>().unwrap().to_string(), "http://host.example:80");
    }

    #[test]
    fn forms_in_old_data_are_normalized() {
        for (url, want) in [
            ("http://10.0.0.5", "http://10.0.0.5:80"),
            ("http://10.0.0.5/", "http://10.0.0.5:80"),
            ("http://10.0.0.5:8080/", "http://10.0.0.5:8080"),
            ("https://tools.example.org", "https://tools.example.org:443"),
            ("HTTPS://H", "https://h:443"),
            ("hTTp://h:1/", "http://h:1"),
            ("http://[fd00::1]", "http://[fd00::1]:80"),
            ("https://[fd00::1]/", "https://[fd00::1]:443"),
            ("HTTP://[fd00::1]:8080", "http://[fd00::1]:8080"),
        ] {
            assert_eq!(url.parse::<Backend>().map(|backend| backend.to_string()), Ok(want.into()), "{url}");
        }
    }

    #[test]
    fn invalid_urls_are_refused_with_a_reason() {
        for (url, want) in [
            ("", "no scheme"),
            ("ftp://a:1", "no scheme"),
            ("a:1", "no scheme"),
            ("http:/a:1", "no scheme"),
            ("http:a:1", "no scheme"),
            (" http://a:1", "no scheme"),
            ("http//a:1", "no scheme"),
            ("http://a:80//", "more than"),
            ("http://a//", "more than"),
            ("http://a:80/x", "more than"),
            ("http://a/x", "more than"),
            ("http://a/?", "more than"),
            ("http://a/\n", "more than"),
            ("http://u:p@a", "more than"),
            ("http://a#", "more than"),
            ("http://a:80?x", "more than"),
            ("http://u@a:80", "more than"),
            ("http://a:80\n", "more than"),
            ("http://a b:80", "more than"),
            ("http://a\\b:80", "more than"),
            ("http://a:", "no port"),
            ("http://a:/", "no port"),
            ("http://[fd00::1]:", "no port"),
            ("http://[fd00::1]x", "no port"),
            ("http://a:0", "no port"),
            ("http://a:65536", "no port"),
            ("http://a:+80", "no port"),
            ("http://", "no valid host"),
            ("http:///", "no valid host"),
            ("http://[]", "no valid host"),
            ("http://[fd00::1", "no valid host"),
            ("http://:80", "no valid host"),
            ("http://127.1:80", "no valid host"),
            ("http://0x7f.1:80", "no valid host"),
            ("http://127.0x1:80", "no valid host"),
            ("http://2130706433:80", "no valid host"),
            ("http://fd00::1:80", "no valid host"),
            ("http://[fe80::1%eth0]:80", "no valid host"),
            ("http://-a:80", "no valid host"),
            ("http://a..b:80", "no valid host"),
            ("http://é:80", "more than"),
        ] {
            let error = url.parse::<Backend>().unwrap_err().to_string();
            assert!(error.contains(want), "{url:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parsed_backends_are_canonical(text in "((?i)https?://)?[\\[\\]a-z0-9.:_\\-]{0,24}/?") {
            if let Ok(backend) = text.parse::<Backend>() {
                prop_assert_eq!(backend.to_string().parse::<Backend>().unwrap(), backend);
            }
        }
    }
}
