//! proxylistener: lets jobs on the grid tell where their tool listens.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use tokio::net::TcpListener;
use tracing::{error, info, warn};
use urlproxy::daemon::{State, StopSignals, exit_on, raise_file_limit, start_log, tell_systemd};
use urlproxy::grid::{Options, Settings, serve};

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    start_log(options.log_format);
    let settings = match options.into_settings() {
        Ok(settings) => settings,
        Err(error) => return exit_on(&Options::command().error(ErrorKind::InvalidValue, error)),
    };
    // A client and its identd take one each.
    let needed = 2 * settings.max_connections as u64 + 64;
    if let Some(limit) = raise_file_limit().filter(|limit| *limit < needed) {
        warn!(limit, needed, "few open files allowed for --max-connections");
    }
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "not started");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(settings: Settings) -> std::io::Result<()> {
    let signals = StopSignals::catch()?;
    let listener = TcpListener::bind(settings.listen).await?;
    info!(address = %listener.local_addr()?, redis = settings.redis, "listening");
    tell(State::Ready);
    serve(listener, settings, async {
        signals.received().await;
        tell(State::Stopping);
    })
    .await;
    info!("ended");
    Ok(())
}

fn tell(state: State) {
    if let Err(error) = tell_systemd(state) {
        warn!(%error, "systemd not told");
    }
}
