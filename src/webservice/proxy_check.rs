//! `--wait`: waits until the active proxy routes to the tool.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::console::Wait;
use crate::grid::client::{ActiveProxyError, read_active_proxies};
use crate::proxy_list::{ListError, ListUrl};
use crate::web_type::SiteConfig;

/// The time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// An older list proves nothing about a web service that has just been started.
const MAX_LIST_AGE: Duration = Duration::from_secs(60);
/// The time between two requests.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Why it is unknown whether a proxy routes to the tool.
#[derive(Debug, thiserror::Error)]
pub enum ProxyCheckError {
    /// The URL in the site's configuration.
    #[error("list_url of the site: {0}; ask an administrator")]
    Url(String),
    /// The list of proxies.
    #[error("{0}; ask an administrator")]
    Proxies(#[from] ActiveProxyError),
}

/// The lists of the site's proxies.
#[derive(Debug)]
pub struct ProxyCheck<'a> {
    url: ListUrl,
    file: &'a Path,
}

/// How the wait ended.
#[derive(Debug)]
pub enum Listed {
    /// A proxy routes to the tool.
    Yes,
    /// No proxy does.
    No,
    /// No proxy says.
    Unknown(ListError),
    /// The other condition was met first.
    Interrupted,
}

impl<'a> ProxyCheck<'a> {
    /// # Errors
    /// [`ProxyCheckError::Url`].
    pub fn of(site: &'a SiteConfig) -> Result<Self, ProxyCheckError> {
        let url = ListUrl::parse(&site.list_url).map_err(ProxyCheckError::Url)?;
        Ok(Self { url, file: &site.active_proxy_file })
    }

    /// Waits until a proxy routes to the tool, or `has_ended` says so.
    ///
    /// # Errors
    /// [`ProxyCheckError::Proxies`].
    pub async fn wait_until_listed(
        &self,
        tool: &str,
        time: Duration,
        wait: &mut Wait,
        mut has_ended: impl AsyncFnMut() -> bool,
    ) -> Result<Listed, ProxyCheckError> {
        let begin = Instant::now();
        loop {
            let proxies = if self.url.is_for_each_proxy() { read_active_proxies(self.file)? } else { Vec::new() };
            let listing = wait.during(self.url.fetch(&proxies, REQUEST_TIMEOUT, MAX_LIST_AGE)).await;
            let outcome = match listing {
                Ok(listing) if listing.tools.contains(tool) => return Ok(Listed::Yes),
                Ok(_) => Listed::No,
                Err(error) => Listed::Unknown(error),
            };
            if wait.during(has_ended()).await {
                return Ok(Listed::Interrupted);
            }
            if begin.elapsed() >= time {
                return Ok(outcome);
            }
            wait.set_reason(match &outcome {
                Listed::Unknown(_) => "no proxy answers",
                _ => "not yet registered with the proxy",
            });
            wait.during(sleep(POLL_INTERVAL)).await;
        }
    }
}
