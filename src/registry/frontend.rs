//! invisible-unicorn's writes: the backends of whole domains, `frontend:<domain>`.

use redis::{Cmd, Pipeline};

use super::schema::DOMAINS_PREFIX;

/// The key of a domain's backends.
pub fn frontend_key(domain: &str) -> String {
    format!("{DOMAINS_PREFIX}{domain}")
}

/// The domain in a key, unvalidated; `None` for other keys.
pub fn frontend_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(DOMAINS_PREFIX.as_bytes())?).ok()
}

/// Adds to a transaction: the domain has exactly these backends; without any, its key is deleted. Idempotent.
pub fn write_frontend(transaction: &mut Pipeline, domain: &str, backends: &[String]) {
    let key = frontend_key(domain);
    transaction.del(&key).ignore();
    if !backends.is_empty() {
        transaction.sadd(&key, backends).ignore();
    }
}

/// Asks which of the backends a domain has, and how many it has: two replies, a list of 0 and 1, and a number. A key of another
/// type replies with an error. The size of the replies does not depend on the key's size.
pub fn compare_frontend(pipeline: &mut Pipeline, domain: &str, backends: &[String]) {
    let key = frontend_key(domain);
    pipeline.cmd("SMISMEMBER").arg(&key).arg(backends);
    pipeline.cmd("SCARD").arg(&key);
}

/// One page of a scan of all domains' keys.
pub fn scan_frontends(cursor: u64, count: usize) -> Cmd {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(format!("{DOMAINS_PREFIX}*")).arg("COUNT").arg(count);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_contain_the_domain() {
        assert_eq!(frontend_of(frontend_key("*.example.org").as_bytes()), Some("*.example.org"));
        assert_eq!((frontend_of(b"prefix:a"), frontend_of(b"frontend:\xff")), (None, None));
    }

    #[test]
    fn domains_without_backends_are_deleted() {
        let packed = |backends: &[String]| {
            let mut transaction = redis::pipe();
            write_frontend(&mut transaction, "a.example", backends);
            String::from_utf8(transaction.get_packed_pipeline()).unwrap()
        };
        assert!(!packed(&[]).contains("SADD") && packed(&[]).contains("DEL"));
        assert!(packed(&["http://10.0.0.1:80".into()]).contains("SADD"));
    }
}
