//! The host of a request, as nginx reads it from a `Host` header.

/// What nginx accepts as a host, by its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostRules {
    /// Every printable byte but a slash, and any port.
    Printable,
    /// The characters of RFC 3986, and a port up to 65535.
    Rfc3986,
}

/// The first nginx version with [`HostRules::Rfc3986`].
const RFC_3986_SINCE: u32 = 1_029_004;

impl HostRules {
    /// The rules of a version, in the form of nginx's `nginx_version`.
    pub fn of_nginx(version: u32) -> Self {
        if version < RFC_3986_SINCE { Self::Printable } else { Self::Rfc3986 }
    }

    fn accept(self, host: &[u8]) -> bool {
        match self {
            Self::Printable => !host.iter().any(|byte| matches!(byte, 0..=0x20 | b'/' | 0x7f)),
            Self::Rfc3986 => {
                let (name, port) = match host.iter().position(|&byte| byte == b']') {
                    Some(bracket) if host.starts_with(b"[") => host.split_at(bracket + 1),
                    _ => host.split_at(host.iter().position(|&byte| byte == b':').unwrap_or(host.len())),
                };
                let is_name = match name.strip_prefix(b"[").map(|literal| literal.strip_suffix(b"]")) {
                    Some(literal) => {
                        literal.is_some_and(|bytes| bytes.iter().all(|&byte| is_host(byte) || byte == b':'))
                    }
                    None => name.iter().all(|&byte| is_host(byte) || byte == b'%'),
                };
                is_name && is_port(port)
            }
        }
    }
}

/// Whether RFC 3986 has the character in names and in address literals.
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// Whether it is empty or `:` and a port, which may be missing.
fn is_port(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b":") else { return text.is_empty() };
    let add = |port: u32, &digit: &u8| Some(port * 10 + u32::from(digit - b'0')).filter(|&port| port <= 0xffff);
    digits.iter().all(u8::is_ascii_digit) && digits.iter().try_fold(0, add).is_some()
}

/// Normalizes the value of a `Host` header as nginx does (`ngx_http_validate_host`): lower case, without port and
/// trailing dot. `None` if nginx answers such a request with 400. An empty value is no host.
pub fn normalize(host: &[u8], rules: HostRules) -> Option<Vec<u8>> {
    if host.is_empty() {
        return Some(Vec::new());
    }
    if !rules.accept(host) || host.windows(2).any(|pair| pair == b"..") {
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
            assert_eq!(
                normalize(host.as_bytes(), HostRules::Printable),
                want.map(|want| want.as_bytes().to_vec()),
                "{host:?}"
            );
        }
    }

    /// What nginx 1.30.6 answers to these.
    #[test]
    fn newer_versions_follow_rfc_3986() {
        for (host, want) in [
            ("Tools.Example.ORG:8080", Some("tools.example.org")),
            ("a_b.example.:443", Some("a_b.example")),
            ("!$%&'()*+,-.0;=_~", Some("!$%&'()*+,-.0;=_~")),
            ("a%zz", Some("a%zz")),
            ("[2001:DB8::1]:80", Some("[2001:db8::1]")),
            ("[v1.x]", Some("[v1.x]")),
            ("[::1]:", Some("[::1]")),
            ("a:", Some("a")),
            ("a:080", Some("a")),
            ("a:65535", Some("a")),
            ("a:65536", None),
            ("a:99999999999", None),
            ("a:x", None),
            ("a:8:8", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::1].", None),
            ("[a%b]", None),
            ("[a..b]", None),
            ("a[b", None),
            ("@.old.org", None),
            ("a\"b", None),
            ("w\u{ee}ki.example", None),
            (".", None),
            (":80", None),
        ] {
            let got = normalize(host.as_bytes(), HostRules::Rfc3986);
            assert_eq!(got, want.map(|want| want.as_bytes().to_vec()), "{host:?}");
        }
    }

    #[test]
    fn rules_depend_on_the_version() {
        assert_eq!(HostRules::of_nginx(1_029_003), HostRules::Printable);
        assert_eq!(HostRules::of_nginx(1_029_004), HostRules::Rfc3986);
    }
}
