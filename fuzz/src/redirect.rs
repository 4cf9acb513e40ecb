//! Canonical redirects and those of moved domains: as the `url` crate reads `Location`, host, path and query are the request's.

use arbitrary::{Arbitrary, Unstructured};
use url::Url;
use urlproxy::route::{Kind, MovedDomain, PathRequest, RedirectRequest, RouteKey, Site, decode_one, split_path};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    has_port: bool,
    /// The client's URI; the path that nginx decodes from it, unless a rewrite has changed it.
    written: &'a [u8],
    rewritten: Option<&'a [u8]>,
    labels: &'a [u8],
    query: &'a [u8],
}

pub fn check(bytes: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let Input { has_port, written, rewritten, labels, query } = input;
    let before_query = written.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let path = rewritten.map_or_else(|| decoded(before_query), <[u8]>::to_vec);

    let site = if has_port { "http://tools.example:8080" } else { "https://tools.example" };
    let PathRequest { tool, rest } = split_path(&path);
    // Only such tools have a redirect.
    if RouteKey::try_new(Kind::Redirect, tool).is_ok() {
        let site: Site = site.parse().expect("a site");
        let location = site.location(&RedirectRequest { tool, rest, written, query });
        let tool = String::from_utf8_lossy(tool);
        let port = if has_port { ":8080" } else { "" };
        check_location(&location, &format!("{tool}.tools.example"), port, rest, query);
    }
    let moved = MovedDomain::try_new("old.example", site).expect("two domains");
    let host = [labels, b".old.example"].concat();
    if let Some(location) = moved.location(&host, &path, written, query) {
        let port = if has_port { ":8080" } else { "" };
        let host = format!("{}.tools.example", String::from_utf8_lossy(labels));
        check_location(&location, &host, port, &path, query);
    }
}

fn check_location(location: &[u8], host: &str, port: &str, path: &[u8], query: &[u8]) {
    let text = std::str::from_utf8(location).expect("ASCII");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    let (_, after_scheme) = text.split_once("://").expect("a scheme");
    assert!(after_scheme.starts_with(&format!("{host}{port}/")), "{text:?} leads elsewhere than {host}");
    let url = match Url::parse(text) {
        Ok(url) => url,
        // No client can go to a host with an invalid label of IDNA, or one that ends like an address.
        Err(_) if host.to_ascii_lowercase().contains("xn--") => return,
        Err(error) => panic!("{text:?}: {error}"),
    };
    assert_eq!(url.host_str(), Some(&*host.to_ascii_lowercase()), "{text:?}");
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{text:?}");
    assert_eq!(url.port().map_or(String::new(), |port| format!(":{port}")), port, "{text:?}");
    let path = if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() };
    // nginx has resolved dots; after a rewrite they may be there, and the client resolves them.
    let has_dots = path.split(|&byte| byte == b'/').any(|segment| matches!(segment, b"." | b".."));
    if !has_dots {
        assert_eq!(decoded(url.path().as_bytes()), path, "{text:?}");
    }
    assert_eq!(decoded(url.query().unwrap_or_default().as_bytes()), decoded(query), "{text:?}");
}

/// Percent-decodes; keeps a `%` without two digits.
fn decoded(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((&first, after)) = text.split_first() {
        let (byte, rest) = decode_one(text).unwrap_or((first, after));
        bytes.push(byte);
        text = rest;
    }
    bytes
}
