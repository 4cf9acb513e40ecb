//! Why something of a web service in Kubernetes fails.

use std::io;
use std::path::PathBuf;

use super::api_error::ApiError;
use super::images::ImagesError;
use super::kubeconfig::CredentialsError;
use super::workload::WorkloadError;

/// A failure, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// No usable credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A request fails.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// What is to run is invalid.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The types are unreadable.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// The tool's objects cannot have its name.
    #[error(
        "tool {name:?} cannot run in Kubernetes: its Service {name:?} and its namespace {namespace:?} need names of at most 63 lower-case letters, digits and \"-\"; use --backend=gridengine"
    )]
    ToolName {
        /// The tool.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// The home is not UTF-8.
    #[error("home {0:?} is not UTF-8, which Kubernetes requires of a directory")]
    Home(PathBuf),
    /// A word of the command has a NUL.
    #[error("argument {0:?} has a NUL byte, which no command line can have")]
    NulInCommand(String),
    /// The interactive Pod does not start.
    #[error("the shell does not start: {0}")]
    ShellFailed(String),
    /// The interactive Pod does not start in time.
    #[error("the shell does not start within {seconds} s: {reason}")]
    ShellTooLate {
        /// The time that it had.
        seconds: u64,
        /// What it waits for.
        reason: String,
    },
    /// The shell's connection ends before the shell.
    #[error("connection to the shell lost: {0}")]
    ShellLost(String),
    /// The interactive Pod remains.
    #[error("{error}; it ends by itself, or delete it with: kubectl delete pod -n {namespace} {pod}")]
    ShellRemains {
        /// Why.
        error: Box<ApiError>,
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// There are no Pods, so no logs.
    #[error("no pod of the web service, so no logs; start it with: webservice start")]
    NoPods,
    /// The terminal or the output fails.
    #[error("{error} while {doing}")]
    Io {
        /// The system's error.
        error: io::Error,
        /// What was tried.
        doing: &'static str,
    },
}
