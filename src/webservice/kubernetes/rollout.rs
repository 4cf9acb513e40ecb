//! Creates, replaces and deletes the objects of a web service.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use kube::core::Selector;
use tokio::time::sleep;

use super::api::{Api, Object, name_of};
use super::api_error::ApiError;
use super::labels::{self, Labels};
use super::objects::{self, TYPE};
use super::workload::Workload;

/// Attempts to write an object that others change at the same time.
const ATTEMPTS: u32 = 8;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// When a web service was started: the value of [`objects::STARTED_AT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedAt(String);

impl StartedAt {
    fn now() -> Self {
        Self(Timestamp::now().to_string())
    }

    /// RFC 3339.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StartedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Creates or replaces the Service, then the Deployment, so that nothing runs if the Service is refused. If the Deployment is refused,
/// a Service that was not there before is deleted again.
///
/// # Errors
/// The API server does not answer, or refuses.
pub async fn put(
    api: &Api,
    namespace: &str,
    tool: &str,
    home: &str,
    workload: &Workload,
) -> Result<StartedAt, ApiError> {
    let started_at = StartedAt::now();
    let created = write(api, namespace, tool, |current| next_service(tool, current)).await?;
    let build = |kept: &Labels| objects::deployment(tool, home, workload, started_at.as_str(), kept);
    let deployment = |current| next_deployment(current, tool, build);
    if let Err(error) = write(api, namespace, tool, deployment).await {
        if let (Some(service), false) = (created, error.is_ambiguous()) {
            // The first error is the one to report.
            let _ = api.delete::<Service>(namespace, &service.metadata).await;
        }
        return Err(error);
    }
    Ok(started_at)
}

/// How to get from the current object to the wanted one.
enum Step<K> {
    Create(K),
    Replace(K),
    /// The current one cannot become the wanted one.
    Delete(Box<ObjectMeta>),
    /// The current one is being deleted.
    Wait,
}

/// Takes steps until the object is as wanted. Returns it if it was created.
async fn write<K: Object>(
    api: &Api,
    namespace: &str,
    name: &str,
    next: impl Fn(Option<K>) -> Step<K>,
) -> Result<Option<K>, ApiError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let outcome = match next(api.get(namespace, name).await?) {
            Step::Create(wanted) => api.create(namespace, &wanted).await.map(|created| Some(Some(created))),
            Step::Replace(wanted) => api.replace(namespace, &wanted).await.map(|_| Some(None)),
            Step::Delete(current) => api.delete::<K>(namespace, &current).await.map(|()| None),
            Step::Wait => Ok(None),
        };
        match outcome {
            Ok(Some(done)) => return Ok(done),
            Ok(None) if attempt >= ATTEMPTS => {
                return Err(ApiError::StillThere { what: format!("{} {name:?}", K::kind(&())) });
            }
            Err(error) if attempt >= ATTEMPTS || !(error.is_conflict() || error.is_ambiguous()) => return Err(error),
            Ok(None) | Err(_) => sleep(PAUSE).await,
        }
    }
}

fn next_service(tool: &str, current: Option<Service>) -> Step<Service> {
    let wanted = objects::service(tool);
    let Some(mut current) = current else { return Step::Create(wanted) };
    if current.metadata.deletion_timestamp.is_some() {
        return Step::Wait;
    }
    let spec = current.spec.get_or_insert_default();
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    if is_headless || spec.type_.as_deref() == Some("ExternalName") {
        return Step::Delete(Box::new(current.metadata));
    }
    let wanted_spec = wanted.spec.unwrap_or_default();
    spec.ports = wanted_spec.ports;
    // A selector of an older command selects the new Pods too; with it, no request is lost while they replace the old ones.
    let selects = |selector: &Labels| !selector.is_empty() && labels::have(&labels::web(tool), selector);
    if !spec.selector.as_ref().is_some_and(selects) {
        spec.selector = wanted_spec.selector;
    }
    current.labels_mut().extend(wanted.metadata.labels.unwrap_or_default());
    current.status = None;
    Step::Replace(current)
}

/// The selector of a Deployment is immutable, so `build` gets the labels that the existing one selects by.
fn next_deployment(current: Option<Deployment>, tool: &str, build: impl Fn(&Labels) -> Deployment) -> Step<Deployment> {
    let Some(current) = current else { return Step::Create(build(&BTreeMap::new())) };
    if current.metadata.deletion_timestamp.is_some() {
        return Step::Wait;
    }
    let selector = current.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    let (kept, ours) = (selector.match_labels.unwrap_or_default(), labels::web(tool));
    let contradicts = kept.iter().any(|(name, value)| ours.get(name).is_some_and(|own| own != value));
    // Without the tool's name it may select Pods of something else.
    let is_usable = selector.match_expressions.unwrap_or_default().is_empty() && kept.contains_key("name");
    if contradicts || !is_usable {
        return Step::Delete(Box::new(current.metadata));
    }
    let mut wanted = build(&kept);
    let own = std::mem::replace(&mut wanted.metadata, current.metadata);
    wanted.labels_mut().extend(own.labels.unwrap_or_default());
    wanted.annotations_mut().extend(own.annotations.unwrap_or_default());
    Step::Replace(wanted)
}

/// The type of a Deployment of this command, or of an older one, which has it in its command only.
pub fn type_of(deployment: &Deployment) -> Option<String> {
    if let Some(name) = deployment.annotations().get(TYPE) {
        return Some(name.clone());
    }
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let words = pod.containers.first()?.command.as_ref()?;
    let at = words.iter().position(|word| word == "--type")?;
    words.get(at + 1).cloned()
}

/// The Pods that the Deployment selects; without one, those that have the labels of a web service.
///
/// # Errors
/// The API server does not answer, or refuses.
pub async fn pods(
    api: &Api,
    namespace: &str,
    tool: &str,
    deployment: Option<&Deployment>,
) -> Result<Vec<Pod>, ApiError> {
    let own = deployment.and_then(selector_of);
    let selectors = own.map_or_else(|| labels::web_selectors(tool).to_vec(), |selector| vec![selector]);
    owned_by(api, namespace, &selectors, "ReplicaSet").await
}

fn selector_of(deployment: &Deployment) -> Option<String> {
    let selector = Selector::try_from(deployment.spec.as_ref()?.selector.clone()).ok()?;
    Some(selector.to_string()).filter(|text| !text.is_empty())
}

/// What these selectors select, unless another kind of controller made it, such as a Job.
async fn owned_by<K: Object>(
    api: &Api,
    namespace: &str,
    selectors: &[String],
    controller: &str,
) -> Result<Vec<K>, ApiError> {
    let mut found: BTreeMap<String, K> = BTreeMap::new();
    for selector in selectors {
        for object in api.list::<K>(namespace, selector).await? {
            let owners = object.meta().owner_references.as_deref().unwrap_or_default();
            let is_foreign = owners.iter().any(|owner| owner.controller == Some(true) && owner.kind != controller);
            if !is_foreign {
                found.insert(name_of(object.meta()).to_owned(), object);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Deletes everything of the web service: the Service first, so that no request reaches Pods that end. What a Deployment with other
/// labels has created is deleted by the cluster: its selector may select Pods that are not its own.
///
/// # Errors
/// The API server does not answer, or refuses.
pub async fn delete(api: &Api, namespace: &str, tool: &str) -> Result<(), ApiError> {
    if let Some(service) = api.get::<Service>(namespace, tool).await? {
        api.delete::<Service>(namespace, &service.metadata).await?;
    }
    if let Some(deployment) = api.get::<Deployment>(namespace, tool).await? {
        api.delete::<Deployment>(namespace, &deployment.metadata).await?;
    }
    delete_selected(api, namespace, &labels::web_selectors(tool)).await?;
    Ok(())
}

/// Deletes what has appeared since, and returns what is still there, such as `pod hello-1`.
///
/// # Errors
/// The API server does not answer, or refuses.
pub async fn delete_rest(api: &Api, namespace: &str, tool: &str) -> Result<Vec<String>, ApiError> {
    let mut left = delete_selected(api, namespace, &labels::web_selectors(tool)).await?;
    if api.get::<Deployment>(namespace, tool).await?.is_some() {
        left.push(format!("deployment {tool}"));
    }
    if api.get::<Service>(namespace, tool).await?.is_some() {
        left.push(format!("service {tool}"));
    }
    Ok(left)
}

async fn delete_selected(api: &Api, namespace: &str, selectors: &[String]) -> Result<Vec<String>, ApiError> {
    let mut left = Vec::new();
    // The ReplicaSets first: they would replace Pods.
    for set in owned_by::<ReplicaSet>(api, namespace, selectors, "Deployment").await? {
        delete_once(api, namespace, &set).await?;
        left.push(format!("replicaset {}", set.name_any()));
    }
    for pod in owned_by::<Pod>(api, namespace, selectors, "ReplicaSet").await? {
        delete_once(api, namespace, &pod).await?;
        left.push(format!("pod {}", pod.name_any()));
    }
    Ok(left)
}

async fn delete_once<K: Object>(api: &Api, namespace: &str, object: &K) -> Result<(), ApiError> {
    match object.meta().deletion_timestamp {
        Some(_) => Ok(()),
        None => api.delete::<K>(namespace, object.meta()).await,
    }
}
