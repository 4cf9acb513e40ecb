//! A site that requests are redirected to, and the `Location` of a canonical redirect: from `/<tool>/rest` to
//! `https://<tool>.<domain>/rest`.

use std::fmt;
use std::str::FromStr;

use super::backend::{Scheme, parse_port};
use super::domain::{Domain, DomainError};

/// A domain with hosts below it, and how clients reach them: `scheme://domain[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    scheme: Scheme,
    domain: Domain,
    port: Option<u16>,
}

/// Why a text is not such a site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// Neither `http://` nor `https://`.
    #[error("site {0:?} has no scheme, expected e.g. \"https://toolforge.org\"")]
    Scheme(String),
    /// A path, an address, a wildcard, a wrong port ...
    #[error("site {0:?} is not a scheme and a domain, expected e.g. \"https://toolforge.org\"")]
    Domain(String),
    /// The domain is not a host name.
    #[error(transparent)]
    Name(#[from] DomainError),
}

/// The parts of a request to redirect.
#[derive(Clone, Copy, Debug)]
pub struct RedirectRequest<'a> {
    /// The path's first segment, decoded.
    pub tool: &'a [u8],
    /// The path after the tool, from its slash on, decoded.
    pub rest: &'a [u8],
    /// The URI as sent by the client, with its query.
    pub written: &'a [u8],
    /// The query, without its question mark.
    pub query: &'a [u8],
}

impl Site {
    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The value of `Location` for a tool's own host.
    ///
    /// The path stays as the client sent it if it decodes to nginx's path; if nginx has resolved dots, merged slashes or
    /// applied a rewrite, the decoded path is encoded again.
    pub fn location(&self, request: &RedirectRequest<'_>) -> Vec<u8> {
        let written = path_of(request.written).strip_prefix(b"/");
        let written = written.and_then(|written| written_after(written, request.tool));
        self.location_below(&[request.tool, b"."], written, request.rest, request.query)
    }

    /// The value of `Location` for the host `labels` below the domain: the path `written` by the client, if it begins with a
    /// slash and decodes to `path`, else `path`; then the query.
    ///
    /// The target is always this host: a slash ends the authority before the client's text, and every byte that could end the
    /// header or the path is percent-encoded (RFC 3986, section 2.1).
    pub(super) fn location_below(
        &self,
        labels: &[&[u8]],
        written: Option<&[u8]>,
        path: &[u8],
        query: &[u8],
    ) -> Vec<u8> {
        let Self { scheme, domain, port } = self;
        let mut location = format!("{}://", scheme.as_str()).into_bytes();
        location.extend(labels.iter().copied().flatten());
        location.extend_from_slice(domain.as_str().as_bytes());
        if let Some(port) = port {
            location.extend(format!(":{port}").bytes());
        }
        match written.filter(|written| written.starts_with(b"/") && written_after(written, path) == Some(b"")) {
            Some(written) => encode(written, is_kept, &mut location),
            None => {
                // A rewrite may leave a path without its slash.
                if !path.starts_with(b"/") {
                    location.push(b'/');
                }
                encode(path, is_path, &mut location);
            }
        }
        if !query.is_empty() {
            location.push(b'?');
            encode(query, is_kept, &mut location);
        }
        location
    }
}

/// The path of a URI as sent by the client.
pub(super) fn path_of(written: &[u8]) -> &[u8] {
    let end = written.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(written.len());
    written.get(..end).unwrap_or_default()
}

/// The client's text after the part that decodes to `decoded`. `None` if it begins otherwise.
fn written_after<'a>(mut written: &'a [u8], decoded: &[u8]) -> Option<&'a [u8]> {
    for &byte in decoded {
        written = decode_one(written).filter(|&(decoded, _)| decoded == byte)?.1;
    }
    Some(written)
}

/// Decodes the first byte of a percent-encoded text; returns it and the remaining text. `None` at the end, and at a `%`
/// without two hex digits.
pub fn decode_one(path: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match path {
        [b'%', high, low, rest @ ..] => Some((digit(*high)? * 16 + digit(*low)?, rest)),
        [b'%', ..] | [] => None,
        [byte, rest @ ..] => Some((*byte, rest)),
    }
}

fn encode(bytes: &[u8], is_kept: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    for &byte in bytes {
        if is_kept(byte) {
            out.push(byte);
        } else {
            out.extend(format!("%{byte:02X}").bytes());
        }
    }
}

/// Bytes of an encoded URI that stay: all but those invalid in URIs, and `#`, which begins a fragment.
fn is_kept(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'#')
}

/// Bytes that a path may have unencoded (RFC 3986, section 3.3).
fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte)
}

impl FromStr for Site {
    type Err = SiteError;

    fn from_str(text: &str) -> Result<Self, SiteError> {
        let shown = || text.chars().take(120).collect::<String>();
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(SiteError::Scheme(shown())),
        };
        let wrong = || SiteError::Domain(shown());
        let (name, port) = match rest.split_once(':') {
            Some((name, port)) => (name, Some(parse_port(port).ok_or_else(wrong)?)),
            None => (rest, None),
        };
        if name.contains(['/', '?', '#', '@', '[']) {
            return Err(wrong());
        }
        let domain = Domain::normalize(name)?;
        if domain.is_wildcard() || domain.is_address() { Err(wrong()) } else { Ok(Self { scheme, domain, port }) }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.domain)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn location(rest: &[u8], written: &[u8], query: &[u8]) -> String {
        let site: Site = "https://toolforge.org".parse().unwrap();
        String::from_utf8(site.location(&RedirectRequest { tool: b"hello", rest, written, query })).unwrap()
    }

    #[test]
    fn path_and_query_stay_as_sent() {
        for (rest, written, query, want) in [
            ("/", "/hello", "", "/"),
            ("/", "/hello/", "", "/"),
            ("/a/b", "/hello/a/b?x=1&y=%20", "x=1&y=%20", "/a/b?x=1&y=%20"),
            ("/a/b", "/hello/a%2Fb", "", "/a%2Fb"),
            ("/a b", "/hello/a%20b", "", "/a%20b"),
            ("/a b", "/hel%6Co/a%20b", "", "/a%20b"),
            ("/a[1]|{}", "/hello/a[1]|{}?b[]=1", "b[]=1", "/a[1]|{}?b[]=1"),
            ("/%", "/hello/%25", "%", "/%25?%"),
            ("/é", "/hello/%C3%A9", "é", "/%C3%A9?%C3%A9"),
            ("/é", "/hello/é", "", "/%C3%A9"),
            ("/a", "/hello/a?http://x/?y", "http://x/?y", "/a?http://x/?y"),
        ] {
            let got = location(rest.as_bytes(), written.as_bytes(), query.as_bytes());
            assert_eq!(got, format!("https://hello.toolforge.org{want}"), "{written}");
        }
    }

    #[test]
    fn paths_changed_by_nginx_are_encoded_again() {
        for (rest, written, want) in [
            ("/a b%?#[", "/x/../hello/a%20b%25%3F%23%5B", "/a%20b%25%3F%23%5B"),
            ("/a", "/hello//a", "/a"),
            ("/a", "/hello/./a", "/a"),
            ("/x", "/hello%2Fx", "/x"),
            ("/rewritten", "/hello/a", "/rewritten"),
            ("/a\r\nX: y", "/hello/a%0d%0aX:%20y", "/a%0d%0aX:%20y"),
            ("/a\r\nX: y", "/x/../hello/a%0d%0aX:%20y", "/a%0D%0AX:%20y"),
            ("/\\evil.example", "/hello/\\evil.example", "/%5Cevil.example"),
            ("/a", "*", "/a"),
            ("/a%", "/hello/a%", "/a%25"),
        ] {
            assert_eq!(
                location(rest.as_bytes(), written.as_bytes(), b""),
                format!("https://hello.toolforge.org{want}")
            );
        }
    }

    #[test]
    fn a_site_is_a_scheme_and_a_domain() {
        for good in ["https://toolforge.org", "http://tools.example:8080"] {
            assert_eq!(good.parse::<Site>().unwrap().to_string(), good);
        }
        let site: Site = "https://tools.example:8443".parse().unwrap();
        let request = RedirectRequest { tool: b"a", rest: b"/", written: b"/a", query: b"" };
        assert_eq!(site.location(&request), b"https://a.tools.example:8443/");
        for bad in [
            "toolforge.org",
            "ftp://a.org",
            "https://",
            "https://a.org/",
            "https://a.org/x",
            "https://u@a.org",
            "https://a.org:0",
            "https://a.org:+80",
            "https://a.org:x",
            "https://10.0.0.1",
            "https://[::1]",
            "https://*.a.org",
            "https://a..org",
            "https://a.org?x",
        ] {
            assert!(bad.parse::<Site>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_change_the_host_or_end_the_header(
            rest in prop::collection::vec(any::<u8>(), 0..40),
            written in prop::collection::vec(any::<u8>(), 0..60),
            query in prop::collection::vec(any::<u8>(), 0..40),
            is_same in any::<bool>(),
        ) {
            let rest = [b"/", &rest[..]].concat();
            let written = if is_same { [b"/hello", &rest[..]].concat() } else { written };
            let got = location(&rest, &written, &query);
            prop_assert!(got.starts_with("https://hello.toolforge.org/"));
            prop_assert!(got.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#'));
        }
    }
}
