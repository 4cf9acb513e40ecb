//! A list of public suffixes, and domains below them: any list is read or refused, and a suffix is a part of the domain.

use urlproxy::domains::Suffixes;
use urlproxy::route::Domain;

const DOMAINS: [&str; 6] = ["org", "example.org", "www.example.co.uk", "*.example.org", "a.b.city.kawasaki.jp", "*.ck"];

pub fn check(bytes: &[u8]) {
    let Ok(suffixes) = Suffixes::parse(bytes) else { return };
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let own = std::str::from_utf8(first).ok().and_then(|text| Domain::normalize(text).ok());
    let known = DOMAINS.iter().filter_map(|text| Domain::normalize(text).ok());
    for domain in known.chain(own).filter(|domain| !domain.is_address()) {
        let base = domain.as_str().strip_prefix("*.").unwrap_or(domain.as_str());
        let suffix = suffixes.suffix_of(base);
        assert!(!suffix.is_empty() && base.ends_with(suffix), "{base} {suffix}");
        assert!(base == suffix || base[..base.len() - suffix.len()].ends_with('.'), "{base} {suffix}");
        let _ = suffixes.protect(&domain);
    }
}
