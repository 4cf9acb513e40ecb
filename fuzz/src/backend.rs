//! Backend URLs: what is parsed is written so that it reads the same again, and the `url` crate reads the same host and port.

use url::Url;
use urlproxy::route::{Backend, Host};

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Also with a scheme, so that the parser gets past it.
    for text in [text, &format!("http://{text}"), &format!("HTTPS://{text}")] {
        match text.parse::<Backend>() {
            Ok(backend) => check_parsed(text, &backend),
            Err(error) => assert!(error.to_string().len() < 1000 && error.to_string().contains("expected")),
        }
    }
}

fn check_parsed(text: &str, backend: &Backend) {
    let written = backend.to_string();
    assert_eq!(written.parse().as_ref(), Ok(backend), "{written}");
    assert!(backend.port > 0);
    for text in [text, &written] {
        let url = match Url::parse(text) {
            Ok(url) => url,
            // Labels of IDNA that decode to nothing: DNS has no such rule.
            Err(_) if text.to_ascii_lowercase().contains("xn--") => return,
            Err(error) => panic!("{text:?}: {error}"),
        };
        assert_eq!(url.scheme(), backend.scheme.as_str(), "{text:?}");
        assert_eq!(url.port_or_known_default(), Some(backend.port), "{text:?}");
        assert!(url.path() == "/" && url.query().is_none() && url.fragment().is_none(), "{text:?}");
        assert!(url.username().is_empty() && url.password().is_none(), "{text:?}");
        let is_same = match (url.host(), &backend.host) {
            (Some(url::Host::Ipv4(one)), Host::V4(other)) => one == *other,
            (Some(url::Host::Ipv6(one)), Host::V6(other)) => one == *other,
            (Some(url::Host::Domain(one)), Host::Name(other)) => one.strip_suffix('.').unwrap_or(one) == &**other,
            _ => false,
        };
        assert!(is_same, "{text:?}: {:?} and {:?}", url.host(), backend.host);
    }
}
