//! The parameters of a URL that name files for TLS.

use std::path::PathBuf;

use super::error::Refusal;
use crate::redis_client::tls_settings::TlsSettings;

/// The files, as written.
#[derive(Default)]
pub(super) struct TlsFiles {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsFiles {
    /// Notes a parameter; false if it does not name a file for TLS.
    pub(super) fn set(&mut self, name: &str, value: &str) -> bool {
        let file = match name {
            "ca" => &mut self.ca,
            "cert" => &mut self.cert,
            "key" => &mut self.key,
            _ => return false,
        };
        *file = Some(value.into());
        true
    }

    /// Reads the files.
    pub(super) fn read(self) -> Result<TlsSettings, Refusal> {
        let identity = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(cert), None) => return Err(format!("the key for cert={} is missing", cert.display()).into()),
            (None, Some(key)) => return Err(format!("the certificate for key={} is missing", key.display()).into()),
        };
        Ok(TlsSettings::read(self.ca, identity)?)
    }
}
