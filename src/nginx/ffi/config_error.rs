//! Results of configuration callbacks.

use std::ffi::c_char;
use std::ptr;

/// Success, and an error that was already logged (`NGX_CONF_ERROR`).
pub(super) const CONF_OK: *mut c_char = ptr::null_mut();
pub(super) const CONF_ERROR: *mut c_char = ptr::without_provenance_mut(usize::MAX);

/// Why the configuration is refused.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nginx) enum ConfigError {
    /// A message; nginx adds file and line.
    Message(String),
    /// nginx has already logged the error.
    Logged,
}

impl From<String> for ConfigError {
    fn from(text: String) -> Self {
        Self::Message(text)
    }
}

impl From<&str> for ConfigError {
    fn from(text: &str) -> Self {
        Self::Message(text.into())
    }
}
