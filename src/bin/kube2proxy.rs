//! kube2proxy: has the proxy route to the web services in a Kubernetes cluster.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use tracing::{error, info};
use urlproxy::daemon::{
    Readiness, State, StopSignals, announce, block_on, exit_on, keep_watchdog_fed, new_registry, serve_status,
    start_log,
};
use urlproxy::kube::{Metrics, Options, SettingsError, serve};

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
enum NotStarted {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    start_log(options.log);
    match block_on(run(options)).map_err(NotStarted::from).and_then(|outcome| outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(NotStarted::Settings(error)) => exit_on(&Options::command().error(ErrorKind::InvalidValue, error)),
        Err(NotStarted::Io(error)) => {
            error!(%error, "not started");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), NotStarted> {
    let settings = options.into_settings().await?;
    let signals = StopSignals::catch()?;
    let (mut registry, readiness) = (new_registry("kube2proxy"), Readiness::default());
    let metrics = Metrics::register(&mut registry);
    if let Some(address) = settings.metrics_listen {
        let address = serve_status(address, registry, readiness.clone()).await?;
        info!(%address, "telling of itself");
    }
    info!(cluster = %settings.watch.config.cluster_url, redis = settings.redis, "following");
    tokio::spawn(keep_watchdog_fed());
    announce(State::Ready);
    serve(settings, metrics, readiness, async {
        signals.received().await;
        announce(State::Stopping);
    })
    .await;
    info!("ended");
    Ok(())
}
