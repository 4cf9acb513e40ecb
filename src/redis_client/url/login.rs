//! Login credentials.

use std::fmt;

use redis::RedisConnectionInfo;

/// A user and a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl Login {
    pub(super) fn of(settings: &RedisConnectionInfo) -> Self {
        Self { user: settings.username().map(str::to_owned), password: settings.password().map(str::to_owned) }
    }

    /// User and password for AUTH; `None` if the URL has neither. A password alone belongs to the user `default`; a user alone
    /// gets an empty password, which ACL users with `nopass` accept.
    pub(crate) fn credentials(&self) -> Option<(&str, &str)> {
        match (&self.user, &self.password) {
            (None, None) => None,
            (user, password) => Some((user.as_deref().unwrap_or("default"), password.as_deref().unwrap_or_default())),
        }
    }
}

/// The part before a URL's host, with `***` for the password.
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref().unwrap_or_default();
        let secret = if self.password.is_some() { ":***" } else { "" };
        let at = if user.is_empty() && secret.is_empty() { "" } else { "@" };
        write!(f, "{user}{secret}{at}")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({self})")
    }
}

/// The short description of an error of the redis crate, without the detail, which may quote the URL.
pub(super) fn redacted_reason(error: &redis::RedisError) -> String {
    error.to_string().split(" - ").next().unwrap_or_default().to_lowercase()
}
