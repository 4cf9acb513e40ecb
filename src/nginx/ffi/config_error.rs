//! What reading the configuration leads to.

use std::ffi::c_char;
use std::ptr;

/// What nginx takes for success, and for an error that was logged.
pub(super) const CONF_OK: *mut c_char = ptr::null_mut();
pub(super) const CONF_ERROR: *mut c_char = ptr::without_provenance_mut(usize::MAX);

/// Why nginx refuses the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nginx) enum ConfigError {
    /// In words; nginx adds the file and the line.
    Message(String),
    /// nginx has logged it.
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
