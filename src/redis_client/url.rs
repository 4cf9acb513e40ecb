//! Redis URLs, validated once and never shown with their password.

mod endpoint;
mod error;
mod login;
mod reach;
mod redaction;
mod sentinels;
mod tls_files;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::str::FromStr;

pub use endpoint::{Address, Endpoint};
pub use error::RedisUrlError;
use error::{EXAMPLE, Refusal, SENTINEL_EXAMPLE};
use login::{Login, redacted_reason};
pub use reach::Reach;
pub use redaction::WrittenUrl;
use redaction::{AMBIGUOUS_PASSWORD, redacted, unknown_parameter};
use redis::{ConnectionAddr, IntoConnectionInfo, parse_redis_url};
use rustix::net::SocketAddrUnix;
pub use sentinels::{MAX_SENTINELS, Sentinels};
use tls_files::TlsFiles;

use super::tls_settings::check_server_name;

/// The bit in a file's mode by which all users may read it.
const OTHERS_READ: u32 = 0o004;

/// The address and credentials of a Redis server, or of the Sentinels that know it.
///
/// | URL | meaning |
/// | --- | --- |
/// | `redis://[user[:password]@]host[:port][/db]` | TCP; by default port 6379 and database 0; host is a name, an IPv4 address or `[IPv6]` |
/// | `rediss://...[?ca=FILE][&cert=FILE&key=FILE]` | the same over TLS; the server's certificate must be valid for `host`, from one of the system's authorities or, with `ca`, from one in that PEM file; `cert` and `key` are the client's certificate chain and its key |
/// | `unix:/path[?db=N&user=U&pass=P]` | a unix socket |
/// | `sentinel://[user[:password]@]host[:port][,...]/MASTER[/db][?sentinel_user=U&sentinel_password=P]` | the server that the Sentinels (default port 26379) call MASTER; user and password before `@` are for that server; `sentinel_password_file=FILE` instead of `sentinel_password=P` |
/// | `sentinels://...[?ca=FILE][&cert=FILE&key=FILE]` | the same with TLS, both to the Sentinels and to the servers that they name |
///
/// User, password and path are percent-decoded. All other URLs are refused. `valkey`, `valkeys`, `redis+unix` and
/// `valkey+unix` are other names for the first three schemes.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    reach: Reach,
    login: Login,
    db: u16,
}

impl RedisUrl {
    /// The same server with another password; the caller strips a password file's line end.
    pub fn with_password(mut self, password: impl Into<String>) -> Self {
        self.login.password = Some(password.into());
        self
    }

    /// How to find the server.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The database number.
    pub fn db(&self) -> u16 {
        self.db
    }

    /// The files with a secret that every user of this host may read: the client's key, the Sentinels' password.
    pub fn exposed_files(&self) -> Vec<PathBuf> {
        let mut files = match &self.reach {
            Reach::Direct(Endpoint::Tls { tls, .. }) => tls.key_file().into_iter().collect(),
            Reach::Direct(_) => vec![],
            Reach::Sentinels(sentinels) => sentinels.secret_files(),
        };
        files.retain(|file| file.metadata().is_ok_and(|meta| meta.mode() & OTHERS_READ != 0));
        files
    }

    /// See [`Login::credentials`].
    pub(crate) fn credentials(&self) -> Option<(&str, &str)> {
        self.login.credentials()
    }
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    /// Parses a URL. Reads the files that it names; uses no network.
    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        let scheme = match text.split_once(':').map_or("", |(scheme, _)| scheme) {
            "valkey" => "redis",
            "valkeys" => "rediss",
            "redis+unix" | "valkey+unix" => "unix",
            scheme => scheme,
        };
        let shown = || redacted(text);
        let (parsed, example) = match scheme {
            "rediss" | "sentinels" if cfg!(not(feature = "tls")) => return Err(RedisUrlError::WithoutTls(shown())),
            "redis" | "rediss" | "unix" => (direct(text, scheme), EXAMPLE),
            "sentinel" | "sentinels" => (behind_sentinels(text), SENTINEL_EXAMPLE),
            _ => return Err(RedisUrlError::Invalid(shown())),
        };
        parsed.map_err(|refusal| RedisUrlError::of(refusal, shown(), example))
    }
}

/// Parses a `sentinel://` or `sentinels://` URL.
fn behind_sentinels(text: &str) -> Result<RedisUrl, Refusal> {
    let (sentinels, login, db) = sentinels::parse(text)?;
    Ok(RedisUrl { reach: Reach::Sentinels(sentinels), login, db })
}

/// Parses the URL of one server.
fn direct(text: &str, scheme: &str) -> Result<RedisUrl, Refusal> {
    let url = parse_redis_url(text).ok_or(Refusal::NoUrl)?;
    if url.fragment().is_some() {
        return Err("nothing may follow a \"#\"".into());
    }
    // Only unix URLs have no password before the parameters.
    if scheme != "unix" && url.query().is_some_and(|query| query.contains('@')) {
        return Err(AMBIGUOUS_PASSWORD.into());
    }
    let (mut files, mut has_password) = (TlsFiles::default(), false);
    for (name, value) in url.query_pairs() {
        match (scheme, &*name) {
            ("rediss", name) if files.set(name, &value) => {}
            ("unix", "pass") => has_password = true,
            ("unix", "db" | "user") => {}
            _ => return Err(unknown_parameter(&name, has_password).into()),
        }
    }
    // The redis crate's message may quote the URL.
    let info = url.into_connection_info().map_err(|error| redacted_reason(&error))?;
    let endpoint = match info.addr() {
        ConnectionAddr::Tcp(_, 0) | ConnectionAddr::TcpTls { port: 0, .. } => return Err("port 0".into()),
        ConnectionAddr::Tcp(host, port) => Endpoint::Tcp { host: host.clone(), port: *port },
        ConnectionAddr::TcpTls { host, port, .. } => {
            check_server_name(host)?;
            Endpoint::Tls { host: host.clone(), port: *port, tls: files.read()? }
        }
        ConnectionAddr::Unix(path) => {
            SocketAddrUnix::new(path).map_err(|_| "the path does not fit a socket address")?;
            Endpoint::Unix(path.clone())
        }
        _ => return Err(Refusal::NoUrl),
    };
    let settings = info.redis_settings();
    let db = u16::try_from(settings.db()).map_err(|_| format!("no database has number {}", settings.db()))?;
    Ok(RedisUrl { reach: Reach::Direct(endpoint), login: Login::of(settings), db })
}

/// The URL for logs and status pages: with the user and the names of files, without passwords.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parameters = Vec::new();
        match &self.reach {
            Reach::Direct(Endpoint::Unix(path)) => {
                write!(f, "unix:{}", path.display())?;
                parameters.extend((self.db != 0).then(|| format!("db={}", self.db)));
            }
            Reach::Direct(Endpoint::Tcp { .. }) => write!(f, "redis://{}{}/{}", self.login, self.reach, self.db)?,
            Reach::Direct(Endpoint::Tls { tls, .. }) => {
                write!(f, "rediss://{}{}/{}", self.login, self.reach, self.db)?;
                parameters.extend(tls.parameters());
            }
            Reach::Sentinels(sentinels) => {
                write!(f, "{}://{}{sentinels}/{}", sentinels.scheme(), self.login, self.db)?;
                parameters.extend(sentinels.parameters());
            }
        }
        if parameters.is_empty() { Ok(()) } else { write!(f, "?{}", parameters.join("&")) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str) -> RedisUrl {
        url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn refusal(url: &str) -> String {
        url.parse::<RedisUrl>().expect_err(url).to_string()
    }

    #[test]
    fn urls_give_endpoint_and_database() {
        let tcp = |host: &str, port| Endpoint::Tcp { host: host.into(), port };
        for (url, endpoint, db) in [
            ("redis://127.0.0.1", tcp("127.0.0.1", 6379), 0),
            ("redis://redis.example.org:7000/3", tcp("redis.example.org", 7000), 3),
            ("redis://[::1]:6380/", tcp("::1", 6380), 0),
            ("redis://[2001:db8::7]", tcp("2001:db8::7", 6379), 0),
            ("unix:/run/redis/redis.sock", Endpoint::Unix("/run/redis/redis.sock".into()), 0),
            ("unix:///run/r%20s.sock?db=15", Endpoint::Unix("/run/r s.sock".into()), 15),
            ("redis+unix:///run/s?db=1", Endpoint::Unix("/run/s".into()), 1),
            ("valkey+unix:/run/s", Endpoint::Unix("/run/s".into()), 0),
            ("valkey://:pw@h:7000/2", tcp("h", 7000), 2),
        ] {
            assert_eq!((source(url).reach(), source(url).db()), (&Reach::Direct(endpoint), db), "{url}");
        }
    }

    #[test]
    fn urls_give_credentials() {
        for (url, credentials) in [
            ("redis://h", None),
            ("redis://:p%40ss%2F@h", Some(("default", "p@ss/"))),
            ("redis://sync:secret@h", Some(("sync", "secret"))),
            ("redis://sync@h", Some(("sync", ""))),
            ("unix:/s?user=sync&pass=secret", Some(("sync", "secret"))),
        ] {
            assert_eq!(source(url).credentials(), credentials, "{url}");
        }
        assert_eq!(source("redis://sync:old@h").with_password("new").credentials(), Some(("sync", "new")));
        assert_eq!(source("redis://h").with_password("new").credentials(), Some(("default", "new")));
    }

    #[test]
    fn invalid_urls_are_refused_with_an_example() {
        for (url, want) in [
            ("htp://x", r#"invalid URL "htp://x", expected e.g. "redis://127.0.0.1:6379/0""#),
            ("", r#"invalid URL "", expected e.g. "redis://127.0.0.1:6379/0""#),
            ("127.0.0.1:6379", r#"invalid URL "127.0.0.1:6379", expected"#),
            ("redis://", r#"invalid URL "redis://": missing hostname, expected"#),
            ("redis://h:port", r#"invalid URL "redis://h:***", expected"#),
            ("redis://h:0", r#"invalid URL "redis://h:0": port 0, expected"#),
            ("redis://h:65536", r#"invalid URL "redis://h:65536", expected"#),
            ("redis://0.0.0.0", "cannot connect to a wildcard address"),
            ("redis://h/x", "invalid database number"),
            ("redis://h/-1", "no database has number -1"),
            ("redis://h/70000", "no database has number 70000"),
            ("redis://h?protocol=resp3", r#"unknown parameter "protocol""#),
            ("redis://h?ca=/x", r#"unknown parameter "ca""#),
            ("redis://h#insecure", "nothing may follow a"),
            ("redis://%ff@h", "username is not valid utf-8"),
            ("unix:", "missing path"),
            ("unix:redis.sock", "missing path"),
            ("unix://host/redis.sock", "missing path"),
            ("unix:/s?timeout=1", r#"unknown parameter "timeout""#),
        ] {
            let got = refusal(url);
            assert!(got.contains(want) && got.contains("expected e.g. \""), "{url}: {got}");
        }
        assert!(refusal(&format!("unix:/{}", "x".repeat(108))).contains("does not fit a socket address"));
    }

    #[test]
    fn urls_are_shown_without_passwords() {
        for (url, want) in [
            ("redis://127.0.0.1", "redis://127.0.0.1:6379/0"),
            ("redis://user:x@[::1]:7/4", "redis://user:***@[::1]:7/4"),
            ("redis://:x@h", "redis://:***@h:6379/0"),
            ("redis://user@h", "redis://user@h:6379/0"),
            ("unix:///run/s", "unix:/run/s"),
            ("unix:/run/s?db=2&pass=x", "unix:/run/s?db=2"),
        ] {
            assert_eq!(source(url).to_string(), want, "{url}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_urls_may_have_an_authority() {
        assert!(matches!(source("rediss://h").reach(), Reach::Direct(Endpoint::Tls { port: 6379, .. })));
        assert_eq!(source("rediss://h").to_string(), "rediss://h:6379/0");
        assert_eq!(source("rediss://user:x@h/2").to_string(), "rediss://user:***@h:6379/2");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let url = format!("rediss://h?ca={}", file.display());
        for (pem, want) in [
            ("", "no certificate in it"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ca.pem\": invalid"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "ca.pem\":"),
        ] {
            std::fs::write(&file, pem).unwrap();
            assert!(refusal(&url).contains(want), "{}", refusal(&url));
        }
        std::fs::remove_file(&file).unwrap();
        assert!(refusal(&url).contains("ca.pem\": No such file"), "{}", refusal(&url));
        assert!(refusal("rediss://h?ca=ca.pem").contains("path is not absolute"));
        assert!(refusal("rediss://h_/?verify=no").contains("unknown parameter"));
        assert!(refusal("rediss://a..b/").contains("no certificate can be for the host"));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_urls_may_have_a_client_certificate() {
        use std::os::unix::fs::PermissionsExt;

        use crate::redis_client::test_certificates::Files;

        let files = Files::new();
        let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| files.path(name));
        for (before, after) in [("rediss://h:6379/0?", ""), ("sentinels://h:26379/m/0?", "&sentinel_user=u")] {
            let url = format!("{before}ca={ca}&cert={cert}&key={key}{after}");
            assert_eq!(source(&url).to_string(), url);
            assert_eq!(source(&url), source(&url), "equal by their files");
            assert_ne!(source(&url), source(&url.replace(&format!("ca={ca}&"), "")));
            source(&format!("{before}cert={}&key={key}", files.path("version1.pem")));
            for (mode, exposed) in [(0o600, vec![]), (0o644, vec![PathBuf::from(&key)]), (0o640, vec![])] {
                std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
                assert_eq!(source(&url).exposed_files(), exposed, "{mode:o}");
            }
            for (part, want) in [
                (format!("cert={cert}"), format!("the key for cert={cert} is missing, expected e.g. \"")),
                (format!("key={key}"), format!("the certificate for key={key} is missing, expected e.g. \"")),
                (format!("cert={ca}&key={key}"), "the key does not belong to the client certificate".into()),
                (format!("cert={key}&key={key}"), format!("client certificate file {key:?}: no certificate in it")),
                (format!("cert={cert}&key={cert}"), format!("client key file {cert:?}: no private key in it")),
                (format!("cert={cert}&key=/"), "client key file \"/\": Is a directory".into()),
                (format!("cert={cert}&key=/dev/zero"), "not a regular file".into()),
                (format!("cert={cert}&key=key.pem"), "client key file \"key.pem\": the path is not absolute".into()),
                (format!("cert={cert}&key={}", files.path("encrypted.pem")), "the key is encrypted".into()),
                (format!("cert={cert}&key={}", files.path("encrypted_old.pem")), "the key is encrypted".into()),
                (format!("cert={cert}&key={}", files.path("broken.pem")), "invalid PEM".into()),
                (format!("cert={cert}&key={}", files.path("one_line.pem")), "invalid PEM".into()),
                (format!("cert={cert}&key={key}&pass=x"), "unknown parameter \"pass\"".into()),
            ] {
                let refused = refusal(&format!("{before}{part}"));
                assert!(refused.contains(&want) && refused.contains(before), "{part}: {refused}");
                assert!(
                    refused.contains("expected e.g. \"") && !refused.contains(&files.secret()),
                    "{part}: {refused}"
                );
            }
        }
        assert!(!format!("{:?}", source(&format!("rediss://h?cert={cert}&key={key}"))).contains(&files.secret()));
        assert!(refusal("redis://h?cert=/c").contains("unknown parameter \"cert\""));
        assert!(refusal("sentinels://a..b/m").contains("no certificate can be for the host \"a..b\""));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn builds_without_tls_refuse_tls_urls() {
        for url in ["rediss://h", "sentinels://h/m"] {
            assert!(refusal(url).contains("this build is without TLS"), "{}", refusal(url));
        }
    }
}
