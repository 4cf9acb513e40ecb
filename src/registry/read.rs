//! Reading a tool's routes: what is good becomes routes, what isn't is set aside alone, with a reason.

use super::admission::{Admission, NotAllowed};
use crate::route::{
    Backend, BackendError, MAX_BACKENDS, MAX_ROUTES, Pattern, PatternError, Route, ToolName, ToolNameError, sort_routes,
};

/// The value of `prefix:<tool>` as it came from Redis.
#[derive(Debug)]
pub enum RawRoutes<'a> {
    /// A hash: pattern and backend URL.
    Hash(Vec<(&'a [u8], &'a [u8])>),
    /// A set of backend URLs, for every path.
    Set(Vec<&'a [u8]>),
}

/// A tool's routes in the order in which they are tried, and what was set aside.
#[derive(Debug, Default)]
pub struct Admitted {
    /// At most [`MAX_ROUTES`].
    pub routes: Vec<Route>,
    /// Everything else.
    pub rejected: Vec<Rejection>,
}

/// Something in Redis that is not routed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, {}", self.subject())]
pub struct Rejection {
    /// The tool, as its key names it.
    pub tool: Box<[u8]>,
    /// The field of the hash; `None` when the whole key, or a member of a set, is meant.
    pub pattern: Option<Box<[u8]>>,
    /// Why.
    pub reason: RejectionReason,
}

/// Why something is not routed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectionReason {
    /// The key names no tool.
    #[error(transparent)]
    Tool(#[from] ToolNameError),
    /// The field is no pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The value is no backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The operator does not allow the destination.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The field or the value is not UTF-8.
    #[error("{0:?} is not UTF-8")]
    NotUtf8(String),
    /// More patterns than a tool may have; these would be tried last.
    #[error("the tool has {0} patterns, expected at most {MAX_ROUTES}")]
    TooManyRoutes(usize),
    /// More backends than a route may have.
    #[error("the tool has {0} backends, expected at most {MAX_BACKENDS}")]
    TooManyBackends(usize),
    /// The key is neither a hash nor a set.
    #[error("the key is neither a hash nor a set")]
    WrongType,
    /// Good, but the reader has no room for it; it said why.
    #[error("{0}")]
    NoRoom(String),
}

impl Rejection {
    fn subject(&self) -> String {
        let tool = self.tool.escape_ascii();
        match &self.pattern {
            Some(pattern) => {
                let shown = pattern.get(..120).unwrap_or(pattern);
                format!("tool=\"{tool}\" pattern=\"{}\"", shown.escape_ascii())
            }
            None => format!("tool=\"{tool}\""),
        }
    }
}

/// Parses and checks everything a tool has in Redis.
pub fn admit(tool: &ToolName, raw: &RawRoutes<'_>, admission: &Admission) -> Admitted {
    let mut admitted = Admitted::default();
    let rejection = |pattern: Option<&[u8]>, reason| Rejection {
        tool: tool.as_bytes().into(),
        pattern: pattern.map(Into::into),
        reason,
    };
    match raw {
        RawRoutes::Hash(fields) => {
            for &(field, value) in fields {
                match admit_route(field, value, admission) {
                    Ok(route) => admitted.routes.push(route),
                    Err(reason) => admitted.rejected.push(rejection(Some(field), reason)),
                }
            }
            sort_routes(&mut admitted.routes);
            let count = admitted.routes.len();
            for route in admitted.routes.drain(count.min(MAX_ROUTES)..) {
                let pattern = route.pattern.as_str().as_bytes();
                admitted.rejected.push(rejection(Some(pattern), RejectionReason::TooManyRoutes(count)));
            }
        }
        RawRoutes::Set(members) => {
            let mut backends = Vec::new();
            for &member in members {
                match admit_backend(member, admission) {
                    Ok(backend) => backends.push(backend),
                    Err(reason) => admitted.rejected.push(rejection(None, reason)),
                }
            }
            backends.sort_unstable();
            backends.dedup();
            if backends.len() > MAX_BACKENDS {
                admitted.rejected.push(rejection(None, RejectionReason::TooManyBackends(backends.len())));
                backends.truncate(MAX_BACKENDS);
            }
            if !backends.is_empty() {
                admitted.routes.push(Route { pattern: Pattern::any(), backends });
            }
        }
    }
    admitted
}

fn admit_route(field: &[u8], value: &[u8], admission: &Admission) -> Result<Route, RejectionReason> {
    let pattern = Pattern::try_new(text(field)?)?;
    Ok(Route { pattern, backends: vec![admit_backend(value, admission)?] })
}

fn admit_backend(value: &[u8], admission: &Admission) -> Result<Backend, RejectionReason> {
    let backend: Backend = text(value)?.parse()?;
    admission.check(&backend)?;
    Ok(backend)
}

fn text(bytes: &[u8]) -> Result<&str, RejectionReason> {
    let shown = bytes.get(..120).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|_| RejectionReason::NotUtf8(shown.escape_ascii().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit_hash(fields: &[(&str, &str)]) -> Admitted {
        let fields = fields.iter().map(|(f, v)| (f.as_bytes(), v.as_bytes())).collect();
        admit(&ToolName::try_new(b"hello").unwrap(), &RawRoutes::Hash(fields), &Admission::default())
    }

    #[test]
    fn a_bad_field_is_set_aside_alone_and_says_why() {
        let admitted = admit_hash(&[(".*", "http://10.0.0.1:1"), ("(", "http://10.0.0.1:2"), ("/x", "10.0.0.1:3")]);
        let kept: Vec<_> = admitted.routes.iter().map(|r| r.pattern.as_str()).collect();
        assert_eq!(kept, [".*"]);
        let said: Vec<_> = admitted.rejected.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                r#"pattern "(" does not compile: unclosed group, tool="hello" pattern="(""#,
                r#"backend "10.0.0.1:3" has no scheme, expected http://host:port or https://host:port, tool="hello" pattern="/x""#,
            ]
        );
    }

    #[test]
    fn the_limit_of_routes_keeps_those_tried_first() {
        let patterns: Vec<_> = (0..=MAX_ROUTES).map(|i| format!("/{}", "x".repeat(i + 1))).collect();
        let fields: Vec<_> = patterns.iter().map(|p| (p.as_str(), "http://10.0.0.1:1")).collect();
        assert!(admit_hash(&fields[..MAX_ROUTES]).rejected.is_empty());
        let admitted = admit_hash(&fields);
        assert_eq!(admitted.routes.len(), MAX_ROUTES);
        assert_eq!(admitted.rejected[0].pattern.as_deref(), Some(&b"/x"[..]));
        assert_eq!(admitted.rejected[0].reason, RejectionReason::TooManyRoutes(MAX_ROUTES + 1));
    }

    #[test]
    fn a_set_is_one_route_for_every_path() {
        let urls: Vec<_> = (0..=MAX_BACKENDS).rev().map(|i| format!("http://10.0.0.1:{}", 1000 + i)).collect();
        let members = urls.iter().map(|u| u.as_bytes()).chain([&b"nonsense"[..], urls[0].as_bytes()]).collect();
        let tool = ToolName::try_new(b"hello").unwrap();
        let admitted = admit(&tool, &RawRoutes::Set(members), &Admission::default());
        assert_eq!(admitted.routes.len(), 1);
        assert_eq!(admitted.routes[0].pattern.as_str(), ".*");
        assert_eq!(admitted.routes[0].backends.len(), MAX_BACKENDS);
        assert_eq!(admitted.routes[0].backends[0].to_string(), "http://10.0.0.1:1000");
        assert_eq!(admitted.rejected.len(), 2);
    }
}
