//! The document of `/api/explain`: for a host and a URI, the decision of each location that routes.

use serde::Serialize;

use super::backend_state::BackendState;
use super::origin::Origins;
use crate::table::RequestResult;

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
    pub result: RequestResult,
    /// The reason for the result, in one sentence.
    pub why: String,
    /// The status that urlproxy itself answers with; null if the request is passed to a backend.
    pub status: Option<u16>,
    /// The `Location` of a redirect.
    pub redirect: Option<String>,
    /// The tool, as in `$urlproxy_tool`; null if the request names none.
    pub tool: Option<String>,
    /// The tool or domain with the matching route; the new domain of a redirect from a moved one.
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

impl Explanation {
    /// The tool of the route that the best match chooses.
    pub fn chosen_tool(&self) -> Option<&str> {
        self.decisions.first()?.routed_tool()
    }

    /// Adds the origins of the chosen tool's routes.
    pub fn add_origins(&mut self, origins: &Origins) {
        let Some(tool) = self.chosen_tool().map(ToOwned::to_owned) else { return };
        for decision in &mut self.decisions {
            if decision.routed_tool() == Some(&tool) {
                let chosen = decision.patterns.last().map(|test| test.pattern.as_str());
                decision.origin = chosen.and_then(|pattern| origins.get(pattern)).cloned();
            }
        }
    }
}

impl Decision {
    /// The tool with the matching route: in domain mode only that of `urlproxy_default`.
    fn routed_tool(&self) -> Option<&str> {
        self.record.as_deref().filter(|_| self.record == self.tool)
    }
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
