//! A log on a terminal: nothing in it may move the cursor, change colors or reorder a line.

use std::io::{self, Write};

use crate::escape::escaped_except_tabs;

/// The longest piece that is kept until its line ends, in bytes.
const MAX_PIECE: usize = 64 * 1024;

/// Escapes what is written, line by line; line ends and tabs stay.
#[derive(Debug)]
pub struct TerminalText<W> {
    inner: W,
    piece: Vec<u8>,
}

impl<W: Write> TerminalText<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, piece: Vec::new() }
    }

    fn write_piece(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.inner.write_all(escaped_except_tabs(&String::from_utf8_lossy(&piece)).as_bytes())
    }
}

impl<W: Write> Write for TerminalText<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte == b'\n' {
                self.write_piece()?;
                self.inner.write_all(b"\n")?;
                continue;
            }
            self.piece.push(byte);
            if self.piece.len() >= MAX_PIECE {
                self.write_piece()?;
            }
        }
        Ok(bytes.len())
    }

    /// Writes also a line that has not ended yet.
    fn flush(&mut self) -> io::Result<()> {
        self.write_piece()?;
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_tabs_stay() {
        let mut text = TerminalText::new(Vec::new());
        text.write_all(b"a\tb\x1b[2J\nw\xc3").unwrap();
        text.write_all(b"\xaeki \xff\r\nend").unwrap();
        text.flush().unwrap();
        assert_eq!(String::from_utf8(text.inner).unwrap(), "a\tb\\u{1b}[2J\nw\u{ee}ki \u{fffd}\\u{d}\nend");
    }
}
