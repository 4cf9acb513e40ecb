//! webservicemonitor: restarts the web services on the grid that should run and do not.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use tracing::{error, info};
use urlproxy::daemon::{
    Readiness, State, StopSignals, announce, block_on, exit_on, keep_watchdog_fed, new_registry, serve_status,
    start_log,
};
use urlproxy::monitor::{Metrics, Options, Settings, append_if_told, serve};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(status) = append_if_told(&args) {
        return ExitCode::from(status);
    }
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    start_log(options.log);
    let settings = match options.into_settings() {
        Ok(settings) => settings,
        Err(error) => return exit_on(&Options::command().error(ErrorKind::InvalidValue, error)),
    };
    match block_on(run(settings)).map_err(Into::into).and_then(|outcome| outcome) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            error!(%error, "not started");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let signals = StopSignals::catch()?;
    let (mut registry, readiness) = (new_registry("webservicemonitor"), Readiness::default());
    let metrics = Metrics::register(&mut registry);
    if let Some(address) = settings.metrics_listen {
        let address = serve_status(address, registry, readiness.clone()).await?;
        info!(%address, "telling of itself");
    }
    tokio::spawn(keep_watchdog_fed());
    announce(State::Ready);
    let outcome = serve(settings, metrics, readiness, async {
        signals.received().await;
        announce(State::Stopping);
    });
    Ok(outcome.await?)
}
