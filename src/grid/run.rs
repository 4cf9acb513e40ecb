//! Starts proxylistener's tasks.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use tracing::info;

use super::audit::audit;
use super::listener::serve_clients;
use super::options::Options;
use super::registrar::Registrar;
use super::reload::reload_on_hangup;
use super::settings::Settings;
use crate::daemon::{CommonOptions, DaemonOptions, Failure, Lifecycle, bind, on_worker};

impl DaemonOptions for Options {
    type Settings = Settings;

    fn common(&self) -> &CommonOptions {
        &self.common
    }

    fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        Self::read_with_file(args)
    }

    async fn resolve(self) -> Result<Settings, Failure> {
        self.into_settings().map_err(Failure::usage)
    }
}

/// Serves clients, audits routes and reloads at SIGHUP, until shutdown.
///
/// # Errors
/// The address of `--listen` or `--metrics-listen` cannot be bound.
pub async fn serve(settings: Settings, mut lifecycle: Lifecycle) -> Result<ExitCode, Failure> {
    let hangups = lifecycle.take_hangups();
    let listener = bind("--listen", settings.listen).await?;
    let registrar = Arc::new(Registrar::new(&settings, lifecycle.registry()));
    let readiness = lifecycle.readiness();
    let (_, shutdown) = lifecycle.start().await?;
    info!(address = %listener.local_addr()?, redis = settings.redis.reach().to_string(), "listening for registrations");
    if let Some(hangups) = hangups {
        tokio::spawn(reload_on_hangup(hangups, settings, Arc::clone(&registrar)));
    }
    tokio::spawn(audit(Arc::clone(&registrar)));
    let checked = Arc::clone(&registrar);
    tokio::spawn(async move { checked.probe_writes(readiness).await });
    on_worker(serve_clients(listener, registrar, shutdown)).await;
    info!("shutdown complete");
    Ok(ExitCode::SUCCESS)
}
