//! Why the command fails.

use std::io;

use super::account::AccountError;
use super::error_log::ErrorLogError;
use super::gridengine::GridError;
use super::kubernetes::KubernetesError;
use super::lock::LockError;
use super::manifest_file::ManifestError;
use super::plan::PlanError;
use super::proxy_check::ProxyCheckError;
use super::template::TemplateError;
use crate::web_type::{NeedError, SiteConfigError};

/// Why `webservice` fails; exit status 1.
#[derive(Debug, thiserror::Error)]
pub enum WebserviceError {
    /// The user is no tool.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The site's configuration.
    #[error("{0}; ask an administrator")]
    Site(#[from] SiteConfigError),
    /// Another command runs, or the home is not writable.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// service.template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// service.manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What the command line and the files ask for.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Something is missing in the home.
    #[error(transparent)]
    Need(#[from] NeedError),
    /// error.log.
    #[error(transparent)]
    ErrorLog(#[from] ErrorLogError),
    /// The grid.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// Kubernetes.
    #[error(transparent)]
    Kubernetes(Box<KubernetesError>),
    /// The list of a proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyCheckError),
    /// There is nothing to start. Scripts look for the first line.
    #[error("Your job is already running{0}")]
    AlreadyRunning(String),
    /// The web service did not come up.
    #[error("your webservice did not start: {reason}{log}")]
    NotStarted {
        /// Why.
        reason: String,
        /// The last lines of the log, each on a line of its own.
        log: String,
    },
    /// The web service is not on the web.
    #[error("your webservice cannot be reached after {seconds} s: {reason}{log}")]
    NotReachable {
        /// The time that it had.
        seconds: u64,
        /// Why.
        reason: String,
        /// The last lines of the log, each on a line of its own.
        log: String,
    },
    /// Pods or the like are left.
    #[error("your webservice is still being stopped after {0} s; `webservice status` shows when it is gone")]
    NotStopped(u64),
    /// Standard output or the runtime.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<KubernetesError> for WebserviceError {
    fn from(error: KubernetesError) -> Self {
        Self::Kubernetes(Box::new(error))
    }
}

impl WebserviceError {
    /// Whether the reader of standard output has gone, which is no failure.
    pub fn is_closed_output(&self) -> bool {
        match self {
            Self::Io(error) | Self::ErrorLog(ErrorLogError::Output(error)) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Kubernetes(error) => {
                matches!(&**error, KubernetesError::Io { error, .. } if error.kind() == io::ErrorKind::BrokenPipe)
            }
            _ => false,
        }
    }
}
