//! Paths, bodies and headers of requests to invisible-unicorn: any bytes name a resource, or are refused with a client's status.

use urlproxy::domains::{Resource, accepts_problem, bearer, parse_reserved, read_mapping};
use urlproxy::route::Domain;

pub fn check(bytes: &[u8]) {
    for text in [b"/".as_slice(), b"/v1/project/mapping/", b"/dynamicproxy-api/v1/"].map(|path| [path, bytes].concat())
    {
        let Ok(uri) = std::str::from_utf8(&text).unwrap_or_default().parse() else { continue };
        match Resource::of(&uri) {
            Ok(Resource::Mapping { project, domain }) => {
                assert!(![project, domain].iter().any(|text| text.is_empty() || text.contains(char::is_control)));
            }
            Ok(Resource::Mappings { project }) => assert!(!project.is_empty() && !project.contains(char::is_control)),
            Ok(Resource::OpenApi) => {}
            Err(error) => assert!(matches!(error.status().as_u16(), 400 | 404), "{error}"),
        }
    }
    match read_mapping(bytes) {
        Ok(mapping) => assert!(mapping.backends.len() < bytes.len() && mapping.domain.len() < bytes.len()),
        Err(error) => assert_eq!(error.status().as_u16(), 400),
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(domain) = parse_reserved(text) {
            assert_eq!(Domain::normalize(text).as_ref(), Ok(&domain));
            assert!(!domain.is_wildcard() && !domain.is_address());
        }
        check_headers(text);
    }
}

fn check_headers(text: &str) {
    let mut headers = Default::default();
    assert!(!accepts_problem(&headers) && bearer(&headers).is_none());
    for name in ["authorization", "accept"] {
        let Ok(value) = text.parse() else { return };
        headers.insert(name, value);
    }
    let _ = accepts_problem(&headers);
    if let Some(token) = bearer(&headers) {
        assert!(text.trim_end().ends_with(token));
    }
}
