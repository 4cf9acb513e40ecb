//! A program from its command line to its exit status.

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

/// Why a program ends otherwise than in order. Any error is one of its work, unless [`Failure::usage`] says otherwise.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong, or a file that it names: exit status 64.
    Usage(String),
    /// It cannot do its work: exit status 1.
    Work(String),
}

impl Failure {
    /// The command line is wrong, or a file that it names.
    pub fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }

    /// Says on the log, or as clap does for the command line `C`, what went wrong, and returns the exit status.
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

/// A daemon's command line, as it was written.
pub trait DaemonOptions: Parser {
    /// What it means, checked.
    type Settings;

    /// The options that all daemons have.
    fn common(&self) -> &CommonOptions;

    /// Reads a command line, its program's name first.
    ///
    /// # Errors
    /// What is wrong there, or in a file that adds to it.
    fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        Self::try_parse_from(args)
    }

    /// Does what it says instead of serving; `None` when it says to serve.
    fn execute(&mut self) -> Option<Result<(), Failure>> {
        None
    }

    /// Resolves what was written, once.
    ///
    /// # Errors
    /// Values that are right one by one and wrong together, a file that is not there or wrong.
    fn resolve(self) -> impl Future<Output = Result<Self::Settings, Failure>>;
}

/// Runs a daemon: reads its command line, logs as that says, has `serve` do the work, and returns the exit status.
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
        // First: from here on its signals no longer end the process.
        let name = O::command().get_name().replace('-', "_");
        let lifecycle = Lifecycle::begin(&name, options.common().metrics_listen)?;
        serve(options.resolve().await?, lifecycle).await
    };
    let ended = block_on(work).map_err(Failure::from).flatten();
    ended.unwrap_or_else(|failure| failure.exit::<O>("startup failed"))
}
