//! invisible-unicorn: has the proxy send whole domains to the backends that their projects name.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use prometheus_client::registry::Registry;
use tracing::{error, info};
use urlproxy::daemon::{
    Readiness, State, StopSignals, announce, block_on, exit_on, keep_watchdog_fed, serve_status, start_log,
};
use urlproxy::domains::{Failure, Metrics, Options, Server};

fn main() -> ExitCode {
    let mut options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    start_log(options.log);
    let outcome = match options.command.take() {
        Some(command) => options.execute(command, &mut std::io::stdout().lock()).map_err(Failure::from),
        None => block_on(run(options)).map_err(Failure::from).and_then(|outcome| outcome),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_usage() => exit_on(&Options::command().error(ErrorKind::InvalidValue, error)),
        Err(error) => {
            error!(%error, "not done");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Failure> {
    let settings = options.into_settings()?;
    let signals = StopSignals::catch()?;
    let (mut registry, readiness) = (Registry::default(), Readiness::default());
    let metrics = Metrics::register(&mut registry);
    let (metrics_listen, redis) = (settings.metrics_listen, settings.redis.clone());
    let mut server = Server::open(settings).await?;
    if let Some(address) = metrics_listen {
        let address = serve_status(address, registry, readiness.clone()).await?;
        info!(%address, "telling of itself");
        server.exclude(address);
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
