//! Hosts of requests and of keys: what a request names is compared in one form, and no host reaches another kind of record.

use urlproxy::admin::request_host::{self, HostRules};
use urlproxy::route::{Domain, Kind, LookupKey, MAX_DOMAIN_LEN, MovedDomain, RouteKey, label_below, normal_host};

pub fn check(bytes: &[u8]) {
    let [printable, strict] =
        [HostRules::Printable, HostRules::Rfc3986].map(|rules| request_host::normalize(bytes, rules));
    for host in [&printable, &strict].into_iter().flatten() {
        assert_eq!(*host, host.to_ascii_lowercase());
        as_nginx_has_it(host);
    }
    assert!(strict.is_none() || strict == printable, "newer nginx refuses more, and reads the rest alike");
    as_nginx_has_it(&bytes.to_ascii_lowercase());
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(domain) = Domain::normalize(text) {
        assert_eq!(Domain::try_new(domain.as_str().as_bytes()).as_ref(), Ok(&domain));
        assert_eq!(Domain::normalize(&format!("{domain}.")).is_ok(), !domain.as_str().starts_with('['));
        let key = RouteKey::try_new(Kind::Domain, domain.as_str().as_bytes()).expect("a domain is a name");
        assert_eq!((key.kind(), key.name()), (Kind::Domain, domain.as_str().as_bytes()));
        assert_eq!(RouteKey::from_table(key.as_bytes()).as_ref(), Ok(&key));
    }
}

/// `host` as nginx gives it: lower case, without port and trailing dot.
fn as_nginx_has_it(host: &[u8]) {
    let Some(normal) = normal_host(host) else { return };
    let key = LookupKey::domain(&normal).to_bytes();
    assert_eq!(Kind::of(&key), Kind::Domain);
    if let Some(wildcard) = LookupKey::wildcard(&normal) {
        let key = wildcard.to_bytes();
        let name = Kind::split(&key).1;
        assert!(name.starts_with(b"*.") && normal.ends_with(&name[1..]));
        assert!(!normal[..normal.len() - name.len() + 1].contains(&b'.'), "one label more than the wildcard");
    }
    let label = label_below(host, b"toolforge.org");
    let naive = host.strip_suffix(b".toolforge.org").filter(|label| {
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        !label.is_empty()
            && label.len() < 64
            && label.iter().all(is_inner)
            && !label.starts_with(b"-")
            && !label.ends_with(b"-")
    });
    assert_eq!(label, naive, "{}", host.escape_ascii());
    let moved = MovedDomain::try_new("wmflabs.org", "https://wmcloud.org").expect("two domains");
    let mut buffer = [0; MAX_DOMAIN_LEN];
    if let Some(new) = moved.new_host(host, &mut buffer) {
        assert!(moved.has(host));
        let labels = new.strip_suffix(b"wmcloud.org").expect("a host below the new domain");
        assert_eq!([labels, b"wmflabs.org"].concat(), host);
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        assert!(labels.iter().all(allowed) && (labels.is_empty() || labels.ends_with(b".")));
    }
}
