//! `webservice start`, and the part of `restart` that starts.

use super::backend::{Backend, Present, Submitted};
use super::locked::lock;
use super::session::{Request, Session, manifest_of};
use crate::webservice::console::Wait;
use crate::webservice::error::WebserviceError;
use crate::webservice::proxy_check::{Listed, ProxyCheck};
use crate::webservice::service::{Service, State};

/// Starts the web service, unless one is there.
pub async fn run(session: &Session<'_>) -> Result<(), WebserviceError> {
    let _lock = lock(session).await?;
    let request = session.request()?;
    session.warn_of_default(&request);
    let service = session.service(&request, &session.extra)?;
    let backend = Backend::connect(session, &request).await?;
    check(session, &backend, &service).await?;
    let present = backend.present().await?;
    if let Some(present) = present.as_ref().filter(|present| present.is_alive()) {
        return Err(WebserviceError::AlreadyRunning(hint(present, &service)));
    }
    start(session, &request, &service, &backend, present.is_some(), "Starting webservice").await
}

/// Checks all that can be wrong before anything is changed, and says what the maintainer should know.
pub async fn check(session: &Session<'_>, backend: &Backend<'_>, service: &Service) -> Result<(), WebserviceError> {
    // Before anything is started: it would be useless to wait.
    if session.options.wait {
        ProxyCheck::of(&session.site)?;
    }
    if let Some(remark) = backend.check(service).await? {
        session.console.say(remark);
    }
    Ok(())
}

fn hint(present: &Present, service: &Service) -> String {
    let web = present.web.as_deref().filter(|web| *web != service.web);
    let of_type = web.map(|web| format!(", of type {web}")).unwrap_or_default();
    format!("\n`webservice status` shows it{of_type}; `webservice restart` starts it anew")
}

/// Starts the web service, after what is left of an earlier one was stopped, and waits until it runs.
pub async fn start(
    session: &Session<'_>,
    request: &Request,
    service: &Service,
    backend: &Backend<'_>,
    is_present: bool,
    what: &str,
) -> Result<(), WebserviceError> {
    let manifest = manifest_of(service, request.backend.name, &request.manifest);
    // First on disk: an unwritable home or a full disk starts and stops nothing.
    let next = session.manifest_file.prepare(&manifest)?;
    let mut wait = session.console.wait(what);
    if is_present && backend.needs_stop() {
        backend.stop(session.timeout(), &mut wait).await?;
    }
    let submitted = wait.during(backend.submit(service)).await?;
    next.commit()?;
    let state = backend.wait_until_running(&submitted, session.timeout(), &mut wait).await?;
    match state {
        State::Running if session.options.wait => {
            wait_for_proxy(session, backend, &submitted, &mut wait).await?;
        }
        State::Running => {}
        State::Pending { reason } if !session.options.wait => {
            drop(wait);
            let reason = if reason.is_empty() { "the backend does not say why".to_owned() } else { reason };
            session.console.say(format!(
                "Your webservice waits to run: {reason}. It starts as soon as it can; `webservice status` shows whether it runs, \
                 `webservice stop` gives up"
            ));
            return Ok(());
        }
        state => {
            let reason = match (state.reason(), &state) {
                (Some(reason), _) => reason.to_owned(),
                (None, State::Pending { .. }) => format!("it still waits after {} s", session.timeout().as_secs()),
                (None, State::Stopping | State::Stopped) => "somebody stopped it".into(),
                (None, _) => "the backend does not say why".into(),
            };
            return Err(WebserviceError::NotStarted { reason, log: backend.log_since(&submitted) });
        }
    }
    drop(wait);
    if let Some(url) = session.site.url_of(&session.tool.name) {
        session.console.say(format!("Your webservice is at {url}"));
    }
    Ok(())
}

/// Waits until the proxy routes to the tool.
async fn wait_for_proxy(
    session: &Session<'_>,
    backend: &Backend<'_>,
    submitted: &Submitted,
    wait: &mut Wait,
) -> Result<(), WebserviceError> {
    let (check, time) = (ProxyCheck::of(&session.site)?, session.timeout());
    let has_ended =
        async || backend.present().await.is_ok_and(|present| present.is_none_or(|present| !present.is_alive()));
    let listed = check.wait_until_listed(&session.tool.name, time, wait, has_ended).await?;
    let reason = match listed {
        Listed::Yes => return Ok(()),
        Listed::Interrupted => {
            let log = backend.log_since(submitted);
            return Err(WebserviceError::NotStarted { reason: "it ran, but has ended".into(), log });
        }
        Listed::No => {
            "it runs, but is not registered with the proxy; it must listen on the port in PORT, on all addresses".into()
        }
        Listed::Unknown(error) => format!("it runs, but no proxy says whether it is registered: {error}"),
    };
    Err(WebserviceError::NotReachable { seconds: time.as_secs(), reason, log: backend.log_since(submitted) })
}
