//! A job's record of its registrations: any text gives entries that are written as they are read, or is refused.

use urlproxy::grid::client::parse_record;

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(entries) = parse_record(text) {
        assert!(entries.len() <= 64 && entries.len() == text.lines().count());
        let written: String = entries.iter().map(|(proxy, url)| format!("{proxy} {url}\n")).collect();
        assert_eq!(parse_record(&written), Some(entries), "{written}");
    }
}
