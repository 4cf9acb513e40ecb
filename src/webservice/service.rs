//! A tool, the web service that it wants, and the state of that.

use std::path::PathBuf;

/// The tool whose account runs the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// E.g. `hello`.
    pub name: String,
    /// `<project>.<tool>`, e.g. `tools.hello`.
    pub account: String,
    /// The account's home.
    pub home: PathBuf,
    /// The account's uid.
    pub uid: u32,
}

/// What is to run: from the command line, else service.template, else service.manifest, else the site's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The type of web service; empty with an image of the tool's own.
    pub web: String,
    /// The release of the grid's hosts.
    pub release: Option<String>,
    /// The limit of processors in Kubernetes, e.g. `500m`.
    pub cpu: Option<String>,
    /// The limit of memory in Kubernetes, e.g. `512Mi`.
    pub memory: Option<String>,
    /// The number of pods in Kubernetes.
    pub replicas: Option<u32>,
    /// Arguments for the type.
    pub extra: Vec<String>,
    /// An image of the tool's own, in place of the type's.
    pub buildservice_image: Option<String>,
}

/// The state of a web service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing runs.
    Stopped,
    /// It waits to run.
    Pending {
        /// One line, not escaped; may be empty.
        reason: String,
    },
    /// It runs.
    Running,
    /// It does not run, and no more attempt follows.
    Failed {
        /// One line, not escaped.
        reason: String,
    },
    /// It is being stopped.
    Stopping,
}

impl State {
    /// The word in `status --json`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Pending { .. } => "pending",
            Self::Running => "running",
            Self::Failed { .. } => "failed",
            Self::Stopping => "stopping",
        }
    }

    /// The reason, if there is one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Pending { reason } | Self::Failed { reason } => Some(reason.as_str()).filter(|text| !text.is_empty()),
            _ => None,
        }
    }
}
