//! urlproxyctl: shows what the proxy routes and why, and changes routes in Redis.
//!
//! `options` is the command line, `settings` what all commands share. `admin_client` asks nginx (`api` has its JSON),
//! `redis_entries` reads Redis. Each file of `command` is one command, or two. `console`, `text_table`, `escape` and `words`
//! print: everything that a tenant may have written is escaped.
#![warn(missing_docs)]

mod admin_client;
mod api;
mod arguments;
mod command;
mod console;
mod export_line;
mod import_plan;
mod options;
mod outcome;
mod redis_entries;
mod settings;
mod text_table;
mod words;

// Reached by the fuzz targets too.
#[doc(hidden)]
pub use {
    admin_client::AdminUrl,
    command::shown,
    export_line::ExportLine,
    import_plan::{Plan, Step, Wanted},
    redis_entries::{Entries, Entry},
    settings::parse as parse_settings,
};

use std::io::Write;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use crate::daemon::{block_on, exit_on};
use crate::escape::Escaped;
use console::Console;
use options::{Options, definition};
use outcome::{Answer, CtlError};

/// Runs urlproxyctl, and returns its exit status.
pub fn run() -> ExitCode {
    let options = definition().try_get_matches().and_then(|matches| Options::from_arg_matches(&matches));
    let options = match options {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    let work = async {
        let mut console = Console::new(options.common.json);
        let answer = command::execute(options, &mut console).await;
        // What was printed before an error counts.
        let flushed = console.flush();
        let answer = answer?;
        flushed?;
        Ok::<_, CtlError>(answer)
    };
    let outcome = block_on(work).map_err(CtlError::failed).flatten();
    outcome.map_or_else(|error| fail(&error), |answer: Answer| answer.into())
}

fn fail(error: &CtlError) -> ExitCode {
    if let CtlError::Usage(error) = error {
        return exit_on(&definition().error(ErrorKind::InvalidValue, Escaped(error)));
    }
    if !error.is_closed_pipe() {
        // A failure to print cannot be reported anywhere.
        let _ = writeln!(std::io::stderr(), "urlproxyctl: {}", Escaped(error));
    }
    error.exit_code()
}
