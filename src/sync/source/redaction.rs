//! Showing what was configured without showing a password.

/// `text`, perhaps not a URL at all, without anything that may be a password.
pub(super) fn redacted(text: &str) -> String {
    let (scheme, rest) = text.split_at(text.find("://").map_or(0, |colon| colon + 3));
    let rest = match rest.rsplit_once('@') {
        Some((userinfo, host)) => match userinfo.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => format!("***@{host}"),
        },
        // Is it `host:port`, or `user:secret` with the rest forgotten?
        None => match rest.split_once(':') {
            Some((host, port))
                if !scheme.is_empty() && !rest.starts_with('[') && (host.is_empty() || !is_port(port)) =>
            {
                format!("{host}:***")
            }
            _ => rest.to_owned(),
        },
    };
    let rest = rest.split_once("pass=").map_or(rest.clone(), |(before, _)| format!("{before}pass=***"));
    format!("{scheme}{rest}")
}

fn is_port(text: &str) -> bool {
    text.split(['/', '?', '#']).next().is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::super::Source;

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
            "sentinel://user:secret@h1,h2/mymaster",
            "user:secret@h",
            "secret@h",
        ] {
            let shown = match url.parse::<Source>() {
                Ok(source) => format!("{source} {source:?} {source:#?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
