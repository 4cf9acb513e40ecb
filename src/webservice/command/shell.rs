//! `webservice shell`.

use super::session::Session;
use crate::web_type::BackendName;
use crate::webservice::error::WebserviceError;
use crate::webservice::kubernetes::Kubernetes;
use crate::webservice::plan::PlanError;

/// Opens a shell, or runs EXTRA, in a container like that of the web service. Returns its exit status.
pub async fn run(session: &Session<'_>) -> Result<u8, WebserviceError> {
    let request = session.request()?;
    if request.backend.name == BackendName::GridEngine {
        return Err(PlanError::KubernetesOnly("shell").into());
    }
    session.warn_of_default(&request);
    let service = session.service(&request, &[])?;
    let words = session.extra.iter().map(|word| word.clone().into_string().map_err(PlanError::NotUtf8));
    let command: Vec<String> = words.collect::<Result<_, _>>()?;
    let kubernetes = Kubernetes::connect(&session.tool, &session.site).await?;
    Ok(kubernetes.shell(&service, &command).await?)
}
