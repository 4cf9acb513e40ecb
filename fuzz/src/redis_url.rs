//! Redis source URLs: any text gives a source or an error, and neither shows a password.

use urlproxy::redis_client::RedisUrl;

const SCHEMES: [&str; 7] = ["redis", "rediss", "unix", "sentinel", "sentinels", "valkey", "valkeys"];
const PASSWORD: &str = "Sesam0effneDich";

pub fn check(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let _ = rest.parse::<RedisUrl>();
    // Files would be read, some of which only root may open.
    if rest.contains("/dev") || rest.contains("/proc") || rest.contains("/sys") {
        return;
    }
    // URLs have no tabs and line ends: they are removed.
    if rest.replace(['\t', '\n', '\r'], "").contains(PASSWORD) {
        return;
    }
    // A parameter's value is no password, but a password may have an unquoted question mark.
    let is_authority = !rest.split_once('?').is_some_and(|(_, parameters)| parameters.contains('='));
    let scheme = SCHEMES[usize::from(first) % SCHEMES.len()];
    let user = if first & 0x80 == 0 { "" } else { "proxy" };
    // In the path of a socket, a colon begins no password.
    let other = if scheme == "unix" { "redis" } else { scheme };
    for text in [
        Some(format!("{scheme}://{user}:{PASSWORD}@{rest}")),
        is_authority.then(|| format!("{other}://{rest}:{PASSWORD}@host:6379/0")),
        Some(format!("unix:/run/redis.sock?pass={PASSWORD}&{rest}")),
    ]
    .into_iter()
    .flatten()
    {
        let shown = match text.parse::<RedisUrl>() {
            Ok(url) => format!("{url} {url:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains(PASSWORD), "{text:?}: {shown}");
    }
}
