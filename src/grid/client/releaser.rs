//! portreleaser: has the proxies forget the service of whoever runs it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::active_proxy::{self, ActiveProxyError, DEFAULT_PATH, Proxy};
use super::failure::Failure;
use super::job_record::{RecordError, of_ended_job};
use super::protocol_support::ProtocolSupport;
use super::unregistration::unregister;
use crate::route::Backend;

/// For all proxies at once.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Tries at one proxy.
const TRIES: usize = 4;

const HELP: &str = "\
It is for a queue's epilog to run, as the user of the job that has ended, and may run twice. Each proxy is tried up to
four times, for 10 s at most.

webservice-runner and portgrabber write what they have registered into a file of the job's scratch directory
(JOB_ID, TMPDIR). With it, that URL is unregistered from the proxy that may know of it, and no other job's. Without it,
each proxy of FILE forgets whatever service this user has on this host.

FILE has a proxy on each line: host, host:port, address, [IPv6 address] or [IPv6 address]:port; the port is 8282 if not
said. Blank lines and what follows # do not count.

Exit status: 0, also when a proxy could not be told, which standard error says then: Grid Engine stops using a queue
whose epilog fails. 64 for a wrong command line. With --strict also 1 when a proxy could not be told, 66 when FILE
cannot be read, 78 when a line of FILE is no proxy.

    qconf -mattr queue epilog /usr/bin/portreleaser webgrid-generic";

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = "portreleaser",
    version,
    about = "Has the proxies send no more requests to the service of the user who runs it",
    after_help = HELP
)]
pub struct Options {
    /// File with the proxies to tell
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    active_proxy_file: PathBuf,
    /// Say by the exit status, too, that a proxy could not be told
    #[arg(long)]
    strict: bool,
}

/// A proxy that may know of something, and of which URL, if that is known.
type Release = (Proxy, Option<Backend>);

/// Runs the program, and returns its exit status.
///
/// # Errors
/// Which proxies there are is not known.
pub fn work(options: Options) -> Result<u8, Failure> {
    let outcome = options
        .releases()
        .map_err(Failure::from)
        .and_then(|releases| super::block_on(release(releases)).map_err(|error| Failure::system(error, "starting")));
    if options.strict {
        return outcome;
    }
    outcome.map(|_| 0).map_err(|failure| Failure { status: 0, ..failure })
}

impl Options {
    fn releases(&self) -> Result<Vec<Release>, ActiveProxyError> {
        match of_ended_job() {
            Ok(entries) => {
                if entries.is_empty() {
                    info!("the job has left nothing registered: nothing to unregister");
                }
                return Ok(entries.into_iter().map(|(proxy, url)| (proxy, Some(url))).collect());
            }
            Err(error @ RecordError::None) => info!("{error}: unregistering what this user has on this host"),
            Err(error) => warn!("{error}: unregistering what this user has on this host"),
        }
        let proxies = active_proxy::read(&self.active_proxy_file)?;
        if proxies.is_empty() {
            info!("no proxy in {:?}: nothing to unregister", self.active_proxy_file);
        }
        Ok(proxies.into_iter().map(|proxy| (proxy, None)).collect())
    }
}

async fn release(releases: Vec<Release>) -> u8 {
    let by = Instant::now() + TIMEOUT;
    let mut running = JoinSet::new();
    for (proxy, url) in releases {
        running
            .spawn(async move { unregister(&proxy, url.as_ref(), &mut ProtocolSupport::default(), by, TRIES).await });
    }
    u8::from(running.join_all().await.iter().any(Result::is_err))
}
