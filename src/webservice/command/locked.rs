//! Takes the tool's lock, and repairs what a killed command left.

use super::backend::Backend;
use super::session::{Request, Session};
use crate::tenant::Manifest;
use crate::webservice::error::WebserviceError;
use crate::webservice::lock::Lock;
use crate::webservice::plan::ChosenBackend;
use crate::webservice::template::Template;

/// Takes the lock. If a command was killed between starting the web service and writing down that it did, writes it down now.
///
/// # Errors
/// The home is not writable, or another command holds the lock for too long.
pub async fn lock(session: &Session<'_>) -> Result<Lock, WebserviceError> {
    let lock = Lock::take(&session.tool.home, session.console).await?;
    let Some(leftover) = session.manifest_file.read_leftover() else { return Ok(lock) };
    let backend = leftover.backend.as_deref().and_then(|name| name.parse().ok());
    let (Some(web), Some(name)) = (leftover.web, backend) else { return Ok(lock) };
    let request = Request {
        template: Template::default(),
        manifest: Manifest::default(),
        backend: ChosenBackend { name, is_default: false },
        other_types: vec![web.clone()],
    };
    // An unreachable backend is reported by the action itself.
    let Ok(backend) = Backend::connect(session, &request).await else { return Ok(lock) };
    if let Ok(Some(present)) = backend.present().await
        && present.web.as_ref().is_none_or(|present| *present == web)
    {
        session.manifest_file.adopt_leftover()?;
    }
    Ok(lock)
}
