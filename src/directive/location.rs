//! Directives of a location: `urlproxy`, `urlproxy_default`, `urlproxy_canonical`, `urlproxy_miss`, `urlproxy_loop_mark`.

use super::{Directive, DirectiveError, set_once};
use crate::route::{Backend, Domain, Kind, MovedDomain, RouteKey, Site};

/// The part of a request that selects the tool or domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The first path segment is the tool.
    Path,
    /// The first label of the host is the tool; the rest is this domain.
    Subdomain(Domain),
    /// The host is the domain.
    Domain,
}

impl Mode {
    /// The default status of a miss: a tool that is not running is unavailable, an unknown host is not found.
    fn default_miss(&self) -> u16 {
        if *self == Self::Domain { 404 } else { 503 }
    }
}

/// The value of `urlproxy_loop_mark`: which requests carry the loop mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopMark {
    /// Requests of tools and domains with a backend given by name. The default.
    Named,
    All,
    Off,
}

/// What one level says.
#[derive(Clone, Debug, Default)]
pub struct LocationOptions {
    /// The inner `None` is `off`.
    routed_by: Option<Option<(String, Mode)>>,
    default: Option<DefaultRoute>,
    /// The inner `None` is `off`.
    canonical: Option<Option<Site>>,
    /// Longest old domain first; empty if `off`.
    pub(super) moved: Option<Vec<MovedDomain>>,
    miss: Option<u16>,
    /// Which requests carry the loop mark.
    pub loop_mark: Option<LoopMark>,
    /// The argument of `urlproxy_list`.
    pub listed: Option<String>,
    /// The argument of `urlproxy_admin`.
    pub administered: Option<String>,
}

/// Fallback for requests that match no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultRoute {
    /// No fallback.
    Off,
    /// The routes of this tool, matched against the whole path.
    Tool(RouteKey),
    /// This backend.
    Backend(Backend),
}

impl LocationOptions {
    /// Inherits unset values from the level above. `urlproxy` itself is inherited only by unnamed blocks: `if`, `limit_except`.
    pub fn inherit(&mut self, above: &Self, is_unnamed: bool) {
        if self.routed_by.is_none() && is_unnamed {
            self.routed_by.clone_from(&above.routed_by);
        }
        if self.default.is_none() {
            self.default.clone_from(&above.default);
        }
        if self.canonical.is_none() {
            self.canonical.clone_from(&above.canonical);
        }
        if self.moved.is_none() {
            self.moved.clone_from(&above.moved);
        }
        self.miss = self.miss.or(above.miss);
        self.loop_mark = self.loop_mark.or(above.loop_mark);
    }

    /// Whether the level has its own `urlproxy`.
    pub fn has_urlproxy(&self) -> bool {
        self.routed_by.is_some()
    }

    /// The mode of this location's `urlproxy`.
    pub fn mode(&self) -> &Mode {
        self.routing().map_or(&Mode::Path, |(_, mode)| mode)
    }

    /// The name of the table, and the mode.
    pub fn routing(&self) -> Option<&(String, Mode)> {
        self.routed_by.as_ref().and_then(Option::as_ref)
    }

    /// The site below which tools have their own hosts.
    pub fn canonical(&self) -> Option<&Site> {
        self.canonical.as_ref().and_then(Option::as_ref)
    }

    /// Whether this location sends canonical redirects.
    #[inline(always)]
    pub fn redirects(&self) -> bool {
        self.canonical().is_some() && *self.mode() == Mode::Path
    }

    /// The domains that moved.
    pub fn moved(&self) -> &[MovedDomain] {
        self.moved.as_deref().unwrap_or_default()
    }

    /// The longest moved domain that a host is below, or equals.
    pub fn moved_from(&self, host: &[u8]) -> Option<&MovedDomain> {
        self.moved().iter().find(|moved| moved.has(host))
    }

    /// Fallback for requests that match no route.
    pub fn default_route(&self) -> &DefaultRoute {
        self.default.as_ref().unwrap_or(&DefaultRoute::Off)
    }

    /// The status of a miss.
    pub fn miss_status(&self) -> u16 {
        self.miss.unwrap_or_else(|| self.mode().default_miss())
    }
}

/// `urlproxy TABLE path|domain;`, `urlproxy TABLE subdomain DOMAIN;`, or `urlproxy off;`
pub struct Urlproxy;

impl Directive for Urlproxy {
    const NAME: &'static str = "urlproxy";
    type Conf = LocationOptions;
    const ONLY_IN_LOCATIONS: Option<&'static str> = Some(
        "\"urlproxy\" is allowed only in a location or an \"if\" inside one, \
         e.g. \"location / { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; }\"",
    );

    fn apply(conf: &mut LocationOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let invalid = |what, value: &str, example| {
            Err(DirectiveError::Invalid { directive: Self::NAME, what, value: value.into(), example })
        };
        let below = "urlproxy tools subdomain toolforge.org;";
        let routed_by = match args {
            ["off"] => None,
            [table, "path"] => Some(((*table).to_owned(), Mode::Path)),
            [table, "domain"] => Some(((*table).to_owned(), Mode::Domain)),
            [table, "subdomain", domain] => match Domain::normalize(domain) {
                Ok(name) if !name.is_wildcard() && !name.is_address() => {
                    Some(((*table).to_owned(), Mode::Subdomain(name)))
                }
                _ => return invalid("domain", domain, below),
            },
            [_, "subdomain"] => {
                let takes = "a table, \"subdomain\" and a domain";
                return Err(DirectiveError::Arguments { directive: Self::NAME, takes, example: below });
            }
            [_, mode] => return invalid("mode", mode, "urlproxy tools path;"),
            _ => {
                let (takes, example) = ("a table and a mode", "urlproxy tools path;");
                return Err(DirectiveError::Arguments { directive: Self::NAME, takes, example });
            }
        };
        set_once(&mut conf.routed_by, Self::NAME, routed_by)
    }
}

/// `urlproxy_default TOOL|URL|off;`
pub struct UrlproxyDefault;

impl Directive for UrlproxyDefault {
    const NAME: &'static str = "urlproxy_default";
    type Conf = LocationOptions;

    fn apply(conf: &mut LocationOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let example = "admin";
        let [value] = args else {
            return Err(DirectiveError::Arguments { directive: Self::NAME, takes: "a tool, a URL or off", example });
        };
        let refused = |reason: &dyn std::fmt::Display| {
            DirectiveError::Other(format!("\"{}\" {reason}, expected e.g. \"{example}\"", Self::NAME))
        };
        let route = if *value == "off" {
            DefaultRoute::Off
        } else if value.is_empty() || value.starts_with('@') || value.contains(['$', ':']) && !value.contains("://") {
            // No tool has the name of a variable, a named location or an address.
            let what = "tool, URL or \"off\"";
            return Err(DirectiveError::Invalid { directive: Self::NAME, what, value: (*value).into(), example });
        } else if value.contains("://") {
            DefaultRoute::Backend(value.parse().map_err(|e| refused(&e))?)
        } else {
            DefaultRoute::Tool(RouteKey::try_new(Kind::Tool, value.as_bytes()).map_err(|e| refused(&e))?)
        };
        set_once(&mut conf.default, Self::NAME, route)
    }
}

/// `urlproxy_canonical URL|off;`
pub struct UrlproxyCanonical;

impl Directive for UrlproxyCanonical {
    const NAME: &'static str = "urlproxy_canonical";
    type Conf = LocationOptions;

    fn apply(conf: &mut LocationOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let example = "https://toolforge.org";
        let site = match args {
            ["off"] => None,
            [url] => match url.parse() {
                Ok(site) => Some(site),
                Err(_) => {
                    let (what, value) = ("site", (*url).into());
                    return Err(DirectiveError::Invalid { directive: Self::NAME, what, value, example });
                }
            },
            _ => return Err(DirectiveError::Arguments { directive: Self::NAME, takes: "a site or off", example }),
        };
        set_once(&mut conf.canonical, Self::NAME, site)
    }
}

/// `urlproxy_miss STATUS;`
pub struct UrlproxyMiss;

impl Directive for UrlproxyMiss {
    const NAME: &'static str = "urlproxy_miss";
    type Conf = LocationOptions;

    fn apply(conf: &mut LocationOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let example = "503";
        let [value] = args else {
            return Err(DirectiveError::Arguments { directive: Self::NAME, takes: "one status", example });
        };
        // nginx reserves 494 to 499 and answers them with 400.
        let status = value.parse().ok().filter(|status| matches!(status, 400..494 | 500..=599));
        let status = status.ok_or_else(|| DirectiveError::Invalid {
            directive: Self::NAME,
            what: "status (400 to 493, 500 to 599)",
            value: (*value).into(),
            example,
        })?;
        set_once(&mut conf.miss, Self::NAME, status)
    }
}

/// `urlproxy_loop_mark named|on|off;`
pub struct UrlproxyLoopMark;

impl Directive for UrlproxyLoopMark {
    const NAME: &'static str = "urlproxy_loop_mark";
    type Conf = LocationOptions;

    fn apply(conf: &mut LocationOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let mark = match args {
            ["named"] => LoopMark::Named,
            ["on"] => LoopMark::All,
            ["off"] => LoopMark::Off,
            _ => {
                let (takes, example) = ("\"named\", \"on\" or \"off\"", "urlproxy_loop_mark named;");
                return Err(DirectiveError::Arguments { directive: Self::NAME, takes, example });
            }
        };
        set_once(&mut conf.loop_mark, Self::NAME, mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_mark_accepts_named_on_and_off() {
        let mark = |args: &[&str]| {
            let mut conf = LocationOptions::default();
            UrlproxyLoopMark::apply(&mut conf, args).map(|()| conf.loop_mark).map_err(|error| error.to_string())
        };
        assert_eq!(mark(&["named"]), Ok(Some(LoopMark::Named)));
        assert_eq!(mark(&["on"]), Ok(Some(LoopMark::All)));
        assert_eq!(mark(&["off"]), Ok(Some(LoopMark::Off)));
        let takes = r#""urlproxy_loop_mark" takes "named", "on" or "off", e.g. "urlproxy_loop_mark named;""#;
        assert_eq!(mark(&["yes"]), Err(takes.into()));
    }

    fn applied<D: Directive<Conf = LocationOptions>>(args: &[&str]) -> Result<LocationOptions, String> {
        let mut conf = LocationOptions::default();
        D::apply(&mut conf, args).map_err(|e| e.to_string())?;
        Ok(conf)
    }

    #[test]
    fn default_accepts_tool_backend_or_off() {
        let default = |value| applied::<UrlproxyDefault>(&[value]).map(|c| c.default_route().clone());
        assert_eq!(default("off"), Ok(DefaultRoute::Off));
        assert_eq!(default("admin"), Ok(DefaultRoute::Tool(RouteKey::try_new(Kind::Tool, b"admin").unwrap())));
        assert_eq!(default("http://10.0.0.1:80"), Ok(DefaultRoute::Backend("http://10.0.0.1:80".parse().unwrap())));
        assert!(default("a/b").unwrap_err().contains("expected no slash"));
        for never_found in ["$tool", "@admin", "", "10.0.0.1:80", "exec-1:8000"] {
            let error = default(never_found).unwrap_err();
            let want =
                format!(r#""urlproxy_default" invalid tool, URL or "off" "{never_found}", expected e.g. "admin""#);
            assert_eq!(error, want);
        }
        assert_eq!(default("HTTP://10.0.0.1/"), Ok(DefaultRoute::Backend("http://10.0.0.1:80".parse().unwrap())));
        assert!(default("http://10.0.0.1:").unwrap_err().contains("no port"));
    }

    #[test]
    fn miss_accepts_only_error_statuses() {
        for good in ["400", "404", "493", "500", "503", "599"] {
            assert_eq!(applied::<UrlproxyMiss>(&[good]).unwrap().miss_status().to_string(), good);
        }
        for bad in ["200", "600", "x", "-1", "+503 ", "494", "499"] {
            let error = applied::<UrlproxyMiss>(&[bad]).err().unwrap();
            assert!(error.contains("invalid status (400 to 493, 500 to 599)"), "{error}");
        }
        let error = applied::<UrlproxyMiss>(&["4", "04"]).err().unwrap();
        assert_eq!(error, r#""urlproxy_miss" takes one status, e.g. "503""#);
        for (args, want) in [(&["t", "path"][..], 503), (&["t", "subdomain", "a.org"], 503), (&["t", "domain"], 404)] {
            assert_eq!(applied::<Urlproxy>(args).unwrap().miss_status(), want, "{args:?}");
        }
    }

    #[test]
    fn subdomain_mode_requires_a_domain() {
        let mode = |args: &[&str]| applied::<Urlproxy>(args).map(|conf| conf.mode().clone());
        assert_eq!(mode(&["t", "domain"]), Ok(Mode::Domain));
        let domain = Domain::normalize("toolforge.org").unwrap();
        assert_eq!(mode(&["t", "subdomain", "Toolforge.org."]), Ok(Mode::Subdomain(domain)));
        assert!(mode(&["t", "subdomain"]).unwrap_err().contains(r#"takes a table, "subdomain" and a domain, e.g."#));
        for bad in ["*.a.org", "10.0.0.1", "[::1]", "a..org", "https://a.org"] {
            let error = mode(&["t", "subdomain", bad]).unwrap_err();
            assert!(error.starts_with(&format!(r#""urlproxy" invalid domain "{bad}", expected e.g."#)), "{error}");
        }
        assert!(mode(&["t", "domain", "a.org"]).unwrap_err().contains("takes a table and a mode"));
    }

    #[test]
    fn canonical_site_is_inherited_unless_off() {
        let above = applied::<UrlproxyCanonical>(&["https://toolforge.org"]).unwrap();
        let mut conf = LocationOptions::default();
        conf.inherit(&above, false);
        assert_eq!(conf.canonical().map(ToString::to_string).as_deref(), Some("https://toolforge.org"));
        let mut off = applied::<UrlproxyCanonical>(&["off"]).unwrap();
        off.inherit(&above, false);
        assert_eq!(off.canonical(), None);
        let error = applied::<UrlproxyCanonical>(&["toolforge.org"]).err().unwrap();
        let want = r#""urlproxy_canonical" invalid site "toolforge.org", expected e.g. "https://toolforge.org""#;
        assert_eq!(error, want);
    }

    #[test]
    fn level_inherits_unset_values() {
        let above = LocationOptions { miss: Some(404), default: Some(DefaultRoute::Off), ..LocationOptions::default() };
        let mut conf = LocationOptions { miss: Some(410), ..LocationOptions::default() };
        conf.inherit(&above, false);
        assert_eq!((conf.miss_status(), conf.default), (410, Some(DefaultRoute::Off)));
    }

    #[test]
    fn unknown_mode_is_refused() {
        let error = applied::<Urlproxy>(&["tools", "paht"]).err().unwrap();
        assert_eq!(error, r#""urlproxy" invalid mode "paht", expected e.g. "urlproxy tools path;""#);
    }
}
