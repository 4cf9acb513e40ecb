//! Reads the loop mark, `CDN-Loop` (RFC 8586).

/// Whether a value of `CDN-Loop` contains this id, with any parameters.
pub fn has_loop_mark(value: &[u8], id: &str) -> bool {
    value.split(|&byte| byte == b',').any(|entry| {
        let name = entry.split(|&byte| byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(id.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_matches_with_any_parameters() {
        for (value, want) in [
            ("urlproxy-1", true),
            ("Urlproxy-1", true),
            ("a, urlproxy-1", true),
            ("a;v=1 ,\turlproxy-1 ; x=y, b", true),
            ("urlproxy-12", false),
            ("xurlproxy-1", false),
            ("a; urlproxy-1", false),
            ("a urlproxy-1", false),
            ("", false),
        ] {
            assert_eq!(has_loop_mark(value.as_bytes(), "urlproxy-1"), want, "{value}");
        }
    }
}
