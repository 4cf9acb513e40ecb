//! The answer to a request: status, headers and a page.

use std::borrow::Cow;

use serde::Serialize;

use super::json;
use super::page::{Page, Whole};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// `Content-Security-Policy` of all answers but the dashboard.
const DEFAULT_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Headers of all answers, beside `Content-Security-Policy`.
pub const COMMON_HEADERS: [(&str, &str); 4] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
];

/// An answer.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `ETag`. nginx answers a matching `If-None-Match` with 304.
    pub etag: Option<String>,
    /// `Content-Security-Policy`.
    pub policy: Cow<'static, str>,
    /// Other headers of this answer alone.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body.
    pub page: Box<dyn Page>,
}

impl Answer {
    fn new(content_type: &'static str, page: Box<dyn Page>) -> Self {
        Self { status: 200, content_type, etag: None, policy: DEFAULT_POLICY.into(), headers: Vec::new(), page }
    }

    /// JSON that is made in steps.
    pub fn json(page: impl Page + 'static) -> Self {
        Self::new(JSON, Box::new(page))
    }

    /// A small JSON value.
    pub fn json_value(value: &impl Serialize) -> Self {
        let mut text = Vec::new();
        json::value(&mut text, value);
        Self::json(Whole::new(String::from_utf8(text).unwrap_or_default()))
    }

    /// Plain text.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(TEXT, Box::new(Whole::new(text)))
    }

    /// A page for browsers, with its own `Content-Security-Policy`.
    pub fn html(text: &'static str, policy: impl Into<Cow<'static, str>>) -> Self {
        Self { policy: policy.into(), ..Self::new(HTML, Box::new(Whole::new(text))) }
    }

    /// A page of another type.
    #[must_use]
    pub fn with_content_type(self, content_type: &'static str) -> Self {
        Self { content_type, ..self }
    }

    /// An answer with another status than 200.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// An answer that a client may validate.
    #[must_use]
    pub fn with_etag(self, etag: String) -> Self {
        Self { etag: Some(etag), ..self }
    }

    /// An answer with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Why a request fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// An invalid parameter.
    #[error("{0}")]
    BadRequest(String),
    /// There is nothing of this name.
    #[error("{0}")]
    NotFound(String),
    /// Another method than GET and HEAD.
    #[error("the admin API is read-only, expected GET or HEAD")]
    Method,
    /// The table was never loaded.
    #[error("the table was never loaded")]
    Unready,
    /// nginx has no memory for the answer.
    #[error("out of memory")]
    Memory,
}

impl ApiError {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::NotFound(_) => 404,
            Self::Method => 405,
            Self::Unready | Self::Memory => 503,
        }
    }
}

impl From<ApiError> for Answer {
    /// `{"error":"text"}`
    fn from(error: ApiError) -> Self {
        #[derive(Serialize)]
        struct Body {
            error: String,
        }
        let answer = Self::json_value(&Body { error: error.to_string() }).with_status(error.status());
        match error {
            ApiError::Method => answer.with_header("Allow", "GET, HEAD"),
            ApiError::Unready | ApiError::Memory => answer.with_header("Retry-After", "1"),
            ApiError::BadRequest(_) | ApiError::NotFound(_) => answer,
        }
    }
}
