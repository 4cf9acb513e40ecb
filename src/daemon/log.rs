//! The log: lines on standard error, as text or JSON. In systemd's journal, each line has a priority.

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::fd::AsFd;

use clap::{Args, ValueEnum};
use rustix::fs::fstat;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `<time> <level> <message> <key>=<value> ...`; text values are quoted and escaped. The journal adds the time itself.
    Text,
    /// One JSON object per line.
    Json,
}

/// Log options that all daemons share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct LogOptions {
    /// Format of log lines on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Log level: error, warn, info, or debug, which adds repeated failures and reasons
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = parse_level)]
    log_level: Level,
}

/// The defaults of the command line.
impl Default for LogOptions {
    fn default() -> Self {
        Self { log_format: LogFormat::Text, log_level: Level::INFO }
    }
}

/// Starts logging; call it once, before anything else. Each event is exactly one line. Failures to write the log (full disk,
/// closed pipe) are ignored.
pub fn start_log(options: LogOptions) {
    // kube_client's errors reach our code, which logs them once.
    let ours = Targets::new().with_default(options.log_level).with_target("kube_client", LevelFilter::OFF);
    let writer = LineWriter { to_journal: is_stderr_journal(), sink: io::stderr };
    tracing_subscriber::registry().with(lines(options.log_format, writer).with_filter(ours)).init();
}

fn lines<S, F, W>(format: LogFormat, writer: LineWriter<F>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: Fn() -> W + Send + Sync + 'static,
    W: Write + 'static,
{
    let to_journal = writer.to_journal;
    let lines = fmt::layer().with_writer(writer).with_ansi(false).with_target(false);
    // Reporting a write error of standard error to standard error would panic.
    let lines = lines.log_internal_errors(false);
    match format {
        LogFormat::Text if to_journal => lines.without_time().boxed(),
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// Whether standard error is connected to systemd's journal.
pub(super) fn is_stderr_journal() -> bool {
    is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), io::stderr())
}

/// Whether `stream` is the journal stream that `JOURNAL_STREAM` names as `<device>:<inode>`, systemd.exec(5). The variable alone
/// proves nothing: child processes inherit it even if their standard error is redirected.
fn is_journal(named: Option<&str>, stream: impl AsFd) -> bool {
    let named = named.and_then(|named| named.split_once(':'));
    let Some((device, inode)) = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)))
    else {
        return false;
    };
    fstat(stream).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (device, inode))
}

/// Writes lines unchanged, or for the journal prefixed with their priority, sd-daemon(3).
struct LineWriter<F> {
    to_journal: bool,
    sink: F,
}

/// Writes one line.
struct Line<W> {
    priority: Option<u8>,
    sink: W,
}

impl<'a, F: Fn() -> W, W: Write> MakeWriter<'a> for LineWriter<F> {
    type Writer = Line<W>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { priority: None, sink: (self.sink)() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Line { priority: self.to_journal.then(|| priority_of(meta.level())), sink: (self.sink)() }
    }
}

impl<W: Write> Write for Line<W> {
    /// Takes a whole line: tracing-subscriber writes each event at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = one_line(line);
        match self.priority {
            None => self.sink.write_all(&text)?,
            Some(priority) => {
                // The text format pads levels; the journal needs no padding.
                self.sink.write_all(&[format!("<{priority}>").as_bytes(), text.trim_ascii_start()].concat())?;
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Escapes all line ends but the last. An error may quote a tenant's text, and a line end in it would start a forged event, in
/// the journal with a forged priority.
fn one_line(line: &[u8]) -> Cow<'_, [u8]> {
    let (text, end) = line.strip_suffix(b"\n").map_or((line, &[][..]), |text| (text, b"\n"));
    if !text.contains(&b'\n') && !text.contains(&b'\r') {
        return Cow::Borrowed(line);
    }
    let escaped = text.iter().flat_map(|byte| match byte {
        b'\n' => br"\n".as_slice(),
        b'\r' => br"\r",
        other => std::slice::from_ref(other),
    });
    Cow::Owned(escaped.chain(end).copied().collect())
}

/// LOG_ERR of syslog(3).
pub(super) const ERROR_PRIORITY: u8 = 3;

/// syslog(3): LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG.
fn priority_of(level: &Level) -> u8 {
    match *level {
        Level::ERROR => ERROR_PRIORITY,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, Mutex};

    use tracing::{debug, error, info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, to_journal: bool) -> Vec<String> {
        logged_by(format, to_journal, || {
            error!(tool = "a\nb", "first");
            warn!("second");
            info!("third");
            debug!("fourth");
        })
    }

    fn logged_by(format: LogFormat, to_journal: bool, events: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let of_writer = sink.clone();
        let writer = LineWriter { to_journal, sink: move || of_writer.clone() };
        let subscriber = tracing_subscriber::registry().with(lines(format, writer));
        tracing::subscriber::with_default(subscriber, events);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn journal_lines_have_priorities_and_no_timestamp() {
        let want = [r#"<3>ERROR first tool="a\nb""#, "<4>WARN second", "<6>INFO third", "<7>DEBUG fourth"];
        assert_eq!(logged(LogFormat::Text, true), want);
        let json = logged(LogFormat::Json, true);
        assert!(json[0].starts_with("<3>{") && json[1].starts_with("<4>{"), "{json:?}");
    }

    #[test]
    fn other_lines_begin_with_a_timestamp() {
        let lines = logged(LogFormat::Text, false);
        assert!(lines.iter().all(|line| line.starts_with("20") && line.contains("Z ")), "{lines:?}");
        assert!(logged(LogFormat::Json, false).iter().all(|line| line.starts_with("{\"timestamp\":")));
    }

    #[test]
    fn values_cannot_start_a_new_line() {
        // As in an error that quotes a tenant's file.
        let forged = "bad\r\n<0>EMERG all is lost\n";
        for to_journal in [true, false] {
            let lines = logged_by(LogFormat::Text, to_journal, || warn!(error = %forged, "not read"));
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].ends_with(r"WARN not read error=bad\r\n<0>EMERG all is lost\n"), "{lines:?}");
            assert_eq!(logged_by(LogFormat::Json, to_journal, || warn!(error = %forged, "not read")).len(), 1);
        }
    }

    #[test]
    fn journal_is_recognized_by_device_and_inode() {
        let (stream, other) = UnixStream::pair().unwrap();
        let stat = fstat(&stream).unwrap();
        let named = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_journal(Some(&named), &stream));
        assert!(!is_journal(Some(&named), &other), "inherited variable, redirected standard error");
        for named in [None, Some(""), Some("8"), Some("8:"), Some("a:b"), Some("0:0")] {
            assert!(!is_journal(named, &stream), "{named:?}");
        }
    }
}
