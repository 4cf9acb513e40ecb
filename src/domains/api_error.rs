//! Errors of API requests, as text or as problem details (RFC 9457).

use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;

use super::backend_policy::BackendPolicyError;
use super::database::DatabaseError;
use super::mapping_policy::{DomainPolicyError, MAX_PROJECT_LEN};
use crate::daemon::{HttpResponse, TEXT_PLAIN, response_with};

/// Value of `Retry-After`, in seconds.
const RETRY_SECONDS: &str = "5";

/// Why a request fails. The texts are those of the old API, where it had any.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("No such resource")]
    NoSuchResource,
    /// The resource has other methods, which the variant lists.
    #[error("Method not allowed")]
    Method(&'static str),
    /// A path that is not percent-encoded UTF-8.
    #[error("Invalid path")]
    Path,
    #[error("No such project")]
    NoSuchProject,
    #[error("No such domain")]
    NoSuchDomain,
    #[error("Invalid project")]
    Project,
    #[error("Invalid domain")]
    Domain(#[from] DomainPolicyError),
    #[error("{0}")]
    Backend(#[from] BackendPolicyError),
    #[error("Invalid JSON: {0}")]
    Json(String),
    #[error("Valid JSON but invalid format. Needs domain string and backends array")]
    Format,
    /// No token, or an unknown or revoked one.
    #[error("Needs a token of the project")]
    Unauthorized,
    #[error("The token is another project's")]
    Forbidden,
    /// Another project has the domain or a related one, or a rename leads to a mapped domain. The text hides the project.
    #[error("Domain is taken")]
    Taken,
    #[error("Domain is reserved for the operators")]
    Reserved,
    #[error("Too many domains: all projects together may have {0}")]
    TooManyInTotal(usize),
    #[error("Too many domains: a project may have {0}")]
    TooManyDomains(usize),
    #[error("Too many backends: a domain may have {0}")]
    TooManyBackends(usize),
    #[error("Body too large: at most {0} bytes")]
    BodyTooLarge(usize),
    #[error("The body did not come within {0} seconds")]
    BodyTooSlow(u64),
    /// The server runs with `--read-only`.
    #[error("Read-only")]
    ReadOnly,
    /// No permit in time: too many requests at once.
    #[error("Busy")]
    Busy,
    /// The database failed; only the log has the reason.
    #[error("Database unavailable")]
    Database(#[source] DatabaseError),
    /// Like [`Database`](Self::Database), without the file's path.
    #[error("Database unavailable")]
    Sqlite(#[from] rusqlite::Error),
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl ApiError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchResource => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden
            | Self::Reserved
            | Self::TooManyInTotal(_)
            | Self::TooManyDomains(_)
            | Self::TooManyBackends(_) => StatusCode::FORBIDDEN,
            Self::Taken => StatusCode::CONFLICT,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::ReadOnly | Self::Busy | Self::Database(_) | Self::Sqlite(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The error in detail: the invalid value, and what was expected.
    pub fn detail(&self) -> String {
        match self {
            Self::Domain(error) => error.to_string(),
            Self::Method(allowed) => format!("method not allowed, expected one of {allowed}"),
            Self::Project => format!(
                "invalid project, expected 1 to {MAX_PROJECT_LEN} letters, digits, _, . and -, beginning with a letter or digit"
            ),
            Self::Path => "invalid path, expected percent-encoded UTF-8".into(),
            _ => self.to_string(),
        }
    }

    /// The response: text, or problem details for clients that accept JSON.
    pub fn into_response(self, as_problem: bool) -> HttpResponse {
        let (status, text, detail) = (self.status(), self.to_string(), self.detail());
        let title = match &self {
            // Texts with a value: the title of one kind of problem is constant.
            Self::Backend(_) => "Invalid backend",
            Self::Json(_) => "Invalid JSON",
            _ => text.split(':').next().unwrap_or_default(),
        };
        let problem = Problem { r#type: "about:blank", title, status: status.as_u16(), detail: &detail };
        let (kind, body) = match serde_json::to_string(&problem) {
            Ok(problem) if as_problem => ("application/problem+json", problem),
            _ => (TEXT_PLAIN, text),
        };
        let mut response = response_with(kind, body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::Method(allowed) => headers.insert(ALLOW, HeaderValue::from_static(allowed)),
            Self::Unauthorized => headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Self::ReadOnly | Self::Busy | Self::Database(_) | Self::Sqlite(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS))
            }
            _ => None,
        };
        response
    }
}

impl From<DatabaseError> for ApiError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}
