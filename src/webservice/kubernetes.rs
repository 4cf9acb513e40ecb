//! A tool's web service in Kubernetes: a Deployment and a Service in the tool's namespace, with the tool's own credentials.
//!
//! `kubeconfig` (credentials) -> `api` (requests) -> `rollout` (start, restart, stop) of `objects` (as created) for a `workload` (what
//! runs: `images` of types, `resources`), `pod_state` (the state), `shell` (with `attached` and `terminal`) and `logs`.

mod api;
mod api_error;
mod attached;
mod error;
mod images;
mod kubeconfig;
mod labels;
mod log_line;
mod logs;
mod objects;
mod pod_state;
mod resources;
mod rollout;
mod shell;
mod terminal;
mod workload;

use std::io::Write;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service as ApiService};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use super::{Service, State, Tool, Wait};
use crate::web_type::SiteConfig;
use api::Api;
use workload::Workload;

pub use api_error::ApiError;
pub use error::KubernetesError;
pub use rollout::StartedAt;
// Reached by the fuzz targets too.
#[doc(hidden)]
pub use {
    attached::failure,
    images::Images,
    kubeconfig::{CredentialsError, resolve as resolve_kubeconfig},
    log_line::{LogLine, LogReader},
    pod_state::state,
    resources::Resources,
    rollout::type_of,
};

/// Between two looks at the state.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The longest name of a Service or a namespace, RFC 1123.
const MAX_NAME_LEN: usize = 63;

/// One tool's part of a cluster.
pub struct Kubernetes<'a> {
    tool: &'a Tool,
    site: &'a SiteConfig,
    home: String,
    namespace: String,
    api: Api,
    images: OnceCell<Images>,
}

impl<'a> Kubernetes<'a> {
    /// Reads the credentials of the tool. Sends no request yet.
    ///
    /// # Errors
    /// The credentials are missing or invalid, or the tool's name is none of Kubernetes.
    pub async fn connect(tool: &'a Tool, site: &'a SiteConfig) -> Result<Self, KubernetesError> {
        let namespace = site.kubernetes.namespace_of(&tool.name);
        if !is_name(&tool.name) || !is_name(&namespace) {
            return Err(KubernetesError::ToolName { name: tool.name.clone(), namespace });
        }
        let home = tool.home.to_str().ok_or_else(|| KubernetesError::Home(tool.home.clone()))?.to_owned();
        let api = Api::new(kubeconfig::read(&tool.home).await?)?;
        Ok(Self { tool, site, home, namespace, api, images: OnceCell::new() })
    }

    /// Checks what is to run before anything is changed. Returns what the maintainer should know about it.
    ///
    /// # Errors
    /// The type is unknown, its needs are not in the home, a quantity is invalid ...; or the API server does not answer.
    pub async fn check(&self, service: &Service) -> Result<Option<String>, KubernetesError> {
        let workload = self.workload(service).await?;
        // The Pods see the same home.
        if let Some(web_type) = workload.runner_type.as_deref().and_then(|name| self.site.web_type(name)) {
            web_type.check_needs(&self.tool.home, &service.extra)?;
        }
        Ok(workload.warning)
    }

    /// The state of the web service.
    ///
    /// # Errors
    /// The API server does not answer, or refuses.
    pub async fn state(&self) -> Result<State, KubernetesError> {
        let deployment: Option<Deployment> = self.api.get(&self.namespace, &self.tool.name).await?;
        let service: Option<ApiService> = self.api.get(&self.namespace, &self.tool.name).await?;
        let pods = rollout::pods(&self.api, &self.namespace, &self.tool.name, deployment.as_ref()).await?;
        let has_service = service.is_some_and(|service| service.metadata.deletion_timestamp.is_none());
        Ok(pod_state::state(deployment.as_ref(), has_service, &pods))
    }

    /// The type of the web service that there is; `None` if there is none, or if its Deployment does not say.
    ///
    /// # Errors
    /// As for [`state`](Self::state).
    pub async fn running_type(&self) -> Result<Option<String>, KubernetesError> {
        let deployment: Option<Deployment> = self.api.get(&self.namespace, &self.tool.name).await?;
        Ok(deployment.as_ref().and_then(rollout::type_of))
    }

    /// Creates the Deployment and the Service. Replaces those that are there: their Pods are replaced, the Service keeps its address.
    ///
    /// # Errors
    /// As for [`check`](Self::check) and [`state`](Self::state).
    pub async fn start(&self, service: &Service) -> Result<StartedAt, KubernetesError> {
        let workload = self.workload(service).await?;
        Ok(rollout::put(&self.api, &self.namespace, &self.tool.name, &self.home, &workload).await?)
    }

    /// The state of what was started at this time.
    ///
    /// # Errors
    /// As for [`state`](Self::state).
    pub async fn state_since(&self, started_at: &StartedAt) -> Result<State, KubernetesError> {
        let deployment: Option<Deployment> = self.api.get(&self.namespace, &self.tool.name).await?;
        let pods = rollout::pods(&self.api, &self.namespace, &self.tool.name, deployment.as_ref()).await?;
        Ok(match &deployment {
            Some(deployment) => pod_state::state_since(deployment, &pods, started_at.as_str()),
            None => pod_state::state(None, false, &pods),
        })
    }

    /// Waits until a Pod that was started at this time runs, or has failed. Returns the last state.
    ///
    /// # Errors
    /// As for [`state`](Self::state).
    pub async fn wait_until_running(
        &self,
        started_at: &StartedAt,
        time: Duration,
        wait: &mut Wait,
    ) -> Result<State, KubernetesError> {
        let deadline = Instant::now() + time;
        let mut failed_before = false;
        loop {
            let state = wait.during(self.state_since(started_at)).await?;
            wait.set_reason(state.reason().unwrap_or_default());
            // Once more: what the last Pods reported may still be there.
            let is_final = match state {
                State::Running => true,
                State::Failed { .. } => std::mem::replace(&mut failed_before, true),
                _ => {
                    failed_before = false;
                    false
                }
            };
            if is_final || Instant::now() + POLL_INTERVAL > deadline {
                return Ok(state);
            }
            wait.during(sleep(POLL_INTERVAL)).await;
        }
    }

    /// Deletes Service, Deployment, ReplicaSets and Pods of the web service, and nothing else of the tool. They may be gone already.
    ///
    /// # Errors
    /// As for [`state`](Self::state).
    pub async fn stop(&self) -> Result<(), KubernetesError> {
        Ok(rollout::delete(&self.api, &self.namespace, &self.tool.name).await?)
    }

    /// Waits until everything of the web service is gone; false if something is left after this time.
    ///
    /// # Errors
    /// As for [`state`](Self::state).
    pub async fn wait_until_stopped(&self, time: Duration, wait: &mut Wait) -> Result<bool, KubernetesError> {
        let deadline = Instant::now() + time;
        loop {
            let left = wait.during(rollout::delete_rest(&self.api, &self.namespace, &self.tool.name)).await?;
            if left.is_empty() {
                return Ok(true);
            }
            wait.set_reason(&format!("still there: {}", left.join(", ")));
            if Instant::now() + POLL_INTERVAL > deadline {
                return Ok(false);
            }
            wait.during(sleep(POLL_INTERVAL)).await;
        }
    }

    /// Runs a command, or an interactive shell without one, in a Pod of its own with the type's image. Returns its exit status, or
    /// 128 + N after signal N. The Pod is deleted in any case.
    ///
    /// # Errors
    /// The Pod does not start, or its connection is lost.
    pub async fn shell(&self, service: &Service, command: &[String]) -> Result<u8, KubernetesError> {
        let workload = self.workload(service).await?;
        shell::run(&self.api, &self.namespace, &self.home, &workload, command).await
    }

    /// Writes the container's log, `TIME [POD] MESSAGE`: all of it, or the `last` lines of each Pod. With `follow` until the output or
    /// the program ends. `escape` replaces what a terminal may act on.
    ///
    /// # Errors
    /// There is no Pod, the API server does not answer, or the output cannot be written.
    pub async fn logs(
        &self,
        follow: bool,
        last: Option<u32>,
        escape: bool,
        output: &mut (impl Write + Send),
    ) -> Result<(), KubernetesError> {
        let logs = logs::Logs { api: &self.api, namespace: &self.namespace, tool: &self.tool.name, last, escape };
        if follow { logs.follow(output).await } else { logs.print(output).await }
    }

    async fn workload(&self, service: &Service) -> Result<Workload, KubernetesError> {
        let images = self.images.get_or_try_init(|| self.read_images()).await?;
        Ok(Workload::resolve(service, self.tool, self.site, images)?)
    }

    /// The types of the ConfigMap; none without it, or without the right to read it.
    async fn read_images(&self) -> Result<Images, KubernetesError> {
        let Some(place) = &self.site.kubernetes.images else { return Ok(Images::default()) };
        match self.api.get::<ConfigMap>(&place.namespace, &place.name).await {
            Ok(Some(config_map)) => Ok(Images::read(&config_map, &place.key)?),
            Ok(None) => Ok(Images::default()),
            Err(error) if error.is_forbidden() => Ok(Images::default()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether it is a label of RFC 1123, as the names of Services and namespaces are.
fn is_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME_LEN).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        for name in ["a", "hello", "3d-2", &"x".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Hello", "a_b", "a.b", "-a", "a-", "wîki", "a/b", &"x".repeat(64)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
