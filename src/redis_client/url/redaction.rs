//! Shows configured URLs without their passwords.

/// The error for an `@` after a `?`: a password may contain the `?` and end at the `@`.
pub(super) const AMBIGUOUS_PASSWORD: &str = "a \"?\" before an \"@\" must be written %3F, an \"@\" in a parameter %40";
/// Parameters that may be shown with their values.
const SHOWN_PARAMETERS: [&str; 7] = ["db", "user", "ca", "cert", "key", "sentinel_user", "sentinel_password_file"];

/// An unparsed URL, which `Debug` shows without its password.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct WrittenUrl(String);

impl WrittenUrl {
    /// The complete text, for parsing.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for WrittenUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for WrittenUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", redacted(&self.0))
    }
}

/// `text`, which need not be a URL, without anything that may be a password.
pub(super) fn redacted(text: &str) -> String {
    // Only the first colon ends a scheme: in `unix:/path?pass=...` a later `://` is a part of the password.
    let colon = text.find(':').filter(|&colon| text.get(colon..).is_some_and(|rest| rest.starts_with("://")));
    let (scheme, rest) = text.split_at(colon.map_or(0, |colon| colon + 3));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // The `?` may be part of a password.
    let is_ambiguous = query.is_some_and(|query| query.contains('@'));
    let rest = match rest.rsplit_once('@') {
        Some((userinfo, host)) => match userinfo.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => format!("***@{host}"),
        },
        None if is_ambiguous => format!("{}***", rest.split_inclusive(':').next().unwrap_or_default()),
        // Either `host:port`, or `user:secret` without a host.
        None => match rest.split_once(':') {
            Some((host, _)) if !scheme.is_empty() && !are_addresses(rest) => format!("{host}:***"),
            _ => rest.to_owned(),
        },
    };
    let rest = rest.split_once("pass=").map_or(rest.clone(), |(before, _)| format!("{before}pass=***"));
    match query {
        Some(query) => format!("{scheme}{rest}?{}", if is_ambiguous { "***".into() } else { redacted_query(query) }),
        None => format!("{scheme}{rest}"),
    }
}

/// The error for an unknown parameter, without its name where that may be part of a password.
pub(super) fn unknown_parameter(name: &str, is_after_password: bool) -> String {
    if is_after_password {
        "unknown parameter after the password; an \"&\" in that must be written %26".into()
    } else if name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
        format!("unknown parameter {name:?}")
    } else {
        "unknown parameter".into()
    }
}

/// A query up to the first value that may be a password, which may contain an `&`.
fn redacted_query(query: &str) -> String {
    let mut shown = Vec::new();
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some((name, _)) if !SHOWN_PARAMETERS.contains(&name) => {
                shown.push(format!("{name}=***"));
                break;
            }
            _ => shown.push(parameter.to_owned()),
        }
    }
    shown.join("&")
}

/// Whether these are comma-separated hosts with optional ports.
fn are_addresses(text: &str) -> bool {
    let authority = text.split(['/', '#']).next().unwrap_or_default();
    authority.split(',').all(|address| match address.split_once(':') {
        Some((host, port)) => {
            address.starts_with('[') || !host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        }
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::super::RedisUrl;

    #[test]
    fn no_password_is_shown() {
        for url in [
            "redis://:secret@h",
            "redis://user:secret@[::1]:6379/4",
            "redis://user:x@secret@h",
            "redis://user:x/secret@h",
            "unix:/s?pass=secret&db=1",
            "unix:/s?db=x&pass=secret",
            "redis://user:secret",
            "redis://:secret",
            "redis://:6secret/0",
            "redis://user:6secret/0",
            "redis://user:secret@h/x",
            "redis://user:secret@h:port",
            "redis://user:%ffsecret@h",
            "redis://user:secret@h?x=1",
            "redis://user:secret@h#insecure",
            "redis:/user:secret@h",
            "rediss://user:secret@h?ca=/nowhere",
            "redis://h?password=secret",
            "redis://h?db=1&pass=x&secret",
            "redis://user:x?secret@h",
            "redis://user:secret?x@h",
            "redis://user:1?secret@h",
            "rediss://user:1?ca=secret@h",
            "redis://h?db=1&pass=x&secret=1",
            "unix:/s?pass=x@secret&what=1",
            "unix:/s?pass=secret://x&what=1",
            "unix:/s?pass=secret&x://y@z?d:=1",
            "unix:/s?pass=x&secret",
            "unix:/s?user=me&pass=x&secret=1&db=1",
            "unix:/s?user=me@secret&what=1",
            "sentinel://user:secret@h1,h2/mymaster",
            "sentinel://user:secret@h1,h2",
            "sentinel://user:secret",
            "sentinel://user:secret/mymaster",
            "sentinel://h1:1,user:secret/mymaster",
            "sentinel://user:x/secret@h1/mymaster",
            "sentinel://user:x/secret/y@h1/mymaster",
            "sentinel://user:x?secret@h1/mymaster",
            "sentinel://user:secret?x@h1/mymaster",
            "sentinel://user:x#secret@h1/mymaster",
            "sentinel://user:%ffsecret@h1/mymaster",
            "sentinel://h1/mymaster?sentinel_password=secret",
            "sentinel://h1/mymaster?sentinel_password=x@secret",
            "sentinel://h1/mymaster?sentinel_password=x&secret",
            "sentinel://u:x@h1/mymaster?sentinel_password=x@secret&sentinel_user=y",
            "sentinel://h1/mymaster?sentinel_password=secret&sentinel_db=1",
            "sentinel://h1/mymaster/x?sentinel_p%61ssword=secret",
            "user:secret@h",
            "secret@h",
        ] {
            let shown = match url.parse::<RedisUrl>() {
                Ok(source) => format!("{source} {source:?} {source:#?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
