//! proxylistener: lets jobs on the grid tell where their tool listens.
#![deny(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use tracing::info;
use urlproxy::daemon::{Failure, Lifecycle, bind, exit_on, on_worker, run};
use urlproxy::grid::{Options, Registrar, Settings, audit, reload_at, serve};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    match Options::read(&args) {
        Ok(settings) => run::<Options>(settings.log, work(args, settings)),
        Err(error) => exit_on(&error),
    }
}

async fn work(args: Vec<OsString>, settings: Settings) -> Result<ExitCode, Failure> {
    let mut lifecycle = Lifecycle::begin("proxylistener")?;
    let hangups = lifecycle.take_hangups();
    let listener = bind("--listen", settings.listen).await?;
    let registrar = Arc::new(Registrar::new(&settings, lifecycle.registry()));
    let readiness = lifecycle.readiness();
    let shutdown = lifecycle.serve(settings.metrics_listen).await?;
    info!(address = %listener.local_addr()?, redis = settings.redis, "listening");
    if let Some(hangups) = hangups {
        tokio::spawn(reload_at(hangups, args, settings, Arc::clone(&registrar)));
    }
    tokio::spawn(audit(Arc::clone(&registrar)));
    let checked = Arc::clone(&registrar);
    tokio::spawn(async move { checked.follow_writability(readiness).await });
    on_worker(serve(listener, registrar, shutdown)).await;
    info!("ended");
    Ok(ExitCode::SUCCESS)
}
