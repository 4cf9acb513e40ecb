//! kube2proxy's settings, resolved from the command line, the configuration file and the environment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde::Deserialize;

use super::desired::MAX_SELECTORS;
use super::options::{Options, PROGRAM};
use super::watch::WatchSettings;
use crate::daemon::RedisOptionsError;
use crate::kube_client::{ProxyError, ProxyVariables, proxy_in};
use crate::redis_client::RedisUrl;
use crate::withdrawal_guard::GuardSettings;

/// Resolved settings.
pub struct Settings {
    /// The cluster and the Services to watch.
    pub watch: WatchSettings,
    /// The Redis that holds the routes.
    pub redis: RedisUrl,
    /// Whether the obsolete option `--lease` was given.
    pub has_lease: bool,
    /// The withdrawal guard; `None` if it is off.
    pub guard: Option<GuardSettings>,
    /// The time between full comparisons with Redis.
    pub resync_interval: Duration,
}

/// Why the options do not resolve.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file is unreadable.
    #[error("{error} while reading {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// `--config` is invalid.
    #[error("invalid --config {path:?}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The parser's error, with its position.
        reason: String,
    },
    /// The API server's URL is invalid.
    #[error("invalid kubernetes.master {0:?}, expected e.g. https://10.0.0.1:6443")]
    Master(String),
    /// `--kubeconfig` is invalid.
    #[error("invalid --kubeconfig {path:?}: {reason}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        reason: String,
    },
    /// Without either file, the process must run in a pod.
    #[error("neither --config nor --kubeconfig given, and not in a cluster: {0}")]
    NotInCluster(String),
    /// The certificate file has no certificate.
    #[error("no PEM certificate in {0:?}")]
    Authority(PathBuf),
    /// The Redis options are invalid.
    #[error(transparent)]
    Redis(#[from] RedisOptionsError),
    /// More selectors than [`MAX_SELECTORS`].
    #[error("too many --label-selector, expected at most {MAX_SELECTORS}")]
    Selectors,
    /// The proxy's URL is invalid.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The settings do not make a client.
    #[error("{0} while creating an API client")]
    Client(Box<kube::Error>),
}

/// The file of the old kube2proxy, with additions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    redis: Option<String>,
    kubernetes: Cluster,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    master: String,
    token: Option<String>,
    token_file: Option<PathBuf>,
    certificate_authority: Option<PathBuf>,
}

impl Options {
    /// Resolves the options and the files that they name.
    pub(super) async fn into_settings(self) -> Result<Settings, SettingsError> {
        let label_selectors = self.selectors().ok_or(SettingsError::Selectors)?;
        let (mut redis_in_file, mut proxy_in_file) = (None, None);
        let mut config = match (&self.config, &self.kubeconfig) {
            (Some(path), _) => {
                let file = ConfigFile::read(path)?;
                let origin = format!("redis in --config {path:?}");
                redis_in_file = file.redis.as_deref().map(|address| (format!("redis://{address}/0"), origin));
                file.kubernetes.into_config()?
            }
            (None, Some(path)) => {
                let invalid = |error| SettingsError::Kubeconfig { path: path.clone(), reason: reason(error) };
                let kubeconfig = Kubeconfig::read_from(path).map_err(invalid)?;
                proxy_in_file = proxy_in(&kubeconfig);
                let options = KubeConfigOptions::default();
                kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(invalid)?
            }
            (None, None) => {
                kube::Config::incluster().map_err(|error| SettingsError::NotInCluster(error.to_string()))?
            }
        };
        if let Some(path) = &self.certificate_authority {
            use_authority(&mut config, path)?;
        }
        config.accept_invalid_certs |= self.insecure_skip_tls_verify;
        let variables = ProxyVariables::from_environment();
        config.proxy_url = variables.proxy_for(&config.cluster_url, proxy_in_file.as_deref())?;
        let redis = self.common.redis.to_url_or(redis_in_file.as_ref().map(|(url, origin)| (&**url, &**origin)))?;
        let (timeout, templates) = (self.watch_timeout, self.namespace_template);
        let watch = WatchSettings { config, label_selectors, timeout, templates };
        watch.client().map_err(|error| SettingsError::Client(Box::new(error)))?;
        Ok(Settings {
            watch,
            redis,
            has_lease: self.lease.is_some(),
            guard: self.withdrawal_guard.into_settings(PROGRAM),
            resync_interval: self.resync_interval,
        })
    }
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Self, SettingsError> {
        Self::parse(&read(path)?).map_err(|reason| SettingsError::Config { path: path.to_owned(), reason })
    }

    /// Parses the file.
    ///
    /// # Errors
    /// The place and the reason. The parser would quote the lines around, which may have the token.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error: serde_saphyr::Error| error.without_snippet().to_string())
    }
}

impl Cluster {
    fn into_config(self) -> Result<kube::Config, SettingsError> {
        let master = self.master.trim_end_matches('/').parse();
        let is_url = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
        let master = master.ok().filter(is_url).ok_or_else(|| SettingsError::Master(self.master.clone()))?;
        let mut config = kube::Config::new(master);
        config.auth_info.token = self.token.map(|token| token.trim().to_owned().into());
        config.auth_info.token_file = self.token_file.map(|path| path.display().to_string());
        if let Some(path) = &self.certificate_authority {
            use_authority(&mut config, path)?;
        }
        Ok(config)
    }
}

/// What is wrong with a kubeconfig, without the lines around, which may have a token.
fn reason(error: KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => format!("failed to parse kubeconfig YAML: {}", error.without_snippet()),
        error => error.to_string(),
    }
}

fn use_authority(config: &mut kube::Config, path: &Path) -> Result<(), SettingsError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = rustls::pki_types::pem::PemObject::pem_slice_iter(text.as_bytes())
        .map(|found: Result<rustls::pki_types::CertificateDer<'_>, _>| found.map(|certificate| certificate.to_vec()))
        .collect();
    let certificates = certificates.ok().filter(|certificates| !certificates.is_empty());
    config.root_cert = Some(certificates.ok_or_else(|| SettingsError::Authority(path.to_owned()))?);
    // The client rereads the file, so renewed certificates take effect.
    config.root_cert_file = Some(path.to_owned());
    Ok(())
}

fn read(path: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(path).map_err(|error| SettingsError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packaged_file_is_valid_with_and_without_its_optional_lines() {
        let shipped = include_str!("../../packaging/etc/kube2proxy.yaml");
        let uncomment = |line: &str| line.replacen("  #", "  ", 1);
        let uncommented: Vec<_> = shipped.lines().filter(|line| !line.contains("# ")).map(uncomment).collect();
        for text in [shipped, &uncommented.join("\n")] {
            let file: ConfigFile = serde_saphyr::from_str(text).unwrap();
            assert_eq!(
                (file.redis.as_deref(), &*file.kubernetes.master),
                (Some("127.0.0.1:6379"), "https://kubernetes.example.org:6443")
            );
        }
        let file: ConfigFile = serde_saphyr::from_str(&uncommented.join("\n")).unwrap();
        assert!(file.kubernetes.token_file.is_some() && file.kubernetes.certificate_authority.is_some());
    }

    #[test]
    fn errors_do_not_quote_lines_with_tokens() {
        for text in
            ["kubernetes: {token: s3cret, master: [}", "kubernetes:\n  token: s3cret\n  mister: x\n", "token: s3cret"]
        {
            let error = ConfigFile::parse(text).err().unwrap();
            assert!(!error.contains("s3cret") && error.contains("line "), "{error}");
        }
        for text in [
            "users: [{name: u, user: {token: s3cret}}]\nclusters: [",
            "users: [{name: u, user: {token: s3cret, exec: 1}}]",
        ] {
            let error = reason(Kubeconfig::from_yaml(text).unwrap_err());
            assert!(!error.contains("s3cret") && error.contains("line "), "{error}");
        }
    }
}
