//! Whom to trust, and how to prove who we are, over TLS; the only place that chooses the crypto provider.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error as TlsError, InconsistentKeys, RootCertStore};
use rustls_native_certs::load_native_certs;

use super::renewed::{FileError, Renewed};

/// How long the system's authorities are used before they are read again: that takes some 10 ms.
const SYSTEM_ROOTS_AGE: Duration = Duration::from_secs(10);
/// The system's authorities, and when they were read.
static SYSTEM_ROOTS: Mutex<Option<(Instant, Arc<RootCertStore>)>> = Mutex::new(None);

/// The authorities to trust and the certificate to show. The files are read with the configuration and again for each connection,
/// where the process may; while they are unusable, the last good content stays in use.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Instead of the system's authorities.
    authorities: Option<Renewed<Arc<RootCertStore>>>,
    identity: Option<Renewed<Arc<CertifiedKey>>>,
}

impl TlsSettings {
    /// Reads the CA file, and the files with the client's certificate chain and its key.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn read(ca: Option<PathBuf>, identity: Option<(PathBuf, PathBuf)>) -> Result<Self, FileError> {
        let identity = identity.map(|(cert, key)| vec![("client certificate", cert), ("client key", key)]);
        Ok(Self {
            authorities: ca.map(|ca| Renewed::read(vec![("CA", ca)], authorities)).transpose()?,
            identity: identity.map(|files| Renewed::read(files, certified_key)).transpose()?,
        })
    }

    /// The file with the client's key.
    pub(super) fn key_file(&self) -> Option<PathBuf> {
        self.identity.iter().flat_map(Renewed::files).last().cloned()
    }

    /// The parameters of a URL with these files, e.g. `ca=/etc/ssl/redis-ca.pem`.
    pub(super) fn parameters(&self) -> impl Iterator<Item = String> {
        let authorities = self.authorities.iter().flat_map(Renewed::files).map(|file| ("ca", file));
        let identity = self.identity.iter().flat_map(|identity| ["cert", "key"].into_iter().zip(identity.files()));
        authorities.chain(identity).map(|(name, file)| format!("{name}={}", file.display()))
    }

    /// Reads the files again, and the system's authorities unless the URL names others. These are located as OpenSSL does, with
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`; unreadable ones are ignored. So renewed files need no reload.
    ///
    /// # Errors
    /// No authority of the system can be read.
    pub(crate) fn prepare(&self) -> Result<TlsClient, String> {
        let provider = Arc::new(ring::default_provider());
        let (roots, stale_roots) = match &self.authorities {
            Some(authorities) => authorities.current(),
            None => (system_roots()?, None),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let (config, stale_identity) = match self.identity.as_ref().map(Renewed::current) {
            Some((key, stale)) => (config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))), stale),
            None => (config.with_no_client_auth(), None),
        };
        let stale = [stale_roots, stale_identity].into_iter().flatten().collect();
        Ok(TlsClient { config: Arc::new(config), has_identity: self.identity.is_some(), stale })
    }
}

/// Only the files: a key is secret.
impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsSettings({})", self.parameters().collect::<Vec<_>>().join("&"))
    }
}

/// One connection's configuration.
pub(crate) struct TlsClient {
    pub(crate) config: Arc<ClientConfig>,
    has_identity: bool,
    /// Files that could not be read again.
    stale: Vec<FileError>,
}

impl TlsClient {
    /// Describes an error of the TLS library for a log, with what the operator may have to do about it; `None` for errors of the
    /// socket.
    pub(crate) fn describe(&self, error: &io::Error) -> Option<String> {
        let error = error.get_ref()?.downcast_ref::<TlsError>()?;
        let mut text = error.to_string();
        match (self.has_identity, error) {
            (
                false,
                TlsError::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure),
            ) => text.push_str(
                "; the server may require a client certificate, expected e.g. \
                     \"?cert=/etc/ssl/redis-client.pem&key=/etc/ssl/redis-client.key\"",
            ),
            (true, TlsError::AlertReceived(alert)) if is_about_certificates(*alert) => {
                text.push_str("; the server does not accept the client certificate");
            }
            _ => {}
        }
        for stale in &self.stale {
            text.push_str(&format!("; {stale}; its earlier content is in use"));
        }
        Some(text)
    }
}

/// Checks that a certificate can be for this host.
pub(super) fn check_server_name(host: &str) -> Result<(), String> {
    let name = ServerName::try_from(host);
    name.map(drop).map_err(|_| format!("no certificate can be for the host {host:?}"))
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
}

/// The system's authorities, or why there are none.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    let mut known = SYSTEM_ROOTS.lock();
    if let Some((read_at, roots)) = &*known
        && read_at.elapsed() < SYSTEM_ROOTS_AGE
    {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    let system = load_native_certs();
    roots.add_parsable_certificates(system.certs);
    match (roots.is_empty(), system.errors.first()) {
        (false, _) => {}
        (true, None) => return Err("the system has no certificate authorities".into()),
        (true, Some(error)) => return Err(format!("the system's certificate authorities cannot be read: {error}")),
    }
    let roots = Arc::new(roots);
    *known = Some((Instant::now(), Arc::clone(&roots)));
    Ok(roots)
}

/// The certificates of a PEM file; at least one.
fn certificates(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(content).collect::<Result<_, _>>().map_err(described)?;
    if certificates.is_empty() {
        return Err("no certificate in it".into());
    }
    Ok(certificates)
}

/// Without the text that was found: it may be a part of a key.
fn described(error: pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "nothing of the expected kind in it".into(),
        pem::Error::MissingSectionEnd { .. } => "invalid PEM: the file ends within a section".into(),
        pem::Error::Base64Decode(_) => "invalid PEM: a section is not base64".into(),
        _ => "invalid PEM".into(),
    }
}

/// Parses a CA file.
fn authorities(contents: &[Vec<u8>]) -> Result<Arc<RootCertStore>, (usize, String)> {
    let mut roots = RootCertStore::empty();
    for certificate in
        contents.first().map_or(Ok(Vec::new()), |content| certificates(content)).map_err(|why| (0, why))?
    {
        roots.add(certificate).map_err(|error| (0, error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

/// Parses a file with a certificate chain and one with its key.
fn certified_key(contents: &[Vec<u8>]) -> Result<Arc<CertifiedKey>, (usize, String)> {
    let [chain, key] = contents else { return Err((0, "expected a certificate and a key".into())) };
    let chain = certificates(chain).map_err(|reason| (0, reason))?;
    let key = private_key(key).map_err(|reason| (1, reason))?;
    let key = ring::default_provider().key_provider.load_private_key(key).map_err(|error| (1, error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(TlsError::InconsistentKeys(_)) => {
            return Err((1, "the key does not belong to the client certificate".into()));
        }
        // This library does not read certificates of version 1, which `openssl x509 -req` makes; servers do.
        Err(TlsError::InvalidCertificate(CertificateError::Other(_))) => {}
        Err(error) => return Err((0, format!("invalid certificate: {error:?}"))),
    }
    Ok(Arc::new(certified))
}

fn private_key(content: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(content).map_err(|error| {
        let text = String::from_utf8_lossy(content);
        match error {
            pem::Error::NoItemsFound if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
                "the key is encrypted, expected one without a passphrase".into()
            }
            pem::Error::NoItemsFound => "no private key in it".into(),
            // Headers above the base64 text, as the old format has them.
            _ if text.contains("Proc-Type: 4,ENCRYPTED") => {
                "the key is encrypted, expected one without a passphrase".into()
            }
            error => described(error),
        }
    })
}
