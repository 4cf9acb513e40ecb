//! The tenants' command that starts, stops and shows a tool's web service, on the grid or in Kubernetes.
//!
//! `service` has the tool, what is to run, and its state; `error` why the command fails; `console` what it prints.

mod console;
mod error;
mod service;

use std::process::ExitCode;

pub use console::{Console, Wait};
pub use error::WebserviceError;
pub use service::{Service, State, Tool};

/// Runs the command, and returns its exit status.
pub fn run() -> ExitCode {
    ExitCode::FAILURE
}
