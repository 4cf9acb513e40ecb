//! Why a URL is refused.

use thiserror::Error;

use crate::redis_client::renewed::FileError;

/// An example of a valid URL, for error messages.
pub(super) const EXAMPLE: &str = "redis://127.0.0.1:6379/0";
/// An example of a valid Sentinel URL.
pub(super) const SENTINEL_EXAMPLE: &str = "sentinel://10.0.0.1,10.0.0.2/mymaster/0";
/// An example of a URL with files.
const FILES_EXAMPLE: &str = "rediss://redis.example.org/0?ca=/etc/ssl/redis-ca.pem&cert=/etc/ssl/redis-client.pem&key=/etc/ssl/redis-client.key";
/// An example of a Sentinel URL with files.
const SENTINEL_FILES_EXAMPLE: &str = "sentinels://10.0.0.1,10.0.0.2/mymaster/0?ca=/etc/ssl/redis-ca.pem&sentinel_password_file=/etc/urlproxy/sentinel.pass";

/// Why a Redis URL was refused. URLs are shown with `***` instead of passwords.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RedisUrlError {
    /// Not a URL of a known scheme.
    #[error("invalid URL {0:?}, expected e.g. {EXAMPLE:?}")]
    Invalid(String),
    /// A URL with an invalid part.
    #[error("invalid URL {url:?}: {reason}, expected e.g. {example:?}")]
    Part {
        /// The URL.
        url: String,
        /// The invalid part.
        reason: String,
        /// A valid URL of the same kind.
        example: &'static str,
    },
    /// A TLS URL in a build without TLS.
    #[error("invalid URL {0:?}: this build is without TLS (cargo feature \"tls\"), expected e.g. {EXAMPLE:?}")]
    WithoutTls(String),
    /// A file that the URL names cannot be used.
    #[error("invalid URL {url:?}: {reason}, expected e.g. {example:?}")]
    File {
        /// The URL.
        url: String,
        /// What the file is for, its path, and why it is unusable.
        reason: String,
        /// A valid URL of the same kind.
        example: &'static str,
    },
}

/// Why a URL is refused, without the URL.
#[derive(Debug)]
pub(super) enum Refusal {
    NoUrl,
    Part(String),
    File(FileError),
}

impl RedisUrlError {
    /// The error for a URL, given without its passwords, and an example of its kind.
    pub(super) fn of(refusal: Refusal, url: String, example: &'static str) -> Self {
        match refusal {
            Refusal::NoUrl => Self::Invalid(url),
            Refusal::Part(reason) => Self::Part { url, reason, example },
            Refusal::File(error) => {
                let example = if example == EXAMPLE { FILES_EXAMPLE } else { SENTINEL_FILES_EXAMPLE };
                Self::File { url, reason: error.to_string(), example }
            }
        }
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::Part(reason.to_owned())
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Part(reason)
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}
