//! What the command prints: messages to standard error, answers to standard output, and progress while it waits.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::escape::{Escaped, escaped, pretty_json};

/// One dot per this time.
const DOT_INTERVAL: Duration = Duration::from_secs(1);
/// The width of a terminal that does not say it.
const DEFAULT_WIDTH: usize = 80;

/// Standard error and standard output.
#[derive(Debug)]
pub struct Console {
    is_terminal: bool,
}

impl Console {
    /// A console on the process's own streams.
    pub fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal() }
    }

    /// Prints a message to standard error. Each line of it is escaped.
    pub fn say(&self, message: impl Display) {
        let text: Vec<String> = message.to_string().split('\n').map(escaped).collect();
        // A failure to print cannot be reported anywhere.
        let _ = writeln!(io::stderr(), "{}", text.join("\n"));
    }

    /// Prints a line of an answer to standard output, escaped.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn answer(&self, line: impl Display) -> io::Result<()> {
        writeln!(io::stdout(), "{}", Escaped(line))
    }

    /// Prints a value as JSON to standard output.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn json(&self, value: &impl Serialize) -> io::Result<()> {
        io::stdout().write_all(pretty_json(value).as_bytes())
    }

    /// Begins to wait: prints `what` to standard error, and dots or a live line behind it until the returned value is dropped.
    pub fn wait(&self, what: &str) -> Wait {
        let wait = Wait {
            what: what.to_owned(),
            reason: String::new(),
            is_terminal: self.is_terminal,
            next: Instant::now() + DOT_INTERVAL,
            seconds: 0,
        };
        let _ = write!(io::stderr(), "{}", Escaped(what));
        wait
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

/// A wait in progress: in a pipe one dot per second, on a terminal one line with the reason and the seconds.
#[derive(Debug)]
pub struct Wait {
    what: String,
    reason: String,
    is_terminal: bool,
    next: Instant,
    seconds: u64,
}

impl Wait {
    /// Sets why the wait goes on, for the line on a terminal.
    pub fn set_reason(&mut self, reason: &str) {
        self.reason = reason.to_owned();
    }

    /// Shows progress while `work` runs.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep_until(self.next) => self.tick(),
            }
        }
    }

    fn tick(&mut self) {
        self.next += DOT_INTERVAL;
        self.seconds += 1;
        let mut stderr = io::stderr();
        let _ = if self.is_terminal {
            let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
            let line = escaped(format!("{} ({} s{reason})", self.what, self.seconds));
            let line: String = line.chars().take(width().saturating_sub(1)).collect();
            write!(stderr, "\r\u{1b}[K{line}")
        } else {
            write!(stderr, ".")
        };
        let _ = stderr.flush();
    }
}

/// The width of the terminal, in characters: a line that wraps cannot be drawn again.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    size.map(|size| usize::from(size.ws_col)).ok().filter(|width| *width > 0).unwrap_or(DEFAULT_WIDTH)
}

impl Drop for Wait {
    fn drop(&mut self) {
        let _ = writeln!(io::stderr());
    }
}
