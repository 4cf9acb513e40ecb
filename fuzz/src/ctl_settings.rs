//! The settings file of urlproxyctl: any text is settings or an error, and neither shows a password.

use std::path::Path;

use urlproxy::ctl::parse_settings;

const PASSWORD: &str = "Sesam0effneDich";

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.contains(PASSWORD) {
        return;
    }
    for text in [text, &format!("{text}\nredis = \"redis://:{PASSWORD}@redis.example.org/0\"")] {
        let shown = match parse_settings(text, Path::new("/etc/urlproxy/urlproxyctl.toml")) {
            Ok(file) => format!("{file:?}"),
            Err(error) => error.to_string(),
        };
        assert!(!shown.contains(PASSWORD), "{text:?}: {shown}");
    }
}
