//! `sentinel://` URLs: the addresses of Sentinels, and the name of the master.

use std::fmt;

use redis::{ConnectionAddr, IntoConnectionInfo, parse_redis_url};

use super::login::{Login, redacted_reason};
use super::redaction::{AMBIGUOUS_PASSWORD, unknown_parameter};

/// The default port of Sentinels.
const PORT: u16 = 26379;
/// Most Sentinels in a URL: more are a mistake, and would take too long to ask.
pub const MAX_SENTINELS: usize = 16;

/// The Sentinels that know the master's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinels {
    /// Addresses in the order of asking; at least one.
    pub addresses: Vec<Address>,
    /// The master's name.
    pub master: String,
    /// Credentials for the Sentinels themselves.
    pub(crate) login: Login,
}

/// A host and a port over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// As in a URL: `host:port,host:port/master`.
impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(Address::to_string).collect();
        write!(f, "{}/{}", addresses.join(","), self.master)
    }
}

/// Parses a URL into the Sentinels, the credentials for the master, and the database.
pub(super) fn parse(text: &str) -> Result<(Sentinels, Login, u16), String> {
    let rest = text.strip_prefix("sentinel://").ok_or("\"//\" is missing")?;
    if rest.contains('#') {
        return Err("nothing may follow a \"#\"".into());
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (userinfo, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
    // Later errors quote hosts and names, which must not be parts of a password.
    if userinfo.contains('/') {
        return Err("a \"/\" in user or password must be written %2F".into());
    }
    if userinfo.is_empty() && query.contains('@') {
        return Err(AMBIGUOUS_PASSWORD.into());
    }
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let addresses: Vec<_> = hosts.split(',').map(address).collect::<Result<_, _>>()?;
    if addresses.len() > MAX_SENTINELS {
        return Err(format!("{} Sentinels, expected at most {MAX_SENTINELS}", addresses.len()));
    }
    let (master, db) = path.split_once('/').unwrap_or((path, "0"));
    if master.is_empty() {
        return Err("the name of the master is missing".into());
    }
    // The characters that Sentinel documents as valid.
    if !master.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(format!("invalid master name {master:?}"));
    }
    let db = if db.is_empty() { 0 } else { db.parse().map_err(|_| format!("no database has number {db:?}"))? };
    let login = login(&format!("redis://{userinfo}{}h", if userinfo.is_empty() { "" } else { "@" }))?;
    let mut sentinel_login = Login::default();
    let parameters = parse_redis_url(&format!("redis://h?{query}")).ok_or("invalid parameters")?;
    for (name, value) in parameters.query_pairs() {
        match &*name {
            "sentinel_user" => sentinel_login.user = Some(value.into_owned()),
            "sentinel_password" => sentinel_login.password = Some(value.into_owned()),
            _ => return Err(unknown_parameter(&name, sentinel_login.password.is_some())),
        }
    }
    Ok((Sentinels { addresses, master: master.to_owned(), login: sentinel_login }, login, db))
}

fn address(text: &str) -> Result<Address, String> {
    let wrong = |reason: &str| match text.split_once(':') {
        // May be a user and a password without a host.
        Some((host, port)) if !text.starts_with('[') && !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("Sentinel \"{host}:***\": {reason}")
        }
        _ => format!("Sentinel {text:?}: {reason}"),
    };
    let url = parse_redis_url(&format!("redis://{text}")).ok_or_else(|| wrong("expected host[:port]"))?;
    let port = url.port().unwrap_or(PORT);
    let info = url.into_connection_info().map_err(|error| wrong(&redacted_reason(&error)))?;
    match info.addr() {
        _ if port == 0 => Err(wrong("port 0")),
        ConnectionAddr::Tcp(host, _) => Ok(Address { host: host.clone(), port }),
        _ => Err(wrong("expected host[:port]")),
    }
}

fn login(url: &str) -> Result<Login, String> {
    let url = parse_redis_url(url).ok_or("invalid user or password")?;
    let info = url.into_connection_info().map_err(|error| redacted_reason(&error))?;
    Ok(Login::of(info.redis_settings()))
}

#[cfg(test)]
mod tests {
    use super::super::{Reach, RedisUrl};
    use super::*;

    fn sentinels(url: &str) -> Sentinels {
        match url.parse::<RedisUrl>().unwrap_or_else(|error| panic!("{error}")).reach() {
            Reach::Sentinels(sentinels) => sentinels.clone(),
            other @ Reach::Direct(_) => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn urls_give_sentinels_and_a_master() {
        for (url, addresses, master) in [
            ("sentinel://h/m", "h:26379", "m"),
            ("sentinel://h1,h2:7,10.0.0.3/my-master_1.a/3", "h1:26379 h2:7 10.0.0.3:26379", "my-master_1.a"),
            ("sentinel://[::1],[2001:db8::7]:6379/m/", "[::1]:26379 [2001:db8::7]:6379", "m"),
            ("sentinel://h:6379/m/0", "h:6379", "m"),
        ] {
            let sentinels = sentinels(url);
            let shown: Vec<_> = sentinels.addresses.iter().map(Address::to_string).collect();
            assert_eq!((shown.join(" ").as_str(), sentinels.master.as_str()), (addresses, master), "{url}");
        }
    }

    #[test]
    fn servers_and_sentinels_have_separate_logins() {
        let url = "sentinel://sync:p%40ss@h1,h2/m/2?sentinel_user=watch&sentinel_password=a%26b";
        let source: RedisUrl = url.parse().unwrap();
        assert_eq!(source.db(), 2);
        assert_eq!(source.credentials(), Some(("sync", "p@ss")));
        assert_eq!(sentinels(url).login.credentials(), Some(("watch", "a&b")));
        let source: RedisUrl = "sentinel://h/m?sentinel_password=x".parse().unwrap();
        assert_eq!(source.credentials(), None);
        assert_eq!(sentinels("sentinel://:x@h/m").login.credentials(), None);
        assert_eq!(source.with_password("new").credentials(), Some(("default", "new")));
    }

    #[test]
    fn invalid_urls_are_refused_with_an_example() {
        for (url, want) in [
            ("sentinel:h/m", r#"invalid URL "sentinel:h/m": "//" is missing, expected"#),
            ("sentinel://h1,h2", r#"invalid URL "sentinel://h1,h2": the name of the master is missing, expected"#),
            ("sentinel://h1:1,h2:2", r#"invalid URL "sentinel://h1:1,h2:2": the name"#),
            ("sentinel://h//0", "the name of the master is missing"),
            ("sentinel:///m", r#"Sentinel "": missing hostname"#),
            ("sentinel://h1,,h2/m", r#"Sentinel "": missing hostname"#),
            ("sentinel://h1,h2:0/m", r#"invalid URL "sentinel://h1,h2:0/m": Sentinel "h2:0": port 0, expected"#),
            ("sentinel://h:66000/m", r#"Sentinel "h:66000": expected host[:port]"#),
            ("sentinel://::1/m", "expected host[:port]"),
            ("sentinel://h/my%20master", r#"invalid master name "my%20master""#),
            ("sentinel://h/m/x", r#"no database has number "x""#),
            ("sentinel://h/m/0/1", r#"no database has number "0/1""#),
            ("sentinel://h/m/70000", r#"no database has number "70000""#),
            ("sentinel://h/m?ca=/x", r#"unknown parameter "ca""#),
            ("sentinel://h/m#x", "nothing may follow a"),
            ("sentinel://%ff@h/m", "username is not valid utf-8"),
        ] {
            let got = url.parse::<RedisUrl>().expect_err(url).to_string();
            let example = r#"expected e.g. "sentinel://10.0.0.1,10.0.0.2/mymaster/0""#;
            assert!(got.contains(want) && got.ends_with(example), "{url}: {got}");
        }
        let many = ["h"; MAX_SENTINELS + 1].join(",");
        assert!(format!("sentinel://{}/m", &many[2..]).parse::<RedisUrl>().is_ok());
        let got = format!("sentinel://{many}/m").parse::<RedisUrl>().unwrap_err().to_string();
        assert!(got.contains("17 Sentinels, expected at most 16"), "{got}");
    }

    #[test]
    fn urls_are_shown_without_passwords() {
        for (url, want) in [
            ("sentinel://h1,[::1]:7/m", "sentinel://h1:26379,[::1]:7/m/0"),
            ("sentinel://user:x@h/m/4", "sentinel://user:***@h:26379/m/4"),
            ("sentinel://h/m?sentinel_password=x", "sentinel://h:26379/m/0?sentinel_password=***"),
            (
                "sentinel://h/m?sentinel_password=x&sentinel_user=u",
                "sentinel://h:26379/m/0?sentinel_user=u&sentinel_password=***",
            ),
        ] {
            assert_eq!(url.parse::<RedisUrl>().unwrap().to_string(), want, "{url}");
        }
    }
}
