//! The reason for a routing decision, in one sentence, from the steps of its lookup.

use super::explain::{Mode, PatternTest};
use crate::route::Kind;
use crate::table::RequestResult;
use crate::text::must_escape;

/// Most characters of a name or path in a sentence.
const MAX_QUOTED_CHARS: usize = 200;

/// What one step of a lookup saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Records of this kind are not all loaded.
    Unloaded(Kind),
    /// The tool's redirect changed during each read.
    ContendedRedirect,
    /// A record was looked up.
    Sought {
        /// Tool or domain.
        kind: Kind,
        /// Its name.
        name: String,
        /// What was there.
        seen: Seen,
    },
    /// A domain that replaces a moved one was looked up.
    SoughtMoved {
        /// Its name.
        name: String,
        /// What was there.
        seen: MovedSeen,
    },
}

/// What the lookup of a domain that replaces a moved one saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovedSeen {
    /// There is no such domain.
    Absent,
    /// The record changed during each read.
    Contended,
    /// It has a route.
    Found,
}

/// What the lookup of a record saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is no such record.
    Absent,
    /// The record changed during each read.
    Contended,
    /// The patterns of the record are not built yet.
    Building,
    /// These patterns were tried.
    Tried(Vec<PatternTest>),
}

/// What a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A tool.
    Tool(String),
    /// A domain.
    Domain(String),
    /// A host that is not directly below the domain of the tools.
    OtherHost {
        /// The host.
        host: String,
        /// The domain of the tools.
        domain: String,
    },
    /// No host where the mode needs one.
    NoHost(Mode),
}

/// The value of `urlproxy_default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// No fallback.
    Off,
    /// The routes of a tool.
    Tool(String),
    /// A backend.
    Backend(String),
}

/// Why a lookup of `target` with these steps has this result.
pub fn why(result: RequestResult, target: &Target, fallback: &Fallback, steps: &[Step]) -> String {
    match result {
        RequestResult::Route => last_match(steps),
        RequestResult::Default => match fallback {
            Fallback::Backend(url) => format!("{}; urlproxy_default is {}", missing(target, steps), quoted(url)),
            _ => format!("{}; urlproxy_default: {}", missing(target, steps), last_match(steps)),
        },
        RequestResult::Redirect => match target {
            Target::Tool(tool) => format!("tool {} has its own host: canonical redirect", quoted(tool)),
            _ => format!("{}; urlproxy_moved: {}", missing_domain(target, steps), moved_to(steps)),
        },
        RequestResult::Miss => match target {
            Target::NoHost(mode) => {
                let mode = if *mode == Mode::Domain { "domain" } else { "subdomain" };
                format!("the request has no host, which mode \"{mode}\" needs")
            }
            _ => format!("{}, and {}", missing(target, steps), missing_fallback(fallback, steps)),
        },
        RequestResult::Unready => unready(target, steps),
    }
}

/// The match that ended the lookup.
fn last_match(steps: &[Step]) -> String {
    let tried = steps.iter().rev().find_map(|step| match step {
        Step::Sought { kind, name, seen: Seen::Tried(tests) } => Some((*kind, name, tests.last()?)),
        _ => None,
    });
    tried.map_or_else(String::new, |(kind, name, test)| {
        let (record, pattern) = (record(kind, name), quoted(&test.pattern));
        format!("pattern {pattern} of {record} matches {}", quoted(&test.tested))
    })
}

/// The domain with a route that replaces a moved one.
fn moved_to(steps: &[Step]) -> String {
    let found = steps.iter().find_map(|step| match step {
        Step::SoughtMoved { name, seen: MovedSeen::Found } => Some(name),
        _ => None,
    });
    found.map_or_else(String::new, |name| format!("{} has a route", record(Kind::Domain, name)))
}

/// Why the target does not serve the request, and neither does a domain that replaces it.
fn missing(target: &Target, steps: &[Step]) -> String {
    let moved: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::SoughtMoved { name, .. } => Some(quoted(name)),
            _ => None,
        })
        .collect();
    let own = missing_domain(target, steps);
    if moved.is_empty() { own } else { format!("{own}; urlproxy_moved: no domain {}", moved.join(" or ")) }
}

/// Why the target itself does not serve the request.
fn missing_domain(target: &Target, steps: &[Step]) -> String {
    match target {
        Target::Tool(tool) => missing_record(Kind::Tool, tool, steps.iter().find_map(seen)),
        Target::Domain(host) => {
            let mut domains = steps.iter().filter_map(|step| match step {
                Step::Sought { kind: Kind::Domain, name, .. } => Some(quoted(name)),
                _ => None,
            });
            match (domains.next(), domains.next()) {
                (None, _) => format!("host {} cannot be a domain", quoted(host)),
                (Some(domain), None) => format!("no domain {domain}"),
                (Some(domain), Some(wildcard)) => format!("no domain {domain} or {wildcard}"),
            }
        }
        Target::OtherHost { host, domain } => format!("host {} is not directly below {}", quoted(host), quoted(domain)),
        Target::NoHost(_) => "the request has no host".into(),
    }
}

/// Why the fallback does not serve the request.
fn missing_fallback(fallback: &Fallback, steps: &[Step]) -> String {
    match fallback {
        Fallback::Off => "no urlproxy_default".into(),
        Fallback::Tool(tool) => {
            format!("for urlproxy_default {}", missing_record(Kind::Tool, tool, steps.iter().rev().find_map(seen)))
        }
        Fallback::Backend(url) => format!("urlproxy_default {} was not used", quoted(url)),
    }
}

fn seen(step: &Step) -> Option<&Seen> {
    match step {
        Step::Sought { seen, .. } => Some(seen),
        Step::Unloaded(_) | Step::ContendedRedirect | Step::SoughtMoved { .. } => None,
    }
}

fn missing_record(kind: Kind, name: &str, seen: Option<&Seen>) -> String {
    match seen {
        Some(Seen::Tried(tests)) => {
            let rest = tests.last().map_or_else(String::new, |test| format!(" {}", quoted(&test.tested)));
            format!("no pattern of {} matches{rest}", record(kind, name))
        }
        _ => format!("no {}", record(kind, name)),
    }
}

/// Why the route is not known.
fn unready(target: &Target, steps: &[Step]) -> String {
    let last = steps.iter().rev().find_map(|step| match step {
        Step::Sought { kind, name, seen: Seen::Contended } => {
            Some(format!("the record of {} changed during each read", record(*kind, name)))
        }
        Step::Sought { kind, name, seen: Seen::Building } => {
            Some(format!("the patterns of {} are still being built", record(*kind, name)))
        }
        Step::SoughtMoved { name, seen: MovedSeen::Contended } => {
            Some(format!("the record of {} changed during each read", record(Kind::Domain, name)))
        }
        Step::ContendedRedirect => Some("the redirect of the tool changed during each read".into()),
        Step::Sought { .. } | Step::SoughtMoved { .. } | Step::Unloaded(_) => None,
    });
    let unloaded = || {
        let kind = steps.iter().find_map(|step| match step {
            Step::Unloaded(kind) => Some(kind.plural()),
            _ => None,
        })?;
        Some(format!("{}, but the {kind} are not all loaded yet", missing(target, steps)))
    };
    last.or_else(unloaded).unwrap_or_else(|| "the table is not there yet".into())
}

fn record(kind: Kind, name: &str) -> String {
    let kind = if kind == Kind::Domain { "domain" } else { "tool" };
    format!("{kind} {}", quoted(name))
}

/// The text in double quotes, shortened; nothing in it ends the quotes, and what a terminal may act on is escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    let mut chars = text.chars();
    for c in chars.by_ref().take(MAX_QUOTED_CHARS) {
        match c {
            '"' => quoted.push_str("\\\""),
            c if must_escape(c) => quoted.extend(c.escape_unicode()),
            c => quoted.push(c),
        }
    }
    quoted.push_str(if chars.next().is_some() { "…\"" } else { "\"" });
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(kind: Kind, name: &str, seen: Seen) -> Step {
        Step::Sought { kind, name: name.into(), seen }
    }

    /// Patterns of a record, of which the last one matches or not.
    fn tried(record: &str, patterns: &[&str], rest: &str, matches: bool) -> Seen {
        let last = patterns.len() - 1;
        let test = |(at, pattern): (usize, &&str)| {
            PatternTest::new(record, pattern.as_bytes(), rest.as_bytes(), matches && at == last)
        };
        Seen::Tried(patterns.iter().enumerate().map(test).collect())
    }

    #[test]
    fn each_result_has_its_reason() {
        let tool = || Target::Tool("hello".into());
        let domain = || Target::Domain("www.example.org".into());
        let other = Target::OtherHost { host: "a.b.org".into(), domain: "b.b.org".into() };
        let admin = Fallback::Tool("admin".into());
        let backend = Fallback::Backend("http://10.0.0.1:80".into());
        let absent = |name| sought(Kind::Tool, name, Seen::Absent);
        let matching = tried("hello", &["/a", ".*"], "/x", true);
        let failing = || tried("hello", &["/a", "/b"], "/x", false);
        let wild = [
            sought(Kind::Domain, "www.example.org", Seen::Absent),
            sought(Kind::Domain, "*.example.org", Seen::Absent),
        ];
        let found = tried("*.example.org", &[".*"], "/", true);
        let found = [wild[0].clone(), sought(Kind::Domain, "*.example.org", found)];
        let by_default = |of| [of, sought(Kind::Tool, "admin", tried("admin", &[".*"], "/hello/x", true))];
        let no_default = |seen| [absent("hello"), sought(Kind::Tool, "admin", seen)];
        let moved = |seen: &[MovedSeen]| {
            let names = ["www.example.com", "*.example.com"].into_iter().zip(seen);
            let sought = names.map(|(name, seen)| Step::SoughtMoved { name: name.into(), seen: *seen });
            wild.iter().cloned().chain(sought).collect::<Vec<_>>()
        };
        let failing_default = no_default(tried("admin", &["/a"], "/hello/x", false));
        use RequestResult::{Default, Miss, Redirect, Route, Unready};
        let off = Fallback::Off;
        for (result, target, fallback, steps, want) in [
            (
                Route,
                tool(),
                &off,
                &[sought(Kind::Tool, "hello", matching)][..],
                r#"pattern ".*" of tool "hello" matches "/x""#,
            ),
            (Route, domain(), &off, &found, r#"pattern ".*" of domain "*.example.org" matches "/""#),
            (
                Default,
                tool(),
                &admin,
                &by_default(absent("hello")),
                r#"no tool "hello"; urlproxy_default: pattern ".*" of tool "admin" matches "/hello/x""#,
            ),
            (
                Default,
                tool(),
                &backend,
                &[sought(Kind::Tool, "hello", failing())],
                r#"no pattern of tool "hello" matches "/x"; urlproxy_default is "http://10.0.0.1:80""#,
            ),
            (Redirect, tool(), &off, &[], r#"tool "hello" has its own host: canonical redirect"#),
            (
                Redirect,
                domain(),
                &off,
                &moved(&[MovedSeen::Absent, MovedSeen::Found]),
                r#"no domain "www.example.org" or "*.example.org"; urlproxy_moved: domain "*.example.com" has a route"#,
            ),
            (
                Miss,
                domain(),
                &off,
                &moved(&[MovedSeen::Absent; 2]),
                r#"no domain "www.example.org" or "*.example.org"; urlproxy_moved: no domain "www.example.com" or "*.example.com", and no urlproxy_default"#,
            ),
            (
                Unready,
                domain(),
                &off,
                &moved(&[MovedSeen::Contended]),
                r#"the record of domain "www.example.com" changed during each read"#,
            ),
            (Miss, tool(), &off, &[absent("hello")], r#"no tool "hello", and no urlproxy_default"#),
            (
                Miss,
                tool(),
                &off,
                &[sought(Kind::Tool, "hello", failing())],
                r#"no pattern of tool "hello" matches "/x", and no urlproxy_default"#,
            ),
            (
                Miss,
                tool(),
                &admin,
                &no_default(Seen::Absent),
                r#"no tool "hello", and for urlproxy_default no tool "admin""#,
            ),
            (
                Miss,
                tool(),
                &admin,
                &failing_default,
                r#"no tool "hello", and for urlproxy_default no pattern of tool "admin" matches "/hello/x""#,
            ),
            (Miss, domain(), &off, &wild, r#"no domain "www.example.org" or "*.example.org", and no urlproxy_default"#),
            (Miss, domain(), &off, &wild[..1], r#"no domain "www.example.org", and no urlproxy_default"#),
            (
                Miss,
                Target::Domain("*.example.org".into()),
                &off,
                &[],
                r#"host "*.example.org" cannot be a domain, and no urlproxy_default"#,
            ),
            (Miss, other, &off, &[], r#"host "a.b.org" is not directly below "b.b.org", and no urlproxy_default"#),
            (Miss, Target::NoHost(Mode::Domain), &off, &[], r#"the request has no host, which mode "domain" needs"#),
            (
                Unready,
                tool(),
                &off,
                &[Step::Unloaded(Kind::Tool), absent("hello")],
                r#"no tool "hello", but the tools are not all loaded yet"#,
            ),
            (
                Unready,
                tool(),
                &off,
                &[Step::Unloaded(Kind::Redirect), absent("hello")],
                r#"no tool "hello", but the redirects are not all loaded yet"#,
            ),
            (
                Unready,
                tool(),
                &admin,
                &no_default(Seen::Contended),
                r#"the record of tool "admin" changed during each read"#,
            ),
            (
                Unready,
                tool(),
                &off,
                &[sought(Kind::Tool, "hello", Seen::Building)],
                r#"the patterns of tool "hello" are still being built"#,
            ),
            (Unready, tool(), &off, &[Step::ContendedRedirect], "the redirect of the tool changed during each read"),
            (Unready, tool(), &off, &[], "the table is not there yet"),
        ] {
            assert_eq!(why(result, &target, fallback, steps), want);
        }
    }

    #[test]
    fn hostile_names_stay_within_their_quotes() {
        assert_eq!(quoted("a\"b\\"), r#""a\"b\""#);
        assert_eq!(quoted("\u{1b}[2J\u{202e}x\u{85}\u{7f}"), r#""\u{1b}[2J\u{202e}x\u{85}\u{7f}""#);
        assert_eq!(quoted(&"é".repeat(300)), format!("\"{}…\"", "é".repeat(200)));
        assert_eq!(quoted(&"é".repeat(200)), format!("\"{}\"", "é".repeat(200)));
    }
}
