//! Carries out one command: `session` is what all actions need, `backend` does the same on the grid and in Kubernetes, and each action
//! has a file.

mod backend;
mod locked;
mod logs;
mod restart;
mod session;
mod shell;
mod start;
mod status;
mod stop;

use super::console::Console;
use super::error::WebserviceError;
use super::options::{Action, Options, Words};
use super::plan;
use crate::web_type::SiteConfig;
use session::Session;

/// Carries out the command. Returns its exit status.
///
/// # Errors
/// See [`WebserviceError`].
pub async fn execute(options: Options, words: Words, console: &Console) -> Result<u8, WebserviceError> {
    let action = words.action;
    let session = Session::begin(options, words, console)?;
    match action {
        Action::Start => start::run(&session).await.map(|()| 0),
        Action::Stop => stop::run(&session).await.map(|()| 0),
        Action::Restart => restart::run(&session).await.map(|()| 0),
        Action::Status => status::run(&session).await.map(|()| 0),
        Action::Logs => logs::run(&session).await.map(|()| 0),
        Action::Shell => shell::run(&session).await,
    }
}

/// Lists the types of web service.
///
/// # Errors
/// The site's configuration is invalid, or standard output cannot be written.
pub fn list_types(options: &Options, console: &Console) -> Result<u8, WebserviceError> {
    let site = SiteConfig::read(&options.config)?;
    for line in plan::list(&site, None).lines().filter(|line| !line.is_empty()) {
        console.answer(line.trim_start())?;
    }
    Ok(0)
}
