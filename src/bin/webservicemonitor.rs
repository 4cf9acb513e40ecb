//! webservicemonitor: restarts the web services on the grid that should run and do not.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use urlproxy::daemon::{Failure, Lifecycle, exit_on, run};
use urlproxy::monitor::{Metrics, Options, append_if_told, begin_if_told, serve};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(status) = append_if_told(&args).or_else(|| begin_if_told(&args)) {
        return ExitCode::from(status);
    }
    match Options::try_parse_from(args) {
        Ok(options) => run::<Options>(options.log, work(options)),
        Err(error) => exit_on(&error),
    }
}

async fn work(options: Options) -> Result<ExitCode, Failure> {
    let mut lifecycle = Lifecycle::begin("webservicemonitor")?;
    let settings = options.into_settings().map_err(Failure::usage)?;
    let (metrics, readiness) = (Metrics::register(lifecycle.registry()), lifecycle.readiness());
    let shutdown = lifecycle.serve(settings.metrics_listen).await?;
    let is_whole = serve(settings, metrics, readiness, shutdown).await.map_err(Failure::work)?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
