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
    if backend.present().await?.is_none() {
        backend.remove_rest().await?;
        session.console.answer("Your webservice is not running")?;
        return Ok(());
    }
    let mut wait = session.console.wait("Stopping webservice");
    backend.stop(session.timeout(), &mut wait).await
}
