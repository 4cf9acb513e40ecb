//! `webservice stop`.

use super::backend::Backend;
use super::locked::lock;
use super::session::Session;
use crate::webservice::error::WebserviceError;

/// Stops the web service for good. The manifest's type goes first, or else webservicemonitor would start it again; its backend goes
/// last, so that a stop that failed is repeated there.
pub async fn run(session: &Session<'_>) -> Result<(), WebserviceError> {
    let _lock = lock(session).await?;
    let request = session.request()?;
    let backend = Backend::connect(session, &request).await?;
    session.manifest_file.remove_all_but_backend(request.backend.name)?;
    if backend.present().await?.is_none() {
        backend.remove_rest().await?;
        session.manifest_file.remove_service()?;
        session.console.answer("Your webservice is not running")?;
        return Ok(());
    }
    let mut wait = session.console.wait("Stopping webservice");
    backend.stop(session.timeout(), &mut wait).await?;
    drop(wait);
    Ok(session.manifest_file.remove_service()?)
}
