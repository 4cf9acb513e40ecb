//! A tool, the web service that it wants, and the state of that.

use std::path::PathBuf;

/// The tool of the account that runs the command.
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

/// The type of an image of the tool's own.
pub const BUILDSERVICE: &str = "buildservice";

/// What is to run: from the command line, else service.template, else service.manifest, else the site's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The type of web service; [`BUILDSERVICE`] with an image of the tool's own.
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

impl Service {
    /// EXTRA as it follows the options of webservice-runner, none of which it may become.
    pub fn runner_arguments(&self) -> impl Iterator<Item = &str> {
        let is_option_like = self.extra.first().is_some_and(|first| first.starts_with('-'));
        is_option_like.then_some("--").into_iter().chain(self.extra.iter().map(String::as_str))
    }
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
