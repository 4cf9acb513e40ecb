//! A guard's accept file: any bytes accept all, some names, or nothing; no blank line and no comment becomes a name.

use urlproxy::withdrawal_guard::{Accepted, parse_accepted};

pub fn check(bytes: &[u8]) {
    match parse_accepted(bytes) {
        Ok(Accepted::All) => assert!(bytes.trim_ascii().is_empty(), "only an empty file accepts all"),
        Ok(Accepted::Only(names)) => {
            assert!(!names.is_empty());
            assert!(names.to_string().len() < 4000, "{names}");
            for line in bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
                let is_name = !line.is_empty() && !line.starts_with(b"#");
                let is_key =
                    [&b"prefix:"[..], b"redirect:", b"frontend:"].iter().any(|prefix| line.starts_with(prefix));
                let key = if is_key { line.to_vec() } else { [b"prefix:", line].concat() };
                assert!(names.contains(&key) || !is_name, "{}", line.escape_ascii());
            }
        }
        Err(error) => assert!(error.to_string().len() < 1000),
    }
}
