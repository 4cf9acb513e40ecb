//! `webservice status`.

use serde::Serialize;

use super::backend::Backend;
use super::session::Session;
use crate::web_type::BackendName;
use crate::webservice::error::WebserviceError;
use crate::webservice::service::State;

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    tool: &'a str,
    backend: BackendName,
    state: &'static str,
    running: bool,
    #[serde(rename = "type")]
    web: Option<&'a str>,
    reason: Option<&'a str>,
    url: Option<String>,
}

/// Prints whether the web service runs.
pub async fn run(session: &Session<'_>) -> Result<(), WebserviceError> {
    let request = session.request()?;
    let backend = Backend::connect(session, &request).await?;
    let present = backend.present().await?;
    let state = match &present {
        Some(present) => backend.explain(present).await,
        None => State::Stopped,
    };
    let web = present.as_ref().and_then(|present| present.web.as_deref().or(request.manifest.web.as_deref()));
    let name = request.backend.name;
    if session.options.json {
        let answer = Answer {
            tool: &session.tool.name,
            backend: name,
            state: state.as_str(),
            running: state == State::Running,
            web,
            reason: state.reason(),
            url: session.site.url_of(&session.tool.name),
        };
        session.console.json(&answer)?;
        return Ok(());
    }
    let of_type = web.map(|web| format!(" of type {web}")).unwrap_or_default();
    let because = state.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
    session.console.answer(match state {
        State::Running => format!("Your webservice{of_type} is running on backend {name}"),
        State::Stopped => "Your webservice is not running".into(),
        State::Pending { .. } => format!("Your webservice{of_type} waits to run on backend {name}{because}"),
        State::Stopping => format!("Your webservice{of_type} is being stopped on backend {name}"),
        State::Failed { .. } => {
            format!("Your webservice{of_type} has failed on backend {name}{because}; `webservice restart` tries again")
        }
    })?;
    Ok(())
}
