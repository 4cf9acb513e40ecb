//! The loop mark of a request, `CDN-Loop`: found as a naive parser finds it, and always where this proxy has put it.

use urlproxy::route::has_loop_mark;

const ID: &str = "urlproxy-00c0ffee00c0ffee";

pub fn check(bytes: &[u8]) {
    // Also with our ID, so that the parser gets that far.
    for value in [bytes.to_vec(), [bytes, ID.as_bytes()].concat(), [ID.as_bytes(), bytes].concat()] {
        let text = String::from_utf8_lossy(&value).to_ascii_lowercase();
        let mut names = text.split(',').map(|entry| entry.split(';').next().unwrap_or_default());
        let wanted = names.any(|name| name.trim_matches([' ', '\t', '\n', '\x0c', '\r']) == ID);
        assert_eq!(has_loop_mark(&value, ID), wanted, "{text:?}");
    }
    assert!(has_loop_mark(&[bytes, b", ", ID.as_bytes()].concat(), ID));
}
