//! Escapes tenants' text for terminals: nothing in it may move the cursor, change colors or reorder the line.

use std::fmt::{self, Display, Write};
use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::text::must_escape;

/// Shows text with `\u{202e}` in place of each [unsafe](must_escape) character.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, found)) = rest.char_indices().find(|(_, c)| must_escape(*c)) {
            let (safe, tail) = rest.split_at(at);
            self.0.write_str(safe)?;
            write!(self.0, "{}", found.escape_unicode())?;
            rest = tail.get(found.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

/// The text with unsafe characters escaped.
pub fn escaped(text: impl Display) -> String {
    Escaped(text).to_string()
}

/// The same, but tabs stay, which are harmless in a log.
pub fn escaped_except_tabs(text: &str) -> String {
    text.split('\t').map(escaped).collect::<Vec<_>>().join("\t")
}

/// Writes JSON in which unsafe characters of strings are `\u` escapes: the same value, safe on a terminal.
struct EscapingFormatter<F>(F);

impl<F: Formatter> Formatter for EscapingFormatter<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, found)) = rest.char_indices().find(|(_, c)| must_escape(*c)) {
            let (safe, tail) = rest.split_at(at);
            writer.write_all(safe.as_bytes())?;
            for unit in found.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = tail.get(found.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// The value as JSON over several lines, with a line end.
pub fn pretty_json(value: &impl Serialize) -> String {
    json(value, PrettyFormatter::new())
}

/// The value as JSON on one line, with a line end.
pub fn line_json(value: &impl Serialize) -> String {
    json(value, CompactFormatter)
}

fn json(value: &impl Serialize, formatter: impl Formatter) -> String {
    let mut bytes = Vec::new();
    // Strings, numbers, lists and maps with string keys: serializing them into a vector cannot fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, EscapingFormatter(formatter)));
    bytes.push(b'\n');
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_no_control_or_bidirectional_characters() {
        for (text, want) in [
            ("hello", "hello"),
            ("wîki 工具", "wîki 工具"),
            ("\\.php$", "\\.php$"),
            ("a\x1b[31mb", "a\\u{1b}[31mb"),
            ("a\u{9b}31m", "a\\u{9b}31m"),
            ("\u{202e}exe.txt", "\\u{202e}exe.txt"),
            ("a\u{2066}b\u{2069}\u{200b}", "a\\u{2066}b\\u{2069}\\u{200b}"),
            ("line\nend\u{2028}\u{7f}", "line\\u{a}end\\u{2028}\\u{7f}"),
            ("\u{e0041}", "\\u{e0041}"),
            ("a\u{fe0f}\u{2800}\u{1d173}", "a\\u{fe0f}\\u{2800}\\u{1d173}"),
        ] {
            assert_eq!(escaped(text), want);
        }
    }

    #[test]
    fn json_is_escaped_and_unchanged_in_value() {
        let value = serde_json::json!({"\u{202e}k": ["a\u{9b}\u{7f}\"\\\n", "\u{e0041}", 1.5, null, {"工": true}]});
        for text in [pretty_json(&value), line_json(&value)] {
            assert!(!text.trim_end().chars().any(|c| must_escape(c) && c != '\n'), "{text:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
        assert!(line_json(&value).contains("\\u202e") && line_json(&value).contains("\\udb40\\udc41"));
        assert_eq!(line_json(&value).lines().count(), 1);
    }
}
