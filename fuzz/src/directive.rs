//! Directives of nginx.conf, one per line: any words are settings within their bounds, or an error that names the directive.

use std::time::Duration;

use urlproxy::directive::location::{
    LocationOptions, Mode, Urlproxy, UrlproxyCanonical, UrlproxyDefault, UrlproxyLoopMark, UrlproxyMiss,
};
use urlproxy::directive::moved::UrlproxyMoved;
use urlproxy::directive::pages::{UrlproxyAdmin, UrlproxyList};
use urlproxy::directive::table::{ENTRIES, TableOptions};
use urlproxy::directive::upstream::{parse_keepalive, parse_peers};
use urlproxy::directive::{Directive, DirectiveError};

type Apply = fn(&mut LocationOptions, &[&str]) -> Result<(), DirectiveError>;

const OF_LOCATIONS: [(&str, Apply); 8] = [
    of::<Urlproxy>(),
    of::<UrlproxyDefault>(),
    of::<UrlproxyCanonical>(),
    of::<UrlproxyMoved>(),
    of::<UrlproxyMiss>(),
    of::<UrlproxyLoopMark>(),
    of::<UrlproxyList>(),
    of::<UrlproxyAdmin>(),
];

const fn of<D: Directive<Conf = LocationOptions>>() -> (&'static str, Apply) {
    (D::NAME, D::apply)
}

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (mut location, mut table) = (LocationOptions::default(), TableOptions::default());
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (name, args) = (words[0], &words[1..]);
        // Files would be read, some of which only root may open.
        let is_read = matches!(name, "redis" | "password_file");
        if is_read && ["/dev", "/proc", "/sys", "%"].iter().any(|part| line.contains(part)) {
            continue;
        }
        // Of an unknown name, too, the words are parameters.
        let (name, outcome) = if let Some((_, apply)) = OF_LOCATIONS.iter().find(|(known, _)| *known == name) {
            (name, apply(&mut location, args))
        } else if let Some((_, apply)) = ENTRIES.iter().find(|(known, _)| *known == name) {
            (name, apply(&mut table, args))
        } else if name == "urlproxy_peers" {
            (name, check_peers(args))
        } else {
            ("urlproxy_keepalive", check_keepalive(args))
        };
        if let Err(error) = outcome {
            assert!(error.to_string().starts_with(&format!("\"{name}\" ")), "{line:?}: {error}");
        }
    }
    check_location(&location);
    let settings = table.into_settings("tools").expect("all values are valid");
    assert!(settings.zone_bytes >= 256 << 10 && settings.companion.metrics_tools <= 1000);
    assert!(settings.companion.resync_interval >= Duration::from_secs(1));
    assert!(settings.companion.snapshot.is_none_or(|snapshot| snapshot.path.is_absolute()));
    assert!(settings.ready_limits.max_age.is_none_or(|age| age >= Duration::from_secs(1)));
    assert!(settings.ready_limits.drain_file.is_none_or(|path| path.is_absolute()));
}

fn check_location(location: &LocationOptions) {
    assert!(matches!(location.miss_status(), 400..494 | 500..600));
    if let Mode::Subdomain(domain) = location.mode() {
        assert!(!domain.is_wildcard() && !domain.is_address(), "{domain}");
    }
    let moved = location.moved();
    assert!(moved.is_sorted_by_key(|moved| usize::MAX - moved.old().as_str().len()), "the longest domain decides");
    // The level below has its own value, or this one.
    let mut below = LocationOptions::default();
    below.inherit(location, true);
    assert_eq!(&below.canonical(), &location.canonical());
    assert_eq!(
        (below.mode(), below.default_route(), below.moved()),
        (location.mode(), location.default_route(), moved)
    );
}

fn check_peers(args: &[&str]) -> Result<(), DirectiveError> {
    let (health, shared) = parse_peers(args)?;
    assert!(health.fail_timeout.as_secs() > 0 && health.fail_timeout.subsec_nanos() == 0);
    assert!(shared.iter().all(|network| *network == network.trunc()));
    Ok(())
}

fn check_keepalive(args: &[&str]) -> Result<(), DirectiveError> {
    let (settings, shared) = parse_keepalive(args)?;
    let limits = [settings.limits.total, settings.limits.per_backend, settings.limits.per_owner];
    assert!(limits.iter().all(|limit| (1..=1_000_000).contains(limit)), "{limits:?}");
    assert!(settings.requests > 0 && !settings.timeout.is_zero() && !settings.time.is_zero());
    assert!(shared.iter().all(|network| *network == network.trunc()));
    Ok(())
}
