//! The log: lines on standard error, for people or as JSON.

use clap::{Args, ValueEnum};
use tracing::Level;

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `<time> <level> <message> <key>=<value> ...`; text values are quoted and escaped.
    Text,
    /// One JSON object a line.
    Json,
}

/// What every daemon's command line says of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct LogOptions {
    /// How a line of the log is written, on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, or debug for every repeat and reason
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = parse_level)]
    log_level: Level,
}

/// Starts logging; to be called once, first. Values given as text have their control characters escaped.
pub fn start_log(options: LogOptions) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    // Standard error may be closed or full; to say that there would panic.
    let builder = builder.log_internal_errors(false).with_max_level(options.log_level);
    match options.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

fn parse_level(text: &str) -> Result<Level, String> {
    match text {
        "error" => Ok(Level::ERROR),
        "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        _ => Err(format!("invalid level {text:?}, expected error, warn, info or debug")),
    }
}
