//! invisible-unicorn: has the proxy send whole domains to the backends that their projects name.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use tracing::info;
use urlproxy::daemon::{Failure, Lifecycle, exit_on, exit_with, run, start_log};
use urlproxy::domains::{self, Metrics, Options, Server};

fn main() -> ExitCode {
    let mut options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    match options.command.take() {
        Some(command) => {
            start_log(options.log);
            let done = options.execute(command, &mut std::io::stdout().lock());
            exit_with::<Options>(done.map(|()| ExitCode::SUCCESS).map_err(|error| failure(error.into())), "not done")
        }
        None => run::<Options>(options.log, work(options)),
    }
}

async fn work(options: Options) -> Result<ExitCode, Failure> {
    let mut lifecycle = Lifecycle::begin("invisible_unicorn")?;
    let settings = options.into_settings().map_err(Failure::usage)?;
    let (metrics, readiness) = (Metrics::register(lifecycle.registry()), lifecycle.readiness());
    let (metrics_listen, redis) = (settings.metrics_listen, settings.redis.clone());
    let mut server = Server::open(settings).await.map_err(|error| failure(error.into()))?;
    if let Some(status) = lifecycle.listen(metrics_listen).await? {
        server.exclude(status);
    }
    let shutdown = lifecycle.start()?;
    info!(address = %server.address()?, redis, "listening");
    server.serve(metrics, readiness, shutdown).await;
    info!("ended");
    Ok(ExitCode::SUCCESS)
}

fn failure(error: domains::Failure) -> Failure {
    if error.is_usage() { Failure::usage(error) } else { Failure::work(error) }
}
