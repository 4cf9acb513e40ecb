//! The tenants' command that starts, stops and shows a tool's web service, on the grid or in Kubernetes.
//!
//! `options` is the command line, `command` carries it out. `account` finds the tool, `lock` excludes a second command, `template`
//! and `manifest_file` are files in the home, `plan` says what follows from all that for a `service`. `gridengine` and `kubernetes` are
//! the backends, `error_log` is what a job prints, `proxy_check` asks whether the tool is on the web, `console` prints.

mod account;
mod command;
mod console;
mod error;
mod error_log;
mod gridengine;
pub mod kubernetes;
mod lock;
mod manifest_file;
mod nearest;
mod options;
mod plan;
mod proxy_check;
mod service;
mod template;
mod terminal_text;

use std::process::ExitCode;

use clap::Parser;

use crate::daemon::{block_on, exit_on};

pub use console::{Console, Wait};
pub use error::WebserviceError;
pub use options::Options;
pub use service::{Service, State, Tool};
pub use template::Template;
// Reached by the fuzz targets too.
#[doc(hidden)]
pub use {gridengine::reason, terminal_text::TerminalText};

/// Runs the command, and returns its exit status.
pub fn run() -> ExitCode {
    let mut options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return exit_on(&error),
    };
    let console = Console::new();
    let outcome = if options.types {
        command::list_types(&options, &console)
    } else {
        let words = match options.words() {
            Ok(words) => words,
            Err(error) => return exit_on(&error),
        };
        block_on(command::execute(options, words, &console)).map_err(WebserviceError::from).flatten()
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.is_closed_output() => ExitCode::SUCCESS,
        // Scripts look for this text.
        Err(error @ WebserviceError::AlreadyRunning(_)) => {
            console.say(error);
            ExitCode::FAILURE
        }
        Err(error) => {
            console.say(format!("webservice: {error}"));
            ExitCode::FAILURE
        }
    }
}
