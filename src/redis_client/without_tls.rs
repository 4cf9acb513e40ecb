//! Stands for `tls_settings` in a build without TLS: no settings exist.

use std::path::PathBuf;

use super::renewed::FileError;

/// Settings of TLS; a build without it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSettings {}

impl TlsSettings {
    pub(super) fn read(_: Option<PathBuf>, _: Option<(PathBuf, PathBuf)>) -> Result<Self, FileError> {
        let (purpose, file) = ("TLS", PathBuf::new());
        Err(FileError { purpose, file, reason: "this build is without TLS".into() })
    }

    pub(super) fn key_file(&self) -> Option<PathBuf> {
        match *self {}
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = String> {
        match *self {}
        #[allow(unreachable_code, reason = "for the type")]
        std::iter::empty()
    }
}

pub(super) fn check_server_name(_: &str) -> Result<(), String> {
    Ok(())
}
