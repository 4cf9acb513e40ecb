//! portreleaser: unregisters the service of the user who runs it.

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

/// Time for all proxies together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Tries per proxy.
const TRIES: usize = 4;

const HELP: &str = "\
Runs in a queue's epilog, as the user of the ended job; running it twice does no harm. Tries each proxy up to four
times, for 10 s at most.

webservice-runner and portgrabber record their registrations in a file of the job's scratch directory (JOB_ID, TMPDIR).
With this record, portreleaser unregisters exactly those URLs, and no other job's. Without it, each proxy of FILE removes
the service that this user has registered from this host.

FILE lists one proxy per line: host, host:port, address, [IPv6 address] or [IPv6 address]:port; the default port is
8282. Blank lines and comments from # on are ignored.

Exit status: 0, also if unregistering failed, which standard error reports: Grid Engine disables a queue whose epilog
fails. 64 on usage errors. With --strict also 1 if unregistering from a proxy failed, 66 if FILE cannot be read, 78 if a
line of FILE is invalid.

    qconf -mattr queue epilog /usr/bin/portreleaser webgrid-generic";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "portreleaser",
    version,
    about = "Unregisters the web service of the user who runs it",
    after_help = HELP
)]
pub struct Options {
    /// File that lists the proxies
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    active_proxy_file: PathBuf,
    /// Report failures by the exit status, too
    #[arg(long)]
    strict: bool,
}

/// A proxy, and the URL to unregister, if that is known.
type Release = (Proxy, Option<Backend>);

/// Runs the program, and returns its exit status.
///
/// # Errors
/// The active-proxy file cannot be read, or is invalid. Status 0 without `--strict`.
pub fn work(options: Options) -> Result<u8, Failure> {
    let outcome = options.releases().map_err(Failure::from).and_then(|releases| {
        super::block_on(release(releases)).map_err(|error| Failure::system(error, "starting portreleaser"))
    });
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
                    info!("the job left no registration; nothing to unregister");
                }
                return Ok(entries.into_iter().map(|(proxy, url)| (proxy, Some(url))).collect());
            }
            Err(error @ RecordError::None) => {
                info!("{error}; unregistering whatever this user registered from this host")
            }
            Err(error) => warn!("{error}; unregistering whatever this user registered from this host"),
        }
        let proxies = active_proxy::read(&self.active_proxy_file)?;
        if proxies.is_empty() {
            info!("no proxy in {:?}; nothing to unregister", self.active_proxy_file);
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
