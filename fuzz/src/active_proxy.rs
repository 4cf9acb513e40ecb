//! The active-proxy file: any bytes give proxies that are written as they are read, or the number and text of a wrong line.

use urlproxy::grid::client::parse_active_proxies;

pub fn check(bytes: &[u8]) {
    match parse_active_proxies(bytes) {
        Ok(proxies) => {
            let written: String = proxies.iter().map(|proxy| format!("{proxy}\n")).collect();
            assert_eq!(parse_active_proxies(written.as_bytes()).as_ref(), Ok(&proxies), "{written}");
            assert!(proxies.iter().all(|proxy| proxy.port > 0));
        }
        Err((line, text)) => {
            assert!((1..=bytes.split(|&byte| byte == b'\n').count()).contains(&line));
            assert!(text.chars().count() <= 120);
        }
    }
}
