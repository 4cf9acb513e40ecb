//! The log: lines on standard error, for people or as JSON.

use clap::{Args, ValueEnum};
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

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
    // What goes wrong is told by whoever asked, once.
    let ours = Targets::new().with_default(options.log_level).with_target("kube_client", LevelFilter::OFF);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    // Standard error may be closed or full; to say that there would panic.
    let lines = lines.log_internal_errors(false);
    match options.log_format {
        LogFormat::Text => tracing_subscriber::registry().with(lines.with_filter(ours)).init(),
        LogFormat::Json => {
            tracing_subscriber::registry().with(lines.json().flatten_event(true).with_filter(ours)).init()
        }
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
