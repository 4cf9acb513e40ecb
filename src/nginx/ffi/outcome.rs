//! What reading the configuration leads to.

use std::ffi::c_char;
use std::ptr;

/// What nginx takes for success, and for an error that was logged.
pub(super) const CONF_OK: *mut c_char = ptr::null_mut();
pub(super) const CONF_ERROR: *mut c_char = ptr::without_provenance_mut(usize::MAX);

/// Why nginx refuses the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nginx) enum Refusal {
    /// In words; nginx adds the file and the line.
    Because(String),
    /// nginx has logged it.
    Logged,
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self::Because(text)
    }
}

impl From<&str> for Refusal {
    fn from(text: &str) -> Self {
        Self::Because(text.into())
    }
}
