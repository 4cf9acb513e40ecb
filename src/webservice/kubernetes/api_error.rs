//! Why a request to the API server fails.

use std::time::Duration;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server refuses.
    #[error("{message} ({code}) while {doing}{}", hint(*.code, *.is_from_api, .message, .server))]
    Refused {
        /// The API server.
        server: String,
        /// The request.
        doing: String,
        /// The HTTP status.
        code: u16,
        /// Whether the answer has the form of the API's errors.
        is_from_api: bool,
        /// The API's word for the error: `Forbidden`, `AlreadyExists` ...
        reason: String,
        /// The API's text, on one line.
        message: String,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// There is no answer.
    #[error("no answer from the API server {server} within {seconds} s while {doing}; try again later")]
    Timeout {
        /// The API server.
        server: String,
        /// The request.
        doing: String,
        /// The time that it had.
        seconds: u64,
    },
    /// The connection fails or breaks.
    #[error("{error} while {doing} at the API server {server}; try again later")]
    Unreachable {
        /// The API server.
        server: String,
        /// The request.
        doing: String,
        /// The system's or the library's error.
        error: String,
    },
    /// Another server answers.
    #[error(
        "{server} redirects to {location:?} while {doing}; it is no Kubernetes API server, check \"server\" in ~/.kube/config"
    )]
    Redirect {
        /// The server.
        server: String,
        /// The request.
        doing: String,
        /// The header.
        location: String,
    },
    /// The answer is not of the API.
    #[error("unexpected answer of {server} while {doing}: {error}; check \"server\" in ~/.kube/config")]
    Garbage {
        /// The server.
        server: String,
        /// The request.
        doing: String,
        /// The parser's error.
        error: String,
    },
    /// The answer is too large.
    #[error("answer of {server} has more than {limit} bytes while {doing}")]
    TooLarge {
        /// The server.
        server: String,
        /// The request.
        doing: String,
        /// The largest answer.
        limit: usize,
    },
    /// The credentials make no client.
    #[error("{error} in the credentials for {server} in ~/.kube/config")]
    Credentials {
        /// The API server.
        server: String,
        /// What is wrong.
        error: String,
    },
    /// An object that is being deleted does not go.
    #[error("an older {what} is still being deleted; try again later")]
    StillThere {
        /// The object.
        what: String,
    },
    /// The request cannot be built.
    #[error("{error} while {doing}")]
    Unsendable {
        /// The request.
        doing: String,
        /// Why.
        error: String,
    },
}

impl ApiError {
    /// The API says that there is no such object. A 404 of any other server says nothing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, is_from_api: true, .. })
    }

    /// The object exists, or has changed meanwhile.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, is_from_api: true, .. })
    }

    /// The API server has rights for others only. A quota is another reason for the same status.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { code: 403, message, .. } if !message.contains("exceeded quota"))
    }

    /// The request is not valid at this time.
    pub fn is_bad_request(&self) -> bool {
        matches!(self, Self::Refused { code: 400, .. })
    }

    /// The API server has not executed the request, and may do so later.
    pub fn is_refused_for_now(&self) -> bool {
        matches!(self, Self::Refused { code: 429 | 503, .. })
    }

    /// The API server may have executed the request, or not.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Unreachable { .. } | Self::Refused { code: 500 | 502 | 504, .. })
    }

    /// When the API server asks to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What to do about a refusal.
fn hint(code: u16, is_from_api: bool, message: &str, server: &str) -> String {
    match code {
        401 => "; ~/.kube/config has no valid credentials, ask the operators to renew them".into(),
        403 if message.contains("exceeded quota") => {
            "; ask for less with --mem, --cpu or --replicas, or ask the operators for a larger quota".into()
        }
        403 if message.contains(" cannot ") => "; ask the operators for the rights of a tool in its namespace".into(),
        429 | 500.. => "; try again later".into(),
        _ if !is_from_api => {
            format!("; if {server} is no Kubernetes API server, correct \"server\" in ~/.kube/config")
        }
        _ => String::new(),
    }
}
