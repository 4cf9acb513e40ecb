//! Why a request is not done, as text or as RFC 9457's problem details.

use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;

use super::backend_policy::BackendPolicyError;
use super::database::DatabaseError;
use super::mapping_policy::{DomainPolicyError, MAX_PROJECT_LEN};
use crate::daemon::{HttpResponse, TEXT_PLAIN, response_with};

/// Seconds after which what can't be done now may be asked again.
const RETRY_SECONDS: &str = "5";

/// The text of each is what the old API said, where it said anything.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No such resource.
    #[error("No such resource")]
    NoSuchResource,
    /// Known, but not for this method; carries those that it is for.
    #[error("Method not allowed")]
    Method(&'static str),
    /// A path whose bytes are no text.
    #[error("Invalid path")]
    Path,
    /// As before.
    #[error("No such project")]
    NoSuchProject,
    /// As before.
    #[error("No such domain")]
    NoSuchDomain,
    /// No name for a project.
    #[error("Invalid project")]
    Project,
    /// As before.
    #[error("Invalid domain")]
    Domain(#[from] DomainPolicyError),
    /// A backend that may not be.
    #[error("{0}")]
    Backend(#[from] BackendPolicyError),
    /// No JSON.
    #[error("Invalid JSON: {0}")]
    Json(String),
    /// As before.
    #[error("Valid JSON but invalid format. Needs domain string and backends array")]
    Format,
    /// Who asks is not known.
    #[error("Needs a token of the project")]
    Unauthorized,
    /// Who asks is somebody else.
    #[error("The token is another project's")]
    Forbidden,
    /// Another project has it or one above or below it, or this one has it under another name; which is not told.
    #[error("Domain is taken")]
    Taken,
    /// The operators keep it.
    #[error("Domain is reserved for the operators")]
    Reserved,
    /// The quota of all projects together.
    #[error("Too many domains: all projects together may have {0}")]
    TooManyInTotal(usize),
    /// The project's quota.
    #[error("Too many domains: a project may have {0}")]
    TooManyDomains(usize),
    /// The domain's quota.
    #[error("Too many backends: a domain may have {0}")]
    TooManyBackends(usize),
    /// A body larger than it may be.
    #[error("Body too large: at most {0} bytes")]
    BodyTooLarge(usize),
    /// A body that does not come.
    #[error("The body did not come within {0} seconds")]
    BodyTooSlow(u64),
    /// The operator's wish.
    #[error("Read-only")]
    ReadOnly,
    /// Too many requests at once.
    #[error("Busy")]
    Busy,
    /// The database does not answer; why is for the log.
    #[error("Database unavailable")]
    Database(#[source] DatabaseError),
    /// The same without the file's name.
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

    /// What is wrong, with the offending value and what was expected where the text does not say.
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

    /// The answer: text, or problem details for who accepts JSON.
    pub fn into_response(self, as_problem: bool) -> HttpResponse {
        let (status, text, detail) = (self.status(), self.to_string(), self.detail());
        let title = match &self {
            // Whose text holds a value: the title of a kind of problem is always the same.
            Self::Backend(_) => "Invalid backend",
            Self::Json(_) => "Invalid JSON",
            _ => text.split(':').next().unwrap_or_default(),
        };
        let problem = Problem { r#type: "about:blank", title, status: status.as_u16(), detail: &detail };
        let (kind, body) = match serde_json::to_string(&problem) {
            Ok(problem) if as_problem => ("application/problem+json", problem),
            _ => (TEXT_PLAIN, text),
        };
        let mut answer = response_with(kind, body);
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::Method(allowed) => headers.insert(ALLOW, HeaderValue::from_static(allowed)),
            Self::Unauthorized => headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Self::ReadOnly | Self::Busy | Self::Database(_) | Self::Sqlite(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS))
            }
            _ => None,
        };
        answer
    }
}

impl From<DatabaseError> for ApiError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}
