//! The JSON of the admin API, as far as commands read it. Unknown fields are ignored, so that a newer nginx can be asked.

use serde::{Deserialize, Serialize};

use crate::route::Kind;

/// `/api/status`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The table's name.
    pub table: String,
    /// Unix seconds.
    pub now: f64,
    /// Health in words.
    pub summary: Summary,
    /// Numbers of records.
    pub counts: Counts,
    /// Where the routes come from.
    pub source: Source,
    /// Whether `/ready` answers 200; unknown of an older nginx, as are the next three.
    #[serde(default)]
    pub ready: Option<bool>,
    /// Why it answers 503.
    #[serde(default)]
    pub not_ready_because: Option<String>,
    /// Whether the drain file exists; unknown if nginx cannot look for it.
    #[serde(default)]
    pub draining: Option<bool>,
    /// The drain file of the table.
    #[serde(default)]
    pub drain_file: Option<String>,
    /// The removal that is held back.
    #[serde(default)]
    pub held: Option<Held>,
    /// The snapshot's file.
    #[serde(default)]
    pub snapshot: Option<SnapshotFile>,
    /// Routes that are not served.
    pub rejected: RejectedCount,
    /// Unix seconds of the last change.
    #[serde(default)]
    pub last_change_at: Option<f64>,
    /// Size of the table.
    pub capacity: Capacity,
}

/// Health in words.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// [`IN_STEP`], or another state.
    pub state: String,
    /// A sentence.
    pub text: String,
}

/// The state of a table that follows Redis.
pub const IN_STEP: &str = "in_step";

/// Numbers of records by kind, and of their routes.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Counts {
    /// Tools.
    pub tools: u64,
    /// Tools with a redirect.
    pub redirects: u64,
    /// Domains.
    pub domains: u64,
    /// Routes of all tools and domains.
    pub routes: u64,
}

/// Size of the table.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Capacity {
    /// Records that fit, if they are small.
    pub records: u64,
    /// Bytes for records.
    pub memory_bytes: u64,
    /// Bytes in use.
    pub memory_used_bytes: u64,
}

/// Where the routes come from.
#[derive(Clone, Debug, Deserialize)]
pub struct Source {
    /// The URL, without a password.
    pub url: String,
    /// Whether the companion is connected.
    pub connected: bool,
    /// Unix seconds of the beginning of this state.
    #[serde(default)]
    pub since: Option<f64>,
    /// Why it is not connected.
    #[serde(default)]
    pub error: Option<String>,
    /// Unix seconds of the last full comparison.
    #[serde(default)]
    pub last_resync_at: Option<f64>,
}

/// A removal that the withdrawal guard holds back.
#[derive(Clone, Debug, Deserialize)]
pub struct Held {
    /// Number of records.
    pub records: u64,
    /// Unix seconds of the end; unknown while the hold must restart.
    #[serde(default)]
    pub ends_at: Option<f64>,
    /// The file that ends the hold.
    #[serde(default)]
    pub accept_file: Option<String>,
}

/// The snapshot's file.
#[derive(Clone, Debug, Deserialize)]
pub struct SnapshotFile {
    /// Its path.
    pub path: String,
    /// Unix seconds of the last write.
    #[serde(default)]
    pub written_at: Option<f64>,
    /// Whether the last write failed.
    #[serde(default)]
    pub failed: bool,
}

/// Number of rejected routes.
#[derive(Clone, Debug, Deserialize)]
pub struct RejectedCount {
    /// All of them.
    pub routes: u64,
}

/// A page of `/api/routes`.
#[derive(Clone, Debug, Deserialize)]
pub struct RoutesPage {
    /// The table's name.
    pub table: String,
    /// The records.
    pub items: Vec<RouteItem>,
    /// The cursor of the next page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A record of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteItem {
    /// Tool, redirect or domain.
    pub kind: Kind,
    /// The tool or domain.
    pub name: String,
    /// None for a redirect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<PatternBackends>,
}

/// A pattern and its backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternBackends {
    /// As the tenant wrote it.
    pub pattern: String,
    /// URLs.
    pub backends: Vec<String>,
}

/// `/api/tools`.
#[derive(Clone, Debug, Deserialize)]
pub struct Tools {
    /// Tools that match the search.
    pub matching: u64,
    /// The best of them.
    pub items: Vec<ToolItem>,
}

/// A tool with its traffic.
#[derive(Clone, Debug, Deserialize)]
pub struct ToolItem {
    /// The tool.
    pub name: String,
    /// Number of backends.
    #[serde(default)]
    pub backends: u64,
    /// Number of backends that are left out after failures.
    #[serde(default)]
    pub unavailable: u64,
    /// The first backend.
    #[serde(default)]
    pub backend: Option<String>,
    /// Requests by status class, 1xx to 5xx.
    pub requests: [u64; 5],
    /// Requests per second of late; unknown for tools that are not busy.
    #[serde(default)]
    pub rate: Option<f64>,
    /// Responses 5xx per second of late.
    #[serde(default)]
    pub error_rate: Option<f64>,
    /// Mean duration of late, in milliseconds.
    #[serde(default)]
    pub mean_milliseconds: Option<f64>,
}

/// `/api/rejected`.
#[derive(Clone, Debug, Deserialize)]
pub struct RejectedList {
    /// Number of all rejected routes, also those that are not listed.
    pub total: u64,
    /// The rejected routes.
    pub items: Vec<RejectedItem>,
}

/// A rejected route.
#[derive(Clone, Debug, Deserialize)]
pub struct RejectedItem {
    /// The key in Redis.
    pub key: String,
    /// The pattern; none for a whole key.
    #[serde(default)]
    pub pattern: Option<String>,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub text: String,
}

/// `/api/changes`.
#[derive(Clone, Debug, Deserialize)]
pub struct Changes {
    /// The number of the last change in the answer, for the next `after`.
    pub last: u64,
    /// Changes, newest last.
    pub items: Vec<ChangeItem>,
    /// Changes that are no longer kept.
    #[serde(default)]
    pub missed: u64,
}

/// A change of the table.
#[derive(Clone, Debug, Deserialize)]
pub struct ChangeItem {
    /// Unix seconds.
    pub at: f64,
    /// `added`, `changed` or `removed`.
    pub change: String,
    /// `tool`, `redirect` or `domain`.
    pub kind: String,
    /// The tool or domain.
    pub name: String,
    /// Number of routes.
    #[serde(default)]
    pub routes: u64,
    /// The first backend.
    #[serde(default)]
    pub backend: Option<String>,
}

/// `/api/explain`.
#[derive(Clone, Debug, Deserialize)]
pub struct Explanation {
    /// One for each location of the table, best match first.
    pub decisions: Vec<Decision>,
    /// Number of further locations.
    #[serde(default)]
    pub omitted: usize,
}

/// What one location does with a request.
#[derive(Clone, Debug, Deserialize)]
pub struct Decision {
    /// The server's names.
    #[serde(default)]
    pub server: Vec<String>,
    /// The location's name.
    pub location: String,
    /// Whether the server's names match the host; unknown for a regular expression, and for a default server.
    #[serde(default)]
    pub server_matches: Option<bool>,
    /// Whether the location matches the path; unknown for a regular expression.
    #[serde(default)]
    pub location_matches: Option<bool>,
    /// `path`, `subdomain` or `domain`.
    pub mode: String,
    /// The domain of subdomain mode.
    #[serde(default)]
    pub domain: Option<String>,
    /// The request in its normal form.
    #[serde(default)]
    pub normalized: Option<Normalized>,
    /// As `$urlproxy_result`.
    pub result: String,
    /// A sentence.
    pub why: String,
    /// The status that the proxy answers by itself.
    #[serde(default)]
    pub status: Option<u16>,
    /// Where the client is sent.
    #[serde(default)]
    pub redirect: Option<String>,
    /// Patterns, in the order in which they were tried.
    #[serde(default)]
    pub patterns: Vec<TriedPattern>,
    /// The backends of the route.
    #[serde(default)]
    pub backends: Vec<BackendState>,
    /// Who registered the route.
    #[serde(default)]
    pub origin: Option<serde_json::Value>,
}

/// A request in its normal form.
#[derive(Clone, Debug, Deserialize)]
pub struct Normalized {
    /// Lower case, without port.
    #[serde(default)]
    pub host: Option<String>,
    /// Decoded, without dot segments.
    #[serde(default)]
    pub path: Option<String>,
    /// The tool that the request names.
    #[serde(default)]
    pub tool: Option<String>,
    /// What patterns see.
    #[serde(default)]
    pub rest: Option<String>,
}

/// A pattern that was tried.
#[derive(Clone, Debug, Deserialize)]
pub struct TriedPattern {
    /// The tool or domain that has it.
    #[serde(default)]
    pub record: Option<String>,
    /// The pattern.
    pub pattern: String,
    /// The path that it was tried on.
    #[serde(default)]
    pub tested: Option<String>,
    /// The outcome.
    pub matched: bool,
}

/// A backend's health.
#[derive(Clone, Debug, Deserialize)]
pub struct BackendState {
    /// Its URL.
    pub url: String,
    /// `up`, `unavailable` or `untracked`.
    #[serde(default)]
    pub health: Option<String>,
    /// Unix seconds until an unavailable backend is tried again.
    #[serde(default)]
    pub until: Option<f64>,
}
