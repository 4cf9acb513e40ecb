//! The tool's credentials: `~/.kube/config`, and the files that it names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::{HeaderValue, USER_AGENT};
use kube::Config;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::kube_client::{ProxyError, ProxyVariables, proxy_in};
use crate::tenant::{FileProblem, TenantFile, parse_yaml};

/// The file, below the home.
const PATH: &str = ".kube/config";
/// The largest file, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Until the connection to the API server is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there are no usable credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// There is no such file.
    #[error(
        "{0:?} does not exist; ask the operators for the tool's Kubernetes credentials, or use --backend=gridengine"
    )]
    Missing(PathBuf),
    /// A file is unreadable, too large, a FIFO ...
    #[error("unusable Kubernetes credentials in {path:?}: {problem}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: FileProblem,
    },
    /// The file is not YAML, or has anchors, several documents, deep nesting ...
    #[error("unsupported or invalid YAML in {path:?}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's error, with its position.
        reason: String,
    },
    /// The current context, its cluster or its user is missing or invalid.
    #[error("invalid {path:?}: {error}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: Box<KubeconfigError>,
    },
    /// The API server's address.
    #[error("invalid server {server:?} in {path:?}, expected e.g. https://10.0.0.1:6443")]
    Server {
        /// The file.
        path: PathBuf,
        /// The address.
        server: String,
    },
    /// No program is run for credentials.
    #[error(
        "{path:?} gets its credentials from a program ({kind}), which is not supported; expected a certificate or a token"
    )]
    Program {
        /// The file.
        path: PathBuf,
        /// The key.
        kind: &'static str,
    },
    /// The proxy's address.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// Reads a file as the tenant.
pub type ReadFile<'a> = &'a (dyn Fn(&Path) -> Result<Vec<u8>, CredentialsError> + Sync);

/// Reads the credentials of the home's owner. Nothing is read afterwards: the certificates, keys and tokens of other files are in
/// the result. A relative path counts from the file's directory.
///
/// # Errors
/// As [`CredentialsError`] says.
pub async fn read(home: &Path) -> Result<Config, CredentialsError> {
    resolve(home.join(PATH), &ProxyVariables::from_environment(), &read_file).await
}

/// As [`read`], with the file's path, and a reader of this file and those that it names.
///
/// # Errors
/// As [`CredentialsError`] says.
pub async fn resolve(
    path: PathBuf,
    proxies: &ProxyVariables,
    read_file: ReadFile<'_>,
) -> Result<Config, CredentialsError> {
    let text = read_file(&path)?;
    let text = std::str::from_utf8(&text)
        .map_err(|_| CredentialsError::Malformed { path: path.clone(), reason: "not UTF-8".into() })?;
    let kubeconfig = parse_yaml(text).map_err(|reason| CredentialsError::Malformed { path: path.clone(), reason })?;
    let mut kubeconfig: Kubeconfig = kubeconfig.unwrap_or_default();
    let proxy = proxy_in(&kubeconfig);
    let directory = path.parent().unwrap_or(Path::new("/"));
    select_current(&mut kubeconfig);
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        embed_cluster(cluster, directory, read_file)?;
    }
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        embed_user(user, directory, &path, read_file)?;
    }
    let server = kubeconfig.clusters.first().and_then(|named| named.cluster.as_ref()?.server.clone());
    if let Some(server) = server.filter(|server| !is_server(server)) {
        return Err(CredentialsError::Server { path, server });
    }
    let invalid = |error| CredentialsError::Invalid { path, error: Box::new(error) };
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(invalid)?;
    config.proxy_url = proxies.proxy_for(&config.cluster_url, proxy.as_deref())?;
    config.headers.push((USER_AGENT, HeaderValue::from_static("webservice")));
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.default_retry = false;
    Ok(config)
}

/// Drops all but the current context, so that only its files are read.
fn select_current(kubeconfig: &mut Kubeconfig) {
    let current = kubeconfig.current_context.clone().unwrap_or_default();
    kubeconfig.contexts.retain(|context| context.name == current);
    kubeconfig.contexts.truncate(1);
    let context = kubeconfig.contexts.first().and_then(|named| named.context.clone());
    let (cluster, user) = context.map(|context| (context.cluster, context.user)).unwrap_or_default();
    let user = Some(user.unwrap_or_default());
    kubeconfig.clusters.retain(|named| named.name == cluster);
    kubeconfig.clusters.truncate(1);
    kubeconfig.auth_infos.retain(|named| Some(&named.name) == user.as_ref());
    kubeconfig.auth_infos.truncate(1);
}

fn embed_cluster(cluster: &mut Cluster, directory: &Path, read_file: ReadFile<'_>) -> Result<(), CredentialsError> {
    // The rules of kube's own variables are not those of kubectl.
    cluster.proxy_url = None;
    let file = cluster.certificate_authority.take().filter(|_| cluster.certificate_authority_data.is_none());
    if let Some(file) = file {
        cluster.certificate_authority_data = Some(STANDARD.encode(read_file(&directory.join(file))?));
    }
    Ok(())
}

fn embed_user(
    user: &mut AuthInfo,
    directory: &Path,
    path: &Path,
    read_file: ReadFile<'_>,
) -> Result<(), CredentialsError> {
    for (kind, is_set) in [("exec", user.exec.is_some()), ("auth-provider", user.auth_provider.is_some())] {
        if is_set {
            return Err(CredentialsError::Program { path: path.to_owned(), kind });
        }
    }
    if let Some(file) = user.client_certificate.take().filter(|_| user.client_certificate_data.is_none()) {
        user.client_certificate_data = Some(STANDARD.encode(read_file(&directory.join(file))?));
    }
    if let Some(file) = user.client_key.take().filter(|_| user.client_key_data.is_none()) {
        user.client_key_data = Some(STANDARD.encode(read_file(&directory.join(file))?).into());
    }
    if let Some(file) = user.token_file.take().filter(|_| user.token.is_none()) {
        let token = read_file(&directory.join(file))?;
        user.token = Some(String::from_utf8_lossy(&token).trim().to_owned().into());
    }
    Ok(())
}

fn is_server(text: &str) -> bool {
    let uri: Option<Uri> = text.parse().ok();
    uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

/// Reads a regular file of at most [`MAX_BYTES`].
fn read_file(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let unusable = |problem| CredentialsError::Unusable { path: path.to_owned(), problem };
    let file = TenantFile::open_as_tenant(path).map_err(unusable)?;
    file.ok_or_else(|| CredentialsError::Missing(path.to_owned()))?.read(MAX_BYTES).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const VALID: &str = "apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://10.0.0.1:6443', certificate-authority: ../ca.crt}}, {name: other}]
users: [{name: u, user: {tokenFile: token}}, {name: other, user: {tokenFile: /nowhere}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: tool-hello}}]
current-context: x
";

    fn home(text: &str) -> tempfile::TempDir {
        let home = tempfile::Builder::new().prefix("a home ").tempdir().unwrap();
        fs::create_dir(home.path().join(".kube")).unwrap();
        fs::write(home.path().join(PATH), text).unwrap();
        fs::write(home.path().join(".kube/token"), "secret\n").unwrap();
        fs::write(home.path().join("ca.crt"), include_str!("../../../tests/samples/kubernetes/ca.crt")).unwrap();
        home
    }

    async fn error(text: &str) -> String {
        read(home(text).path()).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn relative_files_are_below_the_directory_of_the_file() {
        let config = read(home(VALID).path()).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://10.0.0.1:6443/");
        assert!(config.auth_info.token.is_some() && config.root_cert.is_some());
        assert!(config.headers.iter().any(|(name, value)| *name == USER_AGENT && value == "webservice"));
        assert!(!config.default_retry);
    }

    #[tokio::test]
    async fn linked_file_is_read() {
        let home = home(VALID);
        fs::rename(home.path().join(PATH), home.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", home.path().join(PATH)).unwrap();
        assert!(read(home.path()).await.is_ok());
    }

    #[tokio::test]
    async fn errors_name_the_file_and_what_to_do() {
        let missing = tempfile::tempdir().unwrap();
        let text = read(missing.path()).await.unwrap_err().to_string();
        assert!(text.contains(".kube/config\" does not exist; ask the operators"), "{text}");
        for (from, to, want) in [
            ("https://10.0.0.1:6443", "10.0.0.1", "invalid server \"10.0.0.1\""),
            ("current-context: x", "current-context: y", "y"),
            ("tokenFile: token", "tokenFile: nowhere", "nowhere\" does not exist"),
            ("tokenFile: token", "exec: {command: /bin/evil, apiVersion: v1}", "(exec), which is not supported"),
            ("tokenFile: token", "auth-provider: {name: evil}", "(auth-provider), which is not supported"),
            ("kind: Config", "kind: [", "invalid YAML"),
            ("kind: Config", "kind: &a x\nother: *a", "invalid YAML"),
            ("certificate-authority: ../ca.crt", "certificate-authority: ..", "it is not a regular file"),
        ] {
            let text = error(&VALID.replace(from, to)).await;
            assert!(text.contains(want) && !text.contains('\n'), "{to}: {text}");
        }
        let text = error(&format!("{VALID}#{}", "x".repeat(MAX_BYTES))).await;
        assert!(text.contains("it has more than 1048576 bytes"), "{text}");
    }

    #[tokio::test]
    async fn fifo_is_refused_at_once() {
        let home = home(VALID);
        let fifo = home.path().join(PATH);
        fs::remove_file(&fifo).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(
            read(home.path()).await,
            Err(CredentialsError::Unusable { problem: FileProblem::NotRegular, .. })
        ));
    }
}
