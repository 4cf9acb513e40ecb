//! Where the configuration routes: server names and locations, and how well they match a request.

use std::fmt;

/// A name of `server_name`, as written after nginx has made it lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// A name, or `*.example.org`, `.example.org` or `www.example.*`.
    Text(String),
    /// A regular expression, without its tilde.
    Regex(String),
}

/// How well a server matches a host; a greater one is preferred by nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerMatch {
    /// No name matches.
    No,
    /// No name matches, but it is the default server of a listening socket.
    Default,
    /// Only a regular expression may match.
    Unknown,
    /// A wildcard at the end, of this length.
    Tail(usize),
    /// A wildcard at the beginning, of this length.
    Head(usize),
    /// The name itself.
    Exact,
}

impl ServerName {
    /// How well the name matches a normalized host, by the rules of nginx's `server_name`.
    pub fn match_host(&self, host: &str) -> ServerMatch {
        let name = match self {
            Self::Text(name) => name.as_str(),
            Self::Regex(_) => return ServerMatch::Unknown,
        };
        let is_below = |domain: &str| host.len() > domain.len() && host.ends_with(domain);
        if name == host || name.strip_prefix('.').is_some_and(|domain| domain == host) {
            ServerMatch::Exact
        } else if let Some(domain) = name.strip_prefix('*').filter(|domain| domain.starts_with('.')) {
            if is_below(domain) { ServerMatch::Head(domain.len()) } else { ServerMatch::No }
        } else if name.starts_with('.') {
            if is_below(name) { ServerMatch::Head(name.len()) } else { ServerMatch::No }
        } else if let Some(start) = name.strip_suffix('*').filter(|start| start.ends_with('.')) {
            let is_longer = host.len() > start.len() && host.starts_with(start);
            if is_longer { ServerMatch::Tail(start.len()) } else { ServerMatch::No }
        } else {
            ServerMatch::No
        }
    }
}

impl ServerMatch {
    /// The best match of a server's names.
    pub fn best(names: &[ServerName], host: &str) -> Self {
        names.iter().map(|name| name.match_host(host)).max().unwrap_or(Self::No)
    }

    /// Whether it matches, if that is known.
    pub fn is_match(self) -> Option<bool> {
        match self {
            Self::No => Some(false),
            Self::Default | Self::Unknown => None,
            Self::Tail(_) | Self::Head(_) | Self::Exact => Some(true),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(name) => f.write_str(name),
            Self::Regex(pattern) => write!(f, "~{pattern}"),
        }
    }
}

/// The name of a `location`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationName {
    /// A prefix of the path.
    Prefix(String),
    /// The whole path: `= /up`.
    Exact(String),
    /// A regular expression.
    Regex(String),
    /// `@name`, which only internal redirects reach.
    Named(String),
}

/// How well a location matches a path; a greater one is preferred by nginx, except for regular expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LocationMatch {
    /// It does not match.
    No,
    /// It is a regular expression.
    Unknown,
    /// A prefix of this length.
    Prefix(usize),
    /// The path itself.
    Exact,
}

impl LocationName {
    /// How well the location matches a decoded path.
    pub fn match_path(&self, path: &[u8]) -> LocationMatch {
        match self {
            Self::Prefix(prefix) if path.starts_with(prefix.as_bytes()) => LocationMatch::Prefix(prefix.len()),
            Self::Exact(whole) if path == whole.as_bytes() => LocationMatch::Exact,
            Self::Regex(_) => LocationMatch::Unknown,
            Self::Prefix(_) | Self::Exact(_) | Self::Named(_) => LocationMatch::No,
        }
    }
}

impl LocationMatch {
    /// Whether it matches, if that is known.
    pub fn is_match(self) -> Option<bool> {
        match self {
            Self::No => Some(false),
            Self::Unknown => None,
            Self::Prefix(_) | Self::Exact => Some(true),
        }
    }
}

impl fmt::Display for LocationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(name) | Self::Named(name) => f.write_str(name),
            Self::Exact(name) => write!(f, "= {name}"),
            Self::Regex(pattern) => write!(f, "~ {pattern}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_match_as_in_nginx() {
        use ServerMatch::{Exact, Head, No, Tail, Unknown};
        for (name, host, want) in [
            ("tools.example.org", "tools.example.org", Exact),
            ("tools.example.org", "example.org", No),
            ("*.example.org", "a.example.org", Head(12)),
            ("*.example.org", "a.b.example.org", Head(12)),
            ("*.example.org", "example.org", No),
            ("*.example.org", "aexample.org", No),
            (".example.org", "example.org", Exact),
            (".example.org", "a.example.org", Head(12)),
            (".example.org", "aexample.org", No),
            ("www.example.*", "www.example.org", Tail(12)),
            ("www.example.*", "www.example.", No),
            ("www.example.*", "www.examples.org", No),
            ("_", "tools.example.org", No),
            ("", "", Exact),
            ("", "a", No),
        ] {
            assert_eq!(ServerName::Text(name.into()).match_host(host), want, "{name} {host}");
        }
        assert_eq!(ServerName::Regex("^a".into()).match_host("a"), Unknown);
    }

    #[test]
    fn the_match_that_nginx_prefers_is_the_greatest() {
        let text = |name: &str| ServerName::Text(name.into());
        let host = "www.tools.example.org";
        let ascending = [
            vec![],
            vec![ServerName::Regex("^www".into()), text("_")],
            vec![text("www.*")],
            vec![text("www.tools.*"), text("_")],
            vec![text("*.example.org")],
            vec![text(".tools.example.org")],
            vec![text("_"), text("www.tools.example.org"), text("*.example.org")],
        ];
        assert!(ascending.is_sorted_by(|a, b| ServerMatch::best(a, host) < ServerMatch::best(b, host)));
        assert_eq!(ascending[1][0].to_string(), "~^www");
        let known: Vec<_> = ascending.iter().map(|names| ServerMatch::best(names, host).is_match()).collect();
        assert_eq!(known[..3], [Some(false), None, Some(true)]);
    }

    #[test]
    fn longer_prefixes_and_exact_locations_come_first() {
        let names = [
            LocationName::Named("@tools".into()),
            LocationName::Regex("^/t".into()),
            LocationName::Prefix("/".into()),
            LocationName::Prefix("/tools/".into()),
            LocationName::Exact("/tools/x".into()),
        ];
        assert!(names.is_sorted_by(|a, b| a.match_path(b"/tools/x") < b.match_path(b"/tools/x")));
        let known: Vec<_> = names.iter().map(|name| name.match_path(b"/tools/y").is_match()).collect();
        assert_eq!(known, [Some(false), None, Some(true), Some(true), Some(false)]);
        let shown: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["@tools", "~ ^/t", "/", "/tools/", "= /tools/x"]);
    }
}
