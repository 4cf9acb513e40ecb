//! Pages of the admin API as urlproxyctl reads them: any JSON is printed with nothing that moves the cursor, or is no page.

use serde_json::{Value, json};
use urlproxy::ctl::shown;
use urlproxy::text::must_escape;

/// The styles of what is printed.
const STYLES: [&str; 6] = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m"];

pub fn check(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let change = json!({"at": 1, "change": "added", "kind": "tool", "name": &value, "backend": &value});
    let decision = json!({
        "server": [&value], "location": "/", "mode": "path", "result": "route", "why": &value, "origin": &value,
        "patterns": [{"pattern": &value, "tested": &value, "matched": true}], "backends": [&value],
    });
    // As a whole page, and as a part of one.
    for page in [
        json!({"table": "tools", "total": 2, "matching": 1, "last": 1, "items": [&value]}),
        json!({"last": 1, "items": [change]}),
        json!({"decisions": [&value]}),
        json!({"decisions": [decision]}),
        value,
    ] {
        for line in shown(&page) {
            let plain = STYLES.iter().fold(line.clone(), |text, style| text.replace(style, ""));
            assert!(!plain.contains(must_escape), "{line:?}");
        }
    }
}
