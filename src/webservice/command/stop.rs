//! `webservice stop`.

use super::backend::Backend;
use super::locked::lock;
use super::session::Session;
use crate::webservice::error::WebserviceError;

/// Stops the web service for good. The manifest comes first, or else webservicemonitor would start it again.
pub async fn run(session: &Session<'_>) -> Result<(), WebserviceError> {
    let _lock = lock(session).await?;
    let request = session.request()?;
    let backend = Backend::connect(session, &request).await?;
    session.manifest_file.remove_service()?;
    let outcome = stop(session, &backend).await;
    let name = request.backend.name;
    if outcome.is_err() && name != session.site.default_backend {
        // The manifest said it, and does no more.
        session.console.say(format!("It may still run; to stop it: webservice --backend={name} stop"));
    }
    outcome
}

async fn stop(session: &Session<'_>, backend: &Backend<'_>) -> Result<(), WebserviceError> {
    if backend.present().await?.is_none() {
        backend.remove_rest().await?;
        session.console.answer("Your webservice is not running")?;
        return Ok(());
    }
    let mut wait = session.console.wait("Stopping webservice");
    backend.stop(session.timeout(), &mut wait).await
}
