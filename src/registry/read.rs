//! Validates a tool's routes: rejects each invalid one alone, with a reason.

use super::admission::{Admission, NotAllowed};
use super::schema::split_key;
use crate::route::{
    Backend, BackendError, KeyError, Kind, MAX_BACKENDS, MAX_ROUTES, Pattern, PatternError, Route, sort_routes,
};

/// Fields, or members, of one key that are read; the rest of a longer hash or set is ignored.
const MAX_FIELDS: usize = 256;
/// Rejections of one tool that are reported one by one.
const MAX_REJECTIONS: usize = 40;
/// Longest text of a tenant in a rejection, in bytes.
const SHOWN_BYTES: usize = 120;

/// The unvalidated value of `prefix:<tool>` or `frontend:<domain>`.
#[derive(Debug)]
pub enum RawRoutes<'a> {
    /// A hash: pattern and backend URL.
    Hash(Vec<(&'a [u8], &'a [u8])>),
    /// A set of backend URLs, for every path.
    Set(Vec<&'a [u8]>),
}

/// A tool's valid routes, in the order in which they are tried, and the rejected ones.
#[derive(Debug, Default)]
pub struct Admitted {
    /// May be more than a tool may have: the first [`MAX_ROUTES`] that fit are served.
    pub routes: Vec<Route>,
    /// Rejected routes, and parts of them.
    pub rejected: Vec<Rejection>,
}

impl Admitted {
    /// Truncates the rejections to those that are reported one by one, and adds the number of the others.
    pub fn summarize(&mut self, key: &[u8]) {
        let count = self.rejected.len();
        if count > MAX_REJECTIONS {
            self.rejected.truncate(MAX_REJECTIONS);
            self.rejected.push(Rejection::of(key, None, RejectionReason::AndMore(count - MAX_REJECTIONS)));
        }
    }
}

/// A rejected key, field or member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, {}", self.subject())]
pub struct Rejection {
    /// The key in Redis.
    pub key: Box<[u8]>,
    /// The field of the hash; `None` for the whole key, or a member of a set.
    pub pattern: Option<Box<[u8]>>,
    /// The text of the log line.
    pub reason: RejectionReason,
}

/// Why a route is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectionReason {
    /// The key contains no valid tool or domain name.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The field is not a valid pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The value is not a valid backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The operator does not allow the backend.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The field or the value is not UTF-8.
    #[error("{0:?} is not UTF-8")]
    NotUtf8(String),
    /// More patterns than a tool may have.
    #[error("the tool has {0} patterns, expected at most {MAX_ROUTES}; those tried last are rejected")]
    TooManyRoutes(usize),
    /// More backends than a route may have.
    #[error("there are {0} backends, expected at most {MAX_BACKENDS}")]
    TooManyBackends(usize),
    /// The key's routes exceed its share of the table.
    #[error("the routes exceed their share of the table, {0} bytes in this zone; those tried last are rejected")]
    NoShare(usize),
    /// The automata of earlier patterns used up the tool's budget.
    #[error("the patterns tried before it are too costly to build")]
    TooCostly,
    /// The key is costly to build, and too many such keys wait, or it has waited too long to keep its old record.
    #[error("the patterns wait to be built; there is no route meanwhile")]
    Waiting,
    /// A bug in this program.
    #[error("the patterns could not be read; please report this bug")]
    Unreadable,
    /// More rejections of one key than are reported one by one.
    #[error("{0} more under this key are rejected")]
    AndMore(usize),
    /// The key's value is larger than any tool's routes can be.
    #[error("the key is too large to be read")]
    TooLarge,
    /// The key has another type than its kind of key.
    #[error("the key is {0}")]
    WrongType(&'static str),
    /// The Redis user may not read the key.
    #[error("the Redis user may not read the key")]
    Hidden,
    /// Valid, but the table has no room; the reader's reason.
    #[error("{0}")]
    NoRoom(String),
}

impl RejectionReason {
    /// A short name for metrics; several reasons share some.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Key(_) => "name",
            Self::Pattern(_) | Self::Unreadable => "pattern",
            Self::Backend(_) => "backend",
            Self::NotAllowed(_) => "not_allowed",
            Self::NotUtf8(_) => "not_utf8",
            Self::TooManyRoutes(_) | Self::TooManyBackends(_) | Self::AndMore(_) => "too_many",
            Self::NoShare(_) => "no_share",
            Self::TooCostly => "too_costly",
            Self::Waiting => "waiting",
            Self::TooLarge => "too_large",
            Self::WrongType(_) => "wrong_type",
            Self::Hidden => "hidden",
            Self::NoRoom(_) => "no_room",
        }
    }
}

impl Rejection {
    /// A rejection of a field, or of a whole key.
    pub fn of(key: &[u8], pattern: Option<&[u8]>, reason: RejectionReason) -> Self {
        let shown = |pattern: &[u8]| pattern.get(..SHOWN_BYTES).unwrap_or(pattern).into();
        Self { key: key.into(), pattern: pattern.map(shown), reason }
    }

    fn subject(&self) -> String {
        let (kind, name) = split_key(&self.key).unwrap_or((Kind::Tool, &self.key));
        let subject = format!("{}=\"{}\"", kind.as_str(), name.escape_ascii());
        match &self.pattern {
            Some(pattern) => format!("{subject} pattern=\"{}\"", pattern.escape_ascii()),
            None => subject,
        }
    }
}

/// Parses and checks the value of a key: a tool's routes, or the backends of a tool or a domain. Builds no automata.
pub fn admit(key: &[u8], raw: &RawRoutes<'_>, admission: &Admission) -> Admitted {
    let mut admitted = Admitted::default();
    let rejection = |pattern: Option<&[u8]>, reason| Rejection::of(key, pattern, reason);
    match raw {
        RawRoutes::Hash(fields) => {
            let total = fields.len();
            let mut fields = fields.clone();
            // Redis returns them in any order.
            fields.sort_unstable();
            fields.truncate(MAX_FIELDS);
            for (field, value) in fields {
                match parse_route(field, value, admission) {
                    Ok(route) => admitted.routes.push(route),
                    Err(reason) => admitted.rejected.push(rejection(Some(field), reason)),
                }
            }
            sort_routes(&mut admitted.routes);
            if total > MAX_ROUTES {
                admitted.rejected.push(rejection(None, RejectionReason::TooManyRoutes(total)));
            }
        }
        RawRoutes::Set(members) => {
            let total = members.len();
            let mut members = members.clone();
            members.sort_unstable();
            members.truncate(MAX_FIELDS);
            let mut backends = Vec::new();
            for member in members {
                match admit_backend(member, admission) {
                    Ok(backend) => backends.push(backend),
                    Err(reason) => admitted.rejected.push(rejection(None, reason)),
                }
            }
            backends.sort_unstable();
            backends.dedup();
            // In a truncated set the number of valid members is unknown.
            let count = if total > MAX_FIELDS { total } else { backends.len() };
            if count > MAX_BACKENDS {
                admitted.rejected.push(rejection(None, RejectionReason::TooManyBackends(count)));
                backends.truncate(MAX_BACKENDS);
            }
            if !backends.is_empty() {
                admitted.routes.push(Route { pattern: Pattern::any(), backends });
            }
        }
    }
    admitted
}

fn parse_route(field: &[u8], value: &[u8], admission: &Admission) -> Result<Route, RejectionReason> {
    let pattern = Pattern::analyze(text(field)?)?;
    Ok(Route { pattern, backends: vec![admit_backend(value, admission)?] })
}

fn admit_backend(value: &[u8], admission: &Admission) -> Result<Backend, RejectionReason> {
    let backend: Backend = text(value)?.parse()?;
    admission.check(&backend)?;
    Ok(backend)
}

fn text(bytes: &[u8]) -> Result<&str, RejectionReason> {
    let shown = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|_| RejectionReason::NotUtf8(shown.escape_ascii().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit_hash(fields: &[(&str, &str)]) -> Admitted {
        let fields = fields.iter().map(|(f, v)| (f.as_bytes(), v.as_bytes())).collect();
        summarized(b"prefix:hello", &RawRoutes::Hash(fields))
    }

    fn summarized(key: &[u8], raw: &RawRoutes<'_>) -> Admitted {
        let mut admitted = admit(key, raw, &Admission::default());
        admitted.summarize(key);
        admitted
    }

    #[test]
    fn invalid_fields_are_rejected_alone_with_a_reason() {
        let admitted = admit_hash(&[(".*", "http://10.0.0.1:1"), ("(", "http://10.0.0.1:2"), ("/x", "10.0.0.1:3")]);
        let kept: Vec<_> = admitted.routes.iter().map(|r| r.pattern.as_str()).collect();
        assert_eq!(kept, [".*"]);
        let reasons: Vec<_> = admitted.rejected.iter().map(ToString::to_string).collect();
        assert_eq!(
            reasons,
            [
                r#"pattern "(" does not compile: unclosed group, tool="hello" pattern="(""#,
                r#"backend "10.0.0.1:3" has no scheme, expected http://host:port or https://host:port, tool="hello" pattern="/x""#,
            ]
        );
    }

    #[test]
    fn cost_of_a_hash_is_bounded() {
        let patterns: Vec<_> = (0..50_000).map(|i| format!("[{i}]+(")).collect();
        let fields: Vec<_> = patterns.iter().map(|p| (p.as_str(), "http://10.0.0.1:1")).collect();
        let admitted = admit_hash(&fields);
        assert_eq!((admitted.routes.len(), admitted.rejected.len()), (0, MAX_REJECTIONS + 1));
    }

    #[test]
    fn cost_of_a_set_is_bounded() {
        let members: Vec<_> = (0..50_000).map(|i| format!("nonsense {i}")).collect();
        let members = members.iter().map(|member| member.as_bytes()).collect();
        let admitted = summarized(b"frontend:a.org", &RawRoutes::Set(members));
        assert_eq!((admitted.routes.len(), admitted.rejected.len()), (0, MAX_REJECTIONS + 1));
        let last = admitted.rejected.last().unwrap().to_string();
        // All members that were read, and one rejection for too many backends.
        assert!(last.starts_with(&format!("{} more under this key", MAX_FIELDS + 1 - MAX_REJECTIONS)), "{last}");
    }

    #[test]
    fn set_is_one_route_for_all_paths() {
        let urls: Vec<_> = (0..=MAX_BACKENDS).rev().map(|i| format!("http://10.0.0.1:{}", 1000 + i)).collect();
        let members = urls.iter().map(|u| u.as_bytes()).chain([&b"nonsense"[..], urls[0].as_bytes()]).collect();
        let admitted = summarized(b"frontend:a.org", &RawRoutes::Set(members));
        assert_eq!(admitted.routes.len(), 1);
        assert_eq!(admitted.routes[0].pattern.as_str(), ".*");
        assert_eq!(admitted.routes[0].backends.len(), MAX_BACKENDS);
        assert_eq!(admitted.routes[0].backends[0].to_string(), "http://10.0.0.1:1000");
        assert_eq!(admitted.rejected.len(), 2);
        assert!(admitted.rejected[0].to_string().ends_with(r#", domain="a.org""#), "{}", admitted.rejected[0]);
    }

    #[test]
    fn of_a_larger_key_the_first_entries_are_read() {
        let hash = |count| {
            let patterns: Vec<_> = (1000..1000 + count).rev().map(|i| format!("/{i}")).collect();
            let admitted = admit_hash(&patterns.iter().map(|p| (p.as_str(), "http://10.0.0.1:1")).collect::<Vec<_>>());
            (admitted.routes.len(), admitted.routes.last().map(|route| route.pattern.as_str().to_owned()))
        };
        assert_eq!(hash(MAX_FIELDS), (MAX_FIELDS, Some(format!("/{}", 999 + MAX_FIELDS))));
        assert_eq!(hash(MAX_FIELDS + 1), hash(MAX_FIELDS));
        // The last member in byte order is a valid backend.
        let set = |invalid| {
            let mut members: Vec<_> = (0..invalid).map(|i| format!("http://10.0.0.1:{i}/x")).collect();
            members.push("http://10.0.0.2:1".into());
            let members = members.iter().map(|member| member.as_bytes()).collect();
            let admitted = summarized(b"frontend:a.org", &RawRoutes::Set(members));
            (admitted.routes.len(), admitted.rejected.last().unwrap().reason.clone())
        };
        let more = |count| RejectionReason::AndMore(count - MAX_REJECTIONS);
        assert_eq!(set(MAX_FIELDS - 1), (1, more(MAX_FIELDS - 1)));
        assert_eq!(set(MAX_FIELDS), (0, more(MAX_FIELDS + 1)), "with one for too many backends");
    }

    #[test]
    fn only_rejections_beyond_the_limit_are_summarized() {
        let rejections = |count: usize| {
            let patterns: Vec<_> = (0..count).map(|i| format!("({i}")).collect();
            let admitted = admit_hash(&patterns.iter().map(|p| (p.as_str(), "http://10.0.0.1:1")).collect::<Vec<_>>());
            let summary =
                admitted.rejected.iter().filter(|one| matches!(one.reason, RejectionReason::AndMore(_))).count();
            (admitted.rejected.len(), summary)
        };
        assert_eq!(rejections(30), (30, 0));
        // More patterns than a tool may have are one rejection more.
        assert_eq!(rejections(MAX_REJECTIONS - 1), (MAX_REJECTIONS, 0));
        assert_eq!(rejections(MAX_REJECTIONS), (MAX_REJECTIONS + 1, 1));
    }
}
