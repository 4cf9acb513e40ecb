//! JSON text, written piece by piece.

use std::fmt::Display;

use serde::{Serialize, Serializer};

/// Appends a string. Invalid UTF-8 becomes U+FFFD.
pub fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    value(out, &String::from_utf8_lossy(bytes));
}

/// Appends the text of a value as a string.
pub fn display(out: &mut Vec<u8>, text: &dyn Display) {
    // Writing to memory does not fail.
    let _ = serde_json::Serializer::new(out).collect_str(text);
}

/// Appends a value.
pub fn value(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Writing to memory does not fail, and the pages' types have no map with other keys than strings.
    let _ = serde_json::to_writer(out, value);
}

/// Appends an array; `write` appends each item.
pub fn list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_whatever_their_bytes() {
        for (bytes, want) in [
            (&b"hello"[..], r#""hello""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x00\x1b[31m\n", r#""\u0000\u001b[31m\n""#),
            (b"\xff\xc3", "\"\u{fffd}\u{fffd}\""),
            ("w\u{ee}ki \u{202e}".as_bytes(), "\"w\u{ee}ki \u{202e}\""),
        ] {
            let mut out = Vec::new();
            string(&mut out, bytes);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
        let mut out = Vec::new();
        display(&mut out, &format_args!("http://a\"b:{}", 80));
        assert_eq!(out, br#""http://a\"b:80""#);
    }
}
