//! The host of a request, as nginx reads it from a `Host` header.

/// Normalizes the value of a `Host` header as nginx 1.22 to 1.28 do (`ngx_http_validate_host`): lower case, without port and
/// trailing dot. `None` if nginx answers such a request with 400. An empty value is no host.
pub fn normalize(host: &[u8]) -> Option<Vec<u8>> {
    if host.is_empty() {
        return Some(Vec::new());
    }
    let is_refused = |byte: &u8| matches!(byte, 0..=0x20 | b'/' | 0x7f);
    if host.iter().any(is_refused) || host.windows(2).any(|pair| pair == b"..") {
        return None;
    }
    let literal = if host.starts_with(b"[") { host.iter().position(|&byte| byte == b']') } else { None };
    let colon = host.iter().position(|&byte| byte == b':');
    let end = match (literal, colon) {
        (Some(bracket), _) => bracket + 1,
        // An address literal has colons.
        (None, Some(colon)) if !host.starts_with(b"[") => colon,
        _ => host.len(),
    };
    let name = host.get(..end)?;
    let name = name.strip_suffix(b".").unwrap_or(name);
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_port_and_trailing_dot_are_removed() {
        for (host, want) in [
            ("", Some("")),
            ("Tools.Example.ORG", Some("tools.example.org")),
            ("tools.example.org:8080", Some("tools.example.org")),
            ("tools.example.org.", Some("tools.example.org")),
            ("tools.example.org.:443", Some("tools.example.org")),
            ("[2001:DB8::1]:80", Some("[2001:db8::1]")),
            ("[2001:db8::1", Some("[2001:db8::1")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("a_b.example", Some("a_b.example")),
            ("w\u{ee}ki.example", Some("w\u{ee}ki.example")),
            (".example", Some(".example")),
            ("a..b", None),
            ("a/b", None),
            ("a b", None),
            ("a\0b", None),
            ("a\x7f", None),
            (".", None),
            (":80", None),
        ] {
            assert_eq!(normalize(host.as_bytes()), want.map(|want| want.as_bytes().to_vec()), "{host:?}");
        }
    }
}
