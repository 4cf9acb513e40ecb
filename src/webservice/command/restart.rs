//! `webservice restart`, also webservicemonitor's command.

use std::env;
use std::io::{self, IsTerminal};

use super::backend::{Backend, Present};
use super::locked::lock;
use super::session::Session;
use super::start;
use crate::clock::unix_seconds;
use crate::tenant::MONITOR_VARIABLE;
use crate::webservice::error::WebserviceError;

/// The greatest difference between the clocks of this host and of the grid, in seconds.
const CLOCK_DIFFERENCE: u64 = 3;

/// Stops the web service if it runs, and starts it.
pub async fn run(session: &Session<'_>) -> Result<(), WebserviceError> {
    let begin = unix_seconds();
    let lock = lock(session).await?;
    let request = session.request()?;
    // webservicemonitor must not undo what a maintainer did in the meantime, also while its login was slow. Without the variable, a
    // command of its own may lack its begin marker.
    let must_yield = env::var_os(MONITOR_VARIABLE).is_some() || lock.has_waited && !io::stdin().is_terminal();
    if must_yield && request.manifest.web.is_none() {
        session.console.say("Another webservice command has stopped it meanwhile; not starting it");
        return Ok(());
    }
    session.warn_of_default(&request);
    let service = session.service(&request, &session.extra)?;
    let backend = Backend::connect(session, &request).await?;
    start::check(session, &backend, &service).await?;
    let present = backend.present().await?;
    if must_yield
        && present.as_ref().is_some_and(|present| present.is_newer_than(begin.saturating_sub(CLOCK_DIFFERENCE)))
    {
        session.console.say("Another webservice command has started it meanwhile; not restarting it");
        return Ok(());
    }
    let what = if present.as_ref().is_some_and(Present::is_alive) {
        "Restarting..."
    } else {
        session.console.say("Your job is not running, starting");
        "Starting webservice"
    };
    start::start(session, &request, &service, &backend, present.is_some(), what).await
}
