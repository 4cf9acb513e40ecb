//! What commands print: lines and JSON to standard output, notes and progress to standard error.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::time::Duration;

use anstream::AutoStream;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::text_table::{FAINT, TextTable};
use crate::escape::{Escaped, line_json, pretty_json};

/// Redraws of a progress bar per second.
const REDRAWS_PER_SECOND: u8 = 10;

/// Standard output and standard error. Styles reach terminals only, and none if `NO_COLOR` is set.
#[derive(Debug)]
pub struct Console {
    /// Print JSON.
    pub is_json: bool,
    stdout: BufWriter<AutoStream<Stdout>>,
}

impl Console {
    /// A console that prints text, or JSON.
    pub fn new(is_json: bool) -> Self {
        Self { is_json, stdout: BufWriter::new(anstream::stdout()) }
    }

    /// Prints a line. Tenants' text in it must be escaped already.
    ///
    /// # Errors
    /// Standard output cannot be written, e.g. because its reader has ended.
    pub fn line(&mut self, line: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.stdout, "{line}")
    }

    /// Prints a script or a page of this program, unchanged.
    ///
    /// # Errors
    /// As for [`line`](Self::line).
    pub fn text(&mut self, text: &[u8]) -> io::Result<()> {
        self.stdout.write_all(text)
    }

    /// Prints a table.
    ///
    /// # Errors
    /// As for [`line`](Self::line).
    pub fn table(&mut self, table: &TextTable) -> io::Result<()> {
        table.lines().iter().try_for_each(|line| self.line(line))
    }

    /// Prints a value as JSON over several lines.
    ///
    /// # Errors
    /// As for [`line`](Self::line).
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.stdout.write_all(pretty_json(value).as_bytes())
    }

    /// Prints a value as JSON on one line.
    ///
    /// # Errors
    /// As for [`line`](Self::line).
    pub fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.stdout.write_all(line_json(value).as_bytes())
    }

    /// Prints everything that is still buffered.
    ///
    /// # Errors
    /// As for [`line`](Self::line).
    pub fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    /// Prints a remark to standard error, escaped.
    pub fn note(&self, text: impl std::fmt::Display) {
        // A failure to print cannot be reported anywhere.
        let _ = writeln!(anstream::stderr(), "{FAINT}{}{FAINT:#}", Escaped(text));
    }

    /// Whether an operator can be asked: standard input and standard error are a terminal.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks a question on standard error; true if the operator answers `y` or `yes`.
    ///
    /// # Errors
    /// Standard input cannot be read.
    pub fn confirm(&self, question: impl std::fmt::Display) -> io::Result<bool> {
        write!(anstream::stderr(), "{} [y/N] ", Escaped(question))?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
    }

    /// A progress bar on standard error; invisible unless that is a terminal. Without a total it is a counter.
    pub fn progress(&self, what: &'static str, total: Option<u64>) -> ProgressBar {
        let template = match total {
            Some(_) => "{msg} {bar:30} {pos}/{len} {eta}",
            None => "{spinner} {msg} {pos}",
        };
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}
