//! The document of `/api/explain`: for a host and a URI, the decision of each location that routes.

use serde::Serialize;

/// Most bytes of the text that a pattern was searched in.
const MAX_TESTED_BYTES: usize = 512;

/// The decisions for one host and URI.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The host as asked for.
    pub host: String,
    /// The URI as asked for.
    pub uri: String,
    /// The table.
    pub table: String,
    /// One decision per location with `urlproxy` for this table, best match first.
    pub decisions: Vec<Decision>,
    /// Number of further locations, which match worse.
    pub omitted: usize,
}

/// What one location does with the request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// The names of the server block; a regular expression begins with `~`.
    pub server: Vec<String>,
    /// The location; an exact one begins with `= `, a regular expression with `~ `.
    pub location: String,
    /// Whether a server name matches the host; null if only a regular expression may, and for a default server.
    pub server_matches: Option<bool>,
    /// Whether the location matches the path; null for a regular expression.
    pub location_matches: Option<bool>,
    /// The part of the request that selects tool or domain.
    pub mode: Mode,
    /// The domain of subdomain mode.
    pub domain: Option<String>,
    /// Host and path as the lookup sees them.
    pub normalized: Normalized,
    /// The result, as in `$urlproxy_result`.
    pub result: Outcome,
    /// The reason for the result, in one sentence.
    pub why: String,
    /// The status that urlproxy itself answers with; null if the request is passed to a backend.
    pub status: Option<u16>,
    /// The `Location` of a redirect.
    pub redirect: Option<String>,
    /// The tool, as in `$urlproxy_tool`; null if the request names none.
    pub tool: Option<String>,
    /// The tool or domain with the matching route.
    pub record: Option<String>,
    /// The patterns tried, in order; at most the last one matches.
    pub patterns: Vec<PatternTest>,
    /// The backends of the matching route.
    pub backends: Vec<BackendState>,
    /// Who has registered the route; null while unknown.
    pub origin: Option<serde_json::Value>,
}

/// The part of a request that selects the tool or domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The first path segment is the tool.
    Path,
    /// The first label of the host is the tool.
    Subdomain,
    /// The host is the domain.
    Domain,
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A route of the tool or domain matches.
    Route,
    /// `urlproxy_default` serves the request.
    Default,
    /// Canonical redirect.
    Redirect,
    /// Nothing matches.
    Miss,
    /// Not known at the moment.
    Unready,
}

/// Host and path as the lookup sees them. Bytes that are not UTF-8 are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Normalized {
    /// Lower case, without port and trailing dot.
    pub host: String,
    /// Decoded, without dot segments, usually with merged slashes.
    pub path: String,
    /// The tool that the request names.
    pub tool: Option<String>,
    /// The text in which the tool's patterns are searched.
    pub rest: String,
}

/// A pattern and the text in which it was searched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatternTest {
    /// The tool or domain that has the pattern.
    pub record: String,
    /// The pattern as the tenant wrote it.
    pub pattern: String,
    /// The text; cut after 512 bytes, with an ellipsis.
    pub tested: String,
    /// Whether the pattern matches.
    pub matched: bool,
}

/// A backend and its passive health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendState {
    /// `scheme://host:port`.
    pub url: String,
    /// Whether requests go there.
    pub health: Health,
    /// When an unavailable backend gets its next request, in Unix seconds.
    pub until: Option<u64>,
}

/// The passive health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Requests go there.
    Up,
    /// Too many requests have failed.
    Unavailable,
    /// The only backend of its route, or a name: failures are not counted.
    Untracked,
}

impl PatternTest {
    /// The test of a pattern in `rest`.
    pub fn new(record: &str, pattern: &[u8], rest: &[u8], matched: bool) -> Self {
        let mut tested = String::from_utf8_lossy(rest).into_owned();
        if tested.len() > MAX_TESTED_BYTES {
            tested.truncate(tested.floor_char_boundary(MAX_TESTED_BYTES));
            tested.push('…');
        }
        Self { record: record.into(), pattern: String::from_utf8_lossy(pattern).into_owned(), tested, matched }
    }
}
