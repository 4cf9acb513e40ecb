//! The log: lines on standard error, for people or as JSON.

use clap::ValueEnum;

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `<time> <level> <message> <key>=<value> ...`; text values are quoted and escaped.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; to be called once, first. Values given as text have their control characters escaped.
pub fn start_log(format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    // Standard error may be closed or full; to say that there would panic.
    let builder = builder.log_internal_errors(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
