//! proxylistener: lets jobs on the grid tell where their tool listens.
#![deny(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use urlproxy::daemon::{
    Readiness, State, StopSignals, announce, block_on, exit_on, keep_watchdog_fed, new_registry, serve_status,
    start_log,
};
use urlproxy::grid::{Options, Registrar, Settings, audit, reload_at, serve};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let settings = match Options::read(&args) {
        Ok(settings) => settings,
        Err(error) => return exit_on(&error),
    };
    start_log(settings.log);
    match block_on(run(args, settings)).and_then(|outcome| outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "not started");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Vec<OsString>, settings: Settings) -> std::io::Result<()> {
    let (signals, hangups) = (StopSignals::catch()?, signal(SignalKind::hangup())?);
    let listener = TcpListener::bind(settings.listen).await?;
    let mut registry = new_registry("proxylistener");
    let registrar = Arc::new(Registrar::new(&settings, &mut registry));
    let readiness = Readiness::default();
    if let Some(address) = settings.metrics_listen {
        let address = serve_status(address, registry, readiness.clone()).await?;
        info!(%address, "telling of itself");
    }
    info!(address = %listener.local_addr()?, redis = settings.redis, "listening");
    tokio::spawn(keep_watchdog_fed());
    tokio::spawn(reload_at(hangups, args, settings, Arc::clone(&registrar)));
    tokio::spawn(audit(Arc::clone(&registrar)));
    readiness.set(true);
    announce(State::Ready);
    serve(listener, registrar, async {
        signals.received().await;
        readiness.set(false);
        announce(State::Stopping);
    })
    .await;
    info!("ended");
    Ok(())
}
