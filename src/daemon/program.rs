//! Runs a program, from its command line to its exit status.

use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing::error;

use super::lifecycle::Lifecycle;
use super::log::start_log;
use super::options::CommonOptions;
use super::runtime::block_on;
use super::usage::exit_on;

/// Why a program fails. `?` turns any error into [`Failure::Work`]; [`Failure::usage`] makes it a usage error.
#[derive(Debug)]
pub enum Failure {
    /// Invalid command line, or a file that it names is invalid: exit status 64.
    Usage(String),
    /// Any other failure: exit status 1.
    Work(String),
}

impl Failure {
    /// A usage error.
    pub fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }

    /// Logs the failure, usage errors in clap's format for the command line `C`, and returns the exit status.
    fn exit<C: Parser>(self, what: &str) -> ExitCode {
        match self {
            Self::Usage(error) => exit_on(&C::command().error(ErrorKind::InvalidValue, error)),
            Self::Work(error) => {
                error!(%error, "{what}");
                ExitCode::FAILURE
            }
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Work(error.to_string())
    }
}

/// A daemon's parsed command line.
pub trait DaemonOptions: Parser {
    /// The validated settings.
    type Settings;

    /// The options that all daemons have.
    fn common(&self) -> &CommonOptions;

    /// Parses a command line, the program's name first.
    ///
    /// # Errors
    /// The command line is invalid, or a file that adds options to it.
    fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        Self::try_parse_from(args)
    }

    /// Runs a command instead of serving; `None` if the command line has no command.
    fn execute(&mut self) -> Option<Result<(), Failure>> {
        None
    }

    /// Validates the options, once.
    ///
    /// # Errors
    /// Options contradict each other, or a file that they name is missing or invalid.
    fn resolve(self) -> impl Future<Output = Result<Self::Settings, Failure>>;
}

/// Runs a daemon: parses its command line, starts the log, runs `serve`, and returns the exit status.
pub fn run<O, W>(serve: impl FnOnce(O::Settings, Lifecycle) -> W) -> ExitCode
where
    O: DaemonOptions,
    W: Future<Output = Result<ExitCode, Failure>>,
{
    let args: Vec<_> = std::env::args_os().collect();
    let mut options = match O::read(&args) {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    start_log(options.common().log);
    if let Some(done) = options.execute() {
        return done.map_or_else(|failure| failure.exit::<O>("command failed"), |()| ExitCode::SUCCESS);
    }
    let work = async {
        // First: from here on, signals no longer kill the process.
        let name = O::command().get_name().replace('-', "_");
        let lifecycle = Lifecycle::begin(&name, options.common().metrics_listen)?;
        serve(options.resolve().await?, lifecycle).await
    };
    let outcome = block_on(work).map_err(Failure::from).flatten();
    outcome.unwrap_or_else(|failure| failure.exit::<O>("startup failed"))
}
