//! portreleaser: has the proxies forget the service of whoever runs it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info};

use super::active_proxy::{self, DEFAULT_PATH, Proxy};
use super::registration::Registration;
use super::status::EX_OSERR;

/// For all proxies at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tries at one proxy.
const TRIES: usize = 4;

const HELP: &str = "\
It is for a queue's epilog to run, as the user of the job that has ended, and may run twice. Each proxy is tried up to
four times, for 10 s at most.

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

/// Runs the program, and returns its exit status.
pub fn run(options: Options) -> u8 {
    let status = match active_proxy::read(&options.active_proxy_file) {
        Ok(proxies) => {
            if proxies.is_empty() {
                info!("no proxy in {:?}: nothing to unregister", options.active_proxy_file);
            }
            super::block_on(release(proxies)).unwrap_or_else(|error| {
                error!("{error} while starting");
                EX_OSERR
            })
        }
        Err(error) => {
            error!("{error}");
            error.status()
        }
    };
    if options.strict { status } else { 0 }
}

async fn release(proxies: Vec<Proxy>) -> u8 {
    let by = Instant::now() + PATIENCE;
    let mut running = JoinSet::new();
    for proxy in proxies {
        running.spawn(async move { Registration::inherited(proxy).unregister(by, TRIES).await });
    }
    u8::from(running.join_all().await.iter().any(Result::is_err))
}
