//! Lines of a container's log as the API server streams them: `2026-01-02T03:04:05.678901234Z MESSAGE`.

use std::io::{self, Write};

use futures_util::{AsyncBufRead, AsyncBufReadExt};
use jiff::Timestamp;

use crate::escape::escaped;

/// Longer lines are printed in pieces.
const MAX_LEN: usize = 64 << 10;

/// A line, or a piece of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written; the previous line's time if it has none.
    pub time: Timestamp,
    /// The text without its line end.
    pub message: Vec<u8>,
}

impl LogLine {
    /// Prints `TIME [POD] MESSAGE`.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn print(&self, pod: &str, escape: bool, output: &mut impl Write) -> io::Result<()> {
        write!(output, "{} [{pod}] ", self.time.strftime("%Y-%m-%dT%H:%M:%SZ"))?;
        if escape {
            // A tab is harmless.
            let text = String::from_utf8_lossy(&self.message);
            let parts: Vec<_> = text.split('\t').map(escaped).collect();
            writeln!(output, "{}", parts.join("\t"))
        } else {
            output.write_all(&self.message)?;
            output.write_all(b"\n")
        }
    }
}

/// Reads lines from a stream.
pub struct LogReader<R> {
    stream: R,
    time: Timestamp,
    is_within_line: bool,
}

impl<R: AsyncBufRead + Unpin> LogReader<R> {
    /// A reader at the beginning of a stream.
    pub fn new(stream: R) -> Self {
        Self { stream, time: Timestamp::UNIX_EPOCH, is_within_line: false }
    }

    /// The next line, or piece of [`MAX_LEN`] bytes; `None` at the end.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn next(&mut self) -> io::Result<Option<LogLine>> {
        let mut bytes = Vec::new();
        let is_whole = loop {
            let buffer = self.stream.fill_buf().await?;
            if buffer.is_empty() {
                if bytes.is_empty() {
                    return Ok(None);
                }
                break true;
            }
            let room = MAX_LEN - bytes.len();
            let part = &buffer[..buffer.len().min(room)];
            let (taken, is_end) = match memchr::memchr(b'\n', part) {
                Some(at) => (at, true),
                None => (part.len(), false),
            };
            bytes.extend_from_slice(&part[..taken]);
            self.stream.consume_unpin(taken + usize::from(is_end));
            if is_end {
                break true;
            }
            if bytes.len() >= MAX_LEN {
                break false;
            }
        };
        let is_start = !std::mem::replace(&mut self.is_within_line, !is_whole);
        Ok(Some(self.split(bytes, is_start)))
    }

    fn split(&mut self, bytes: Vec<u8>, is_start: bool) -> LogLine {
        let end = memchr::memchr(b' ', &bytes).unwrap_or(bytes.len());
        let time = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| text.parse().ok());
        match time.filter(|_| is_start) {
            Some(time) => {
                self.time = time;
                LogLine { time, message: bytes.get(end + 1..).unwrap_or_default().to_vec() }
            }
            None => LogLine { time: self.time, message: bytes },
        }
    }
}

/// Copies a stream without changes.
///
/// # Errors
/// The connection breaks, or the output cannot be written.
pub async fn copy(stream: impl AsyncBufRead, output: &mut impl Write) -> io::Result<()> {
    let mut stream = std::pin::pin!(stream);
    loop {
        let buffer = stream.fill_buf().await?;
        if buffer.is_empty() {
            return output.flush();
        }
        output.write_all(buffer)?;
        let len = buffer.len();
        stream.consume_unpin(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8]) -> Vec<LogLine> {
        let mut reader = LogReader::new(text);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await.unwrap() {
            lines.push(line);
        }
        lines
    }

    async fn printed(text: &[u8], escape: bool) -> Vec<u8> {
        let mut output = Vec::new();
        for line in lines(text).await {
            line.print("hello-1", escape, &mut output).unwrap();
        }
        output
    }

    #[tokio::test]
    async fn lines_have_time_pod_and_message() {
        let text =
            b"2026-01-02T03:04:05.678901234Z GET / 200\n2026-01-02T03:04:06Z \nno time\n2026-01-02T03:04:07Z end";
        let want = "2026-01-02T03:04:05Z [hello-1] GET / 200
2026-01-02T03:04:06Z [hello-1] 
2026-01-02T03:04:06Z [hello-1] no time
2026-01-02T03:04:07Z [hello-1] end
";
        assert_eq!(String::from_utf8(printed(text, false).await).unwrap(), want);
    }

    #[tokio::test]
    async fn terminals_get_escaped_text_and_pipes_all_bytes() {
        let text = b"2026-01-02T03:04:05Z a\tb\x1b[31m\xff\r\n";
        assert_eq!(printed(text, false).await, b"2026-01-02T03:04:05Z [hello-1] a\tb\x1b[31m\xff\r\n");
        let shown = String::from_utf8(printed(text, true).await).unwrap();
        assert_eq!(shown, "2026-01-02T03:04:05Z [hello-1] a\tb\\u{1b}[31m\u{fffd}\\u{d}\n");
    }

    #[tokio::test]
    async fn long_lines_come_in_pieces() {
        let text = format!("2026-01-02T03:04:05Z {}\n2026-01-02T03:04:06Z b\n", "x".repeat(3 * MAX_LEN));
        let lines = lines(text.as_bytes()).await;
        assert!(lines.len() == 5 && lines.iter().all(|line| line.message.len() <= MAX_LEN));
        let length: usize = lines[..4].iter().map(|line| line.message.len()).sum();
        assert_eq!((length, &*lines[4].message), (3 * MAX_LEN, &b"b"[..]));
        assert!(lines[..4].iter().all(|line| line.time == lines[0].time));
    }
}
