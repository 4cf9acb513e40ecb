//! `sentinel://` and `sentinels://` URLs: the addresses of Sentinels, and the name of the master.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::{ConnectionAddr, IntoConnectionInfo, parse_redis_url};

use super::error::Refusal;
use super::login::{Login, redacted_reason};
use super::redaction::{AMBIGUOUS_PASSWORD, unknown_parameter};
use super::{Address, Endpoint, TlsFiles};
use crate::redis_client::password_file::first_line;
use crate::redis_client::renewed::Renewed;
use crate::redis_client::tls_settings::{TlsSettings, check_server_name};

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
    login: Login,
    /// The file with the Sentinels' password, instead of the password in `login`.
    password_file: Option<Renewed<Arc<str>>>,
    /// For the Sentinels and for the servers that they name.
    tls: Option<TlsSettings>,
    /// Shared by all clones.
    masters: Arc<Masters>,
}

/// Masters that a majority of the Sentinels has named to this process.
#[derive(Debug, Default)]
struct Masters(Mutex<LatestMasters>);

#[derive(Debug, Default)]
struct LatestMasters {
    current: Option<Address>,
    /// The one before.
    former: Option<Address>,
}

/// Not a part of the URL.
impl PartialEq for Masters {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Masters {}

impl Sentinels {
    /// Records that a majority names this master.
    pub(crate) fn note_master(&self, master: &Address) {
        let mut masters = self.masters.0.lock();
        if masters.current.as_ref() != Some(master) {
            masters.former = masters.current.replace(master.clone());
        }
    }

    /// Whether a majority has named another master since it named this one.
    pub(crate) fn is_former(&self, address: &Address) -> bool {
        self.masters.0.lock().former.as_ref() == Some(address)
    }

    /// The endpoint of a Sentinel, or of a server that one has named.
    pub fn endpoint(&self, address: &Address) -> Endpoint {
        let Address { host, port } = address.clone();
        match self.tls.clone() {
            Some(tls) => Endpoint::Tls { host, port, tls },
            None => Endpoint::Tcp { host, port },
        }
    }

    /// The URL's scheme.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "sentinels" } else { "sentinel" }
    }

    /// User and password for the Sentinels, see [`Login::credentials`]. Reads the password file again, if there is one.
    pub(crate) fn credentials(&self) -> Option<(String, String)> {
        let renewed = self.password_file.as_ref().map(|file| file.current().0);
        let login = match renewed {
            Some(password) => &Login { password: Some(password.to_string()), ..self.login.clone() },
            None => &self.login,
        };
        login.credentials().map(|(user, password)| (user.to_owned(), password.to_owned()))
    }

    /// The files with the client's key and the Sentinels' password.
    pub(super) fn secret_files(&self) -> Vec<PathBuf> {
        let key = self.tls.iter().filter_map(TlsSettings::key_file);
        key.chain(self.password_file.iter().flat_map(Renewed::files).cloned()).collect()
    }

    /// The URL's parameters, without the password.
    pub(super) fn parameters(&self) -> Vec<String> {
        let Login { user, password } = &self.login;
        let mut parameters: Vec<_> = self.tls.iter().flat_map(TlsSettings::parameters).collect();
        parameters.extend(user.as_ref().map(|user| format!("sentinel_user={user}")));
        parameters.extend(password.as_ref().map(|_| "sentinel_password=***".to_owned()));
        let files = self.password_file.iter().flat_map(Renewed::files);
        parameters.extend(files.map(|file| format!("sentinel_password_file={}", file.display())));
        parameters
    }
}

/// As in a URL: `host:port,host:port/master`.
impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(Address::to_string).collect();
        write!(f, "{}/{}", addresses.join(","), self.master)
    }
}

/// Parses a URL into the Sentinels, the credentials for the master, and the database. Reads the files that it names.
pub(super) fn parse(text: &str) -> Result<(Sentinels, Login, u16), Refusal> {
    let (scheme, rest) = text.split_once("://").ok_or("\"//\" is missing")?;
    let is_tls = scheme == "sentinels";
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
        return Err(format!("{} Sentinels, expected at most {MAX_SENTINELS}", addresses.len()).into());
    }
    if is_tls {
        addresses.iter().try_for_each(|address| check_server_name(&address.host))?;
    }
    let (master, db) = path.split_once('/').unwrap_or((path, "0"));
    if master.is_empty() {
        return Err("the name of the master is missing".into());
    }
    // The characters that Sentinel documents as valid.
    if !master.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(format!("invalid master name {master:?}").into());
    }
    let db = if db.is_empty() { 0 } else { db.parse().map_err(|_| format!("no database has number {db:?}"))? };
    let login = login(&format!("redis://{userinfo}{}h", if userinfo.is_empty() { "" } else { "@" }))?;
    let (mut own_login, mut password_file, mut files) = (Login::default(), None, TlsFiles::default());
    let parameters = parse_redis_url(&format!("redis://h?{query}")).ok_or("invalid parameters")?;
    for (name, value) in parameters.query_pairs() {
        match &*name {
            "sentinel_user" => own_login.user = Some(value.into_owned()),
            "sentinel_password" => own_login.password = Some(value.into_owned()),
            "sentinel_password_file" => password_file = Some(value.as_ref().into()),
            name if is_tls && files.set(name, &value) => {}
            _ => return Err(unknown_parameter(&name, own_login.password.is_some()).into()),
        }
    }
    if own_login.password.is_some() && password_file.is_some() {
        return Err("both sentinel_password and sentinel_password_file".into());
    }
    let password_file = password_file.map(|file| Renewed::read(vec![("Sentinel password", file)], password));
    let (password_file, tls) = (password_file.transpose()?, is_tls.then(|| files.read()).transpose()?);
    let (master, masters) = (master.to_owned(), Arc::default());
    Ok((Sentinels { addresses, master, login: own_login, password_file, tls, masters }, login, db))
}

/// The password in a file.
fn password(contents: &[Vec<u8>]) -> Result<Arc<str>, (usize, String)> {
    let text = contents.first().map_or(Ok(""), |content| str::from_utf8(content));
    let text = text.map_err(|_| (0, "not UTF-8".to_owned()))?;
    first_line(text).map(Arc::from).ok_or_else(|| (0, "no password on the first line".to_owned()))
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

    fn pair(user: &str, password: &str) -> Option<(String, String)> {
        Some((user.into(), password.into()))
    }

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
        assert_eq!(sentinels(url).credentials(), pair("watch", "a&b"));
        let source: RedisUrl = "sentinel://h/m?sentinel_password=x".parse().unwrap();
        assert_eq!(source.credentials(), None);
        assert_eq!(sentinels("sentinel://:x@h/m").credentials(), None);
        assert_eq!(source.with_password("new").credentials(), Some(("default", "new")));
    }

    #[test]
    fn a_sentinel_password_may_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sentinel.pass");
        let url = format!("sentinel://h/m?sentinel_user=watch&sentinel_password_file={}", file.display());
        let refusal = |url: &str| url.parse::<RedisUrl>().unwrap_err().to_string();
        assert!(refusal(&url).contains("Sentinel password file \"") && refusal(&url).contains("No such file"));
        std::fs::write(&file, "\n").unwrap();
        let example = "sentinel_password_file=/etc/urlproxy/sentinel.pass\"";
        assert!(refusal(&url).contains("no password on the first line") && refusal(&url).ends_with(example));
        std::fs::write(&file, b"\xff").unwrap();
        assert!(refusal(&url).contains("not UTF-8"));
        std::fs::write(&file, "one\nmore\n").unwrap();
        let parsed = sentinels(&url);
        assert_eq!(parsed.credentials(), pair("watch", "one"));
        std::fs::write(&file, "two").unwrap();
        assert_eq!(parsed.credentials(), pair("watch", "two"));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(parsed.credentials(), pair("watch", "two"), "the last good one");
        std::fs::write(&file, "two").unwrap();
        let shown = format!("{0} {0:?}", url.parse::<RedisUrl>().unwrap());
        assert!(shown.contains(&format!("sentinel_password_file={}", file.display())) && !shown.contains("two"));
        let both = refusal(&format!("{url}&sentinel_password=s3cret"));
        assert!(
            both.contains("both sentinel_password and sentinel_password_file") && !both.contains("s3cret"),
            "{both}"
        );
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
