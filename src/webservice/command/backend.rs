//! The same acts on the grid and in Kubernetes.

use std::path::PathBuf;
use std::time::Duration;

use super::session::{Request, Session};
use crate::grid::JobState;
use crate::web_type::BackendName;
use crate::webservice::console::Wait;
use crate::webservice::error::WebserviceError;
use crate::webservice::gridengine::{Found, GridEngine, GridError, Started, check_words};
use crate::webservice::kubernetes::{Kubernetes, StartedAt};
use crate::webservice::service::{Service, State};

/// One tool on one backend.
pub enum Backend<'a> {
    Grid { session: &'a Session<'a>, engine: GridEngine<'a> },
    Kubernetes { kubernetes: Box<Kubernetes<'a>> },
}

/// A web service that is there.
#[derive(Debug)]
pub struct Present {
    /// Its type, if the backend says it.
    pub web: Option<String>,
    /// Its state; for the grid without a reason.
    pub state: State,
    /// The job, on the grid.
    job: Option<Found>,
}

/// A start that was accepted.
#[derive(Debug)]
pub enum Submitted {
    Grid { number: u64, log_start: u64, server_log: Option<PathBuf> },
    Kubernetes(StartedAt),
}

impl<'a> Backend<'a> {
    /// # Errors
    /// There are no valid credentials for Kubernetes.
    pub async fn connect(session: &'a Session<'a>, request: &'a Request) -> Result<Self, WebserviceError> {
        Ok(match request.backend.name {
            BackendName::GridEngine => {
                let (tool, site) = (&session.tool, &session.site);
                let engine = GridEngine::new(tool, site, &request.other_types, session.own_config());
                Self::Grid { session, engine }
            }
            BackendName::Kubernetes => {
                let kubernetes = Kubernetes::connect(&session.tool, &session.site).await?;
                Self::Kubernetes { kubernetes: Box::new(kubernetes) }
            }
        })
    }

    /// Checks all that can be wrong before anything is changed. Returns what the maintainer should know.
    ///
    /// # Errors
    /// Something is missing in the home, a value is invalid, or the log cannot be written.
    pub async fn check(&self, service: &Service) -> Result<Option<String>, WebserviceError> {
        match self {
            Self::Grid { session, .. } => {
                check_words(&service.extra).map_err(GridError::from)?;
                if let Some(web_type) = session.site.web_type(&service.web) {
                    web_type.check_needs(&session.tool.home, &service.extra)?;
                }
                session.error_log.check_writable()?;
                Ok(None)
            }
            Self::Kubernetes { kubernetes } => Ok(kubernetes.check(service).await?),
        }
    }

    /// The web service that is there; `None` if none is.
    ///
    /// # Errors
    /// The backend does not answer.
    pub async fn present(&self) -> Result<Option<Present>, WebserviceError> {
        match self {
            Self::Grid { engine, .. } => {
                let found = engine.find().await?;
                Ok(found.map(|found| Present {
                    web: Some(found.web.clone()),
                    state: unexplained(found.state),
                    job: Some(found),
                }))
            }
            Self::Kubernetes { kubernetes } => match kubernetes.state().await? {
                State::Stopped => Ok(None),
                state => Ok(Some(Present { web: kubernetes.running_type().await?, state, job: None })),
            },
        }
    }

    /// The state with its reason.
    pub async fn explain(&self, present: &Present) -> State {
        match (self, &present.job) {
            (Self::Grid { engine, .. }, Some(job)) => engine.state(job).await,
            _ => present.state.clone(),
        }
    }

    /// Starts the web service. In Kubernetes it replaces one that is there.
    ///
    /// # Errors
    /// The backend refuses.
    pub async fn submit(&self, service: &Service) -> Result<Submitted, WebserviceError> {
        Ok(match self {
            Self::Grid { session, engine } => {
                let log_start = session.error_log.check_writable()?;
                let web_type = session.site.web_type(&service.web);
                let server_log = web_type.and_then(|found| found.log(&session.tool.home));
                Submitted::Grid { number: engine.submit(service).await?, log_start, server_log }
            }
            Self::Kubernetes { kubernetes } => Submitted::Kubernetes(kubernetes.start(service).await?),
        })
    }

    /// Waits until it runs.
    ///
    /// # Errors
    /// The backend does not answer to the end.
    pub async fn wait_until_running(
        &self,
        submitted: &Submitted,
        time: Duration,
        wait: &mut Wait,
    ) -> Result<State, WebserviceError> {
        Ok(match (self, submitted) {
            (Self::Grid { engine, .. }, Submitted::Grid { number, .. }) => {
                match engine.wait_until_running(*number, time, wait).await? {
                    Started::Running => State::Running,
                    Started::Pending(reason) => State::Pending { reason },
                    Started::Failed(reason) => State::Failed { reason },
                    Started::Ended => State::Failed { reason: "it ended at once".into() },
                }
            }
            (Self::Kubernetes { kubernetes }, Submitted::Kubernetes(started_at)) => {
                kubernetes.wait_until_running(started_at, time, wait).await?
            }
            // Each backend accepts its own starts only.
            _ => State::Stopped,
        })
    }

    /// The last lines of the log since the start.
    pub fn log_since(&self, submitted: &Submitted) -> String {
        match (self, submitted) {
            (Self::Grid { session, .. }, Submitted::Grid { log_start, server_log, .. }) => {
                let tail = session.error_log.tail_since(*log_start);
                let path = session.error_log.path().display();
                let server_log = server_log.as_ref().map(|log| format!("; its server logs to {}", log.display()));
                let server_log = server_log.unwrap_or_default();
                if tail.is_empty() {
                    format!("{server_log}; there is nothing new in {path}")
                } else {
                    format!("{server_log}; the last lines of {path}:{tail}")
                }
            }
            _ => String::new(),
        }
    }

    /// Stops whatever is there, and waits until it is gone.
    ///
    /// # Errors
    /// The backend does not answer, or it is still there after this time.
    pub async fn stop(&self, time: Duration, wait: &mut Wait) -> Result<(), WebserviceError> {
        match self {
            Self::Grid { engine, .. } => Ok(engine.delete(time, wait).await?),
            Self::Kubernetes { kubernetes } => {
                wait.during(kubernetes.stop()).await?;
                match kubernetes.wait_until_stopped(time, wait).await? {
                    true => Ok(()),
                    false => Err(WebserviceError::NotStopped(time.as_secs())),
                }
            }
        }
    }

    /// Removes what may be left although nothing runs: a Service without its Deployment.
    ///
    /// # Errors
    /// The backend does not answer.
    pub async fn remove_rest(&self) -> Result<(), WebserviceError> {
        match self {
            Self::Grid { .. } => Ok(()),
            Self::Kubernetes { kubernetes } => Ok(kubernetes.stop().await?),
        }
    }

    /// Whether it must be stopped before it is started again.
    pub fn needs_stop(&self) -> bool {
        matches!(self, Self::Grid { .. })
    }
}

impl Present {
    /// Whether it began to run after this time, or is about to.
    pub fn is_newer_than(&self, time: u64) -> bool {
        match &self.job {
            Some(Found { state: JobState::Running, since, .. }) => since.is_some_and(|since| since >= time),
            Some(Found { state: JobState::Pending, .. }) => true,
            _ => false,
        }
    }

    /// Whether it runs or is about to run.
    pub fn is_alive(&self) -> bool {
        matches!(self.state, State::Running | State::Pending { .. })
    }
}

fn unexplained(state: JobState) -> State {
    match state {
        JobState::Running => State::Running,
        JobState::Pending => State::Pending { reason: String::new() },
        JobState::Deleting => State::Stopping,
        JobState::Failed => State::Failed { reason: String::new() },
        JobState::Finished => State::Stopped,
    }
}
