//! `webservice logs`.

use std::io::{self, IsTerminal};

use super::session::Session;
use crate::web_type::BackendName;
use crate::webservice::error::WebserviceError;
use crate::webservice::kubernetes::Kubernetes;
use crate::webservice::terminal_text::TerminalText;

/// Lines of the log on the grid without `--last`.
const DEFAULT_LINES: u32 = 50;

/// Prints the end of the log: that of the containers, or ~/error.log. What a terminal may act on is escaped.
pub async fn run(session: &Session<'_>) -> Result<(), WebserviceError> {
    let request = session.request()?;
    let (follow, last) = (session.options.follow, session.options.last);
    let is_terminal = io::stdout().is_terminal();
    match request.backend.name {
        BackendName::Kubernetes => {
            let kubernetes = Kubernetes::connect(&session.tool, &session.site).await?;
            Ok(kubernetes.logs(follow, last, is_terminal, &mut io::stdout()).await?)
        }
        BackendName::GridEngine => {
            let (log, count) = (&session.error_log, last.unwrap_or(DEFAULT_LINES));
            if is_terminal {
                return Ok(log.print(count, follow, TerminalText::new(io::stdout())).await?);
            }
            Ok(log.print(count, follow, io::stdout()).await?)
        }
    }
}
