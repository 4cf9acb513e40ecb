//! Writes YAML that parsers of version 1.1 and 1.2 read alike.

use serde_json::Value;

/// Plain words that some version reads as something else than text.
const AMBIGUOUS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

/// A text as a scalar: plain if every parser reads it as this text, else in double quotes.
pub fn scalar(text: &str) -> String {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'/' || byte == b'_';
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+@%-".contains(&byte);
    let is_plain = text.bytes().next().is_some_and(first)
        && text.bytes().all(rest)
        && !AMBIGUOUS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { quoted(text) }
}

/// A value on one line.
pub fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{}: {}", quoted(key), flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            ' '..='~' => quoted.push(c),
            // Old parsers refuse characters that they cannot print.
            _ if c.is_alphanumeric() && u32::from(c) <= 0xffff => quoted.push(c),
            _ if u32::from(c) <= 0xff => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ if u32::from(c) <= 0xffff => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}
