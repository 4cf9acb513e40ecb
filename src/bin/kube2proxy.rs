//! kube2proxy: has the proxy route to the web services in a Kubernetes cluster.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use tracing::info;
use urlproxy::daemon::{Failure, Lifecycle, exit_on, on_worker, run};
use urlproxy::kube::{Metrics, Options, serve};

fn main() -> ExitCode {
    match Options::try_parse() {
        Ok(options) => run::<Options>(options.log, work(options)),
        Err(error) => exit_on(&error),
    }
}

async fn work(options: Options) -> Result<ExitCode, Failure> {
    let mut lifecycle = Lifecycle::begin("kube2proxy")?;
    let settings = options.into_settings().await.map_err(Failure::usage)?;
    let (metrics, readiness) = (Metrics::register(lifecycle.registry()), lifecycle.readiness());
    let shutdown = lifecycle.serve(settings.metrics_listen).await?;
    info!(cluster = %settings.watch.config.cluster_url, redis = settings.redis, "following");
    on_worker(serve(settings, metrics, readiness, shutdown)).await;
    info!("ended");
    Ok(ExitCode::SUCCESS)
}
