//! invisible-unicorn: has the proxy send whole domains to the backends that their projects name.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use prometheus_client::registry::Registry;
use tracing::{error, info};
use urlproxy::daemon::{
    Readiness, State, StopSignals, announce, block_on, exit_on, keep_watchdog_fed, serve_status, start_log,
};
use urlproxy::domains::{CommandError, Metrics, Options, Server, SettingsError, StartError};

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn main() -> ExitCode {
    let mut options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    start_log(options.log);
    let outcome = match options.command.take() {
        Some(command) => options.execute(command, &mut std::io::stdout().lock()).map_err(NotDone::from),
        None => block_on(run(options)).map_err(NotDone::from).and_then(|outcome| outcome),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(NotDone::Settings(error) | NotDone::Command(CommandError::Settings(error))) => {
            exit_on(&Options::command().error(ErrorKind::InvalidValue, error))
        }
        Err(error) => {
            error!(%error, "not done");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), NotDone> {
    let settings = options.into_settings()?;
    let signals = StopSignals::catch()?;
    let (mut registry, readiness) = (Registry::default(), Readiness::default());
    let metrics = Metrics::register(&mut registry);
    let (metrics_listen, redis) = (settings.metrics_listen, settings.redis.clone());
    let server = Server::open(settings).await?;
    if let Some(address) = metrics_listen {
        let address = serve_status(address, registry, readiness.clone()).await?;
        info!(%address, "telling of itself");
    }
    info!(address = %server.address()?, redis, "listening");
    tokio::spawn(keep_watchdog_fed());
    announce(State::Ready);
    server
        .serve(metrics, readiness, async {
            signals.received().await;
            announce(State::Stopping);
        })
        .await;
    info!("ended");
    Ok(())
}
