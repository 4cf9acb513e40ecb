//! Redis URLs, validated once and never shown with their password.

mod login;
mod redaction;
mod sentinels;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use login::{Login, redacted_reason};
pub use redaction::WrittenUrl;
use redaction::{AMBIGUOUS_PASSWORD, redacted, unknown_parameter};
use redis::{ConnectionAddr, IntoConnectionInfo, parse_redis_url};
use rustix::net::SocketAddrUnix;
pub use sentinels::{Address, MAX_SENTINELS, Sentinels};
use thiserror::Error;

/// An example of a valid URL, for error messages.
const EXAMPLE: &str = "redis://127.0.0.1:6379/0";
/// An example of a valid Sentinel URL.
const SENTINEL_EXAMPLE: &str = "sentinel://10.0.0.1,10.0.0.2/mymaster/0";

/// The address and credentials of a Redis server, or of the Sentinels that know it.
///
/// | URL | meaning |
/// | --- | --- |
/// | `redis://[user[:password]@]host[:port][/db]` | TCP; by default port 6379 and database 0; host is a name, an IPv4 address or `[IPv6]` |
/// | `rediss://...[?ca=/path/ca.pem]` | the same over TLS; the server's certificate must be valid for `host`, from one of the system's authorities or, with `ca`, from one in that PEM file |
/// | `unix:/path[?db=N&user=U&pass=P]` | a unix socket |
/// | `sentinel://[user[:password]@]host[:port][,...]/MASTER[/db][?sentinel_user=U&sentinel_password=P]` | the server that the Sentinels (default port 26379) call MASTER; user and password before `@` are for that server |
///
/// User, password and path are percent-decoded. All other URLs are refused. `valkey`, `valkeys`, `redis+unix` and
/// `valkey+unix` are other names for the first three schemes.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    reach: Reach,
    login: Login,
    db: u16,
}

/// How to find the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At a fixed endpoint.
    Direct(Endpoint),
    /// By asking Sentinels for the master.
    Sentinels(Sentinels),
}

/// The endpoint of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Plain TCP.
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// TLS over TCP.
    Tls {
        /// A name or an address, IPv6 without brackets; the server's certificate must be valid for it.
        host: String,
        /// TCP port.
        port: u16,
        /// The only authority to trust, instead of the system's.
        ca: Option<Authority>,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// A private certificate authority, read with the configuration: workers may lack permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The PEM file.
    pub file: PathBuf,
    /// The file's content, with at least one certificate.
    pub pem: Vec<u8>,
}

/// Why a Redis URL was refused. URLs are shown with `***` instead of passwords.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RedisUrlError {
    /// Not a URL of a known scheme.
    #[error("invalid URL {0:?}, expected e.g. {EXAMPLE:?}")]
    Invalid(String),
    /// A URL with an invalid part.
    #[error("invalid URL {url:?}: {reason}, expected e.g. {EXAMPLE:?}")]
    Part {
        /// The URL.
        url: String,
        /// The invalid part.
        reason: String,
    },
    /// A `sentinel://` URL with an invalid part.
    #[error("invalid URL {url:?}: {reason}, expected e.g. {SENTINEL_EXAMPLE:?}")]
    Sentinel {
        /// The URL.
        url: String,
        /// The invalid part.
        reason: String,
    },
    /// A TLS URL in a build without TLS.
    #[error("invalid URL {0:?}: this build is without TLS (cargo feature \"tls\"), expected e.g. {EXAMPLE:?}")]
    WithoutTls(String),
    /// The file after `?ca=` cannot be used.
    #[error(
        "invalid URL {url:?}: CA file {file:?}: {reason}, expected e.g. \"rediss://redis.example.org/0?ca=/etc/ssl/redis-ca.pem\""
    )]
    Ca {
        /// The URL.
        url: String,
        /// The file.
        file: PathBuf,
        /// Why the file is unusable.
        reason: String,
    },
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

    /// See [`Login::credentials`].
    pub(crate) fn credentials(&self) -> Option<(&str, &str)> {
        self.login.credentials()
    }
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    /// Parses a URL. Reads the file after `?ca=`; uses no network.
    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        let shown = || redacted(text);
        let part = |reason: &str| RedisUrlError::Part { url: shown(), reason: reason.into() };
        let scheme = match text.split_once(':').map_or("", |(scheme, _)| scheme) {
            "valkey" => "redis",
            "valkeys" => "rediss",
            "redis+unix" | "valkey+unix" => "unix",
            scheme => scheme,
        };
        match scheme {
            "redis" | "unix" => {}
            "rediss" if cfg!(feature = "tls") => {}
            "rediss" => return Err(RedisUrlError::WithoutTls(shown())),
            "sentinel" => {
                return match sentinels::parse(text) {
                    Ok((sentinels, login, db)) => Ok(Self { reach: Reach::Sentinels(sentinels), login, db }),
                    Err(reason) => Err(RedisUrlError::Sentinel { url: shown(), reason }),
                };
            }
            _ => return Err(RedisUrlError::Invalid(shown())),
        }
        let url = parse_redis_url(text).ok_or_else(|| RedisUrlError::Invalid(shown()))?;
        if url.fragment().is_some() {
            return Err(part("nothing may follow a \"#\""));
        }
        // Only unix URLs have no password before the parameters.
        if scheme != "unix" && url.query().is_some_and(|query| query.contains('@')) {
            return Err(part(AMBIGUOUS_PASSWORD));
        }
        let (mut ca, mut has_password) = (None, false);
        for (name, value) in url.query_pairs() {
            match (scheme, &*name) {
                ("rediss", "ca") => ca = Some(PathBuf::from(&*value)),
                ("unix", "pass") => has_password = true,
                ("unix", "db" | "user") => {}
                _ => return Err(part(&unknown_parameter(&name, has_password))),
            }
        }
        // The redis crate's message may quote the URL.
        let info = url.into_connection_info().map_err(|error| part(&redacted_reason(&error)))?;
        let endpoint = match info.addr() {
            ConnectionAddr::Tcp(_, 0) | ConnectionAddr::TcpTls { port: 0, .. } => return Err(part("port 0")),
            ConnectionAddr::Tcp(host, port) => Endpoint::Tcp { host: host.clone(), port: *port },
            ConnectionAddr::TcpTls { host, port, .. } => {
                check_server_name(host).map_err(|reason| part(&reason))?;
                let ca = ca.map(|file| {
                    Authority::read(&file).map_err(|reason| RedisUrlError::Ca { url: shown(), file, reason })
                });
                Endpoint::Tls { host: host.clone(), port: *port, ca: ca.transpose()? }
            }
            ConnectionAddr::Unix(path) => {
                SocketAddrUnix::new(path).map_err(|_| part("the path does not fit a socket address"))?;
                Endpoint::Unix(path.clone())
            }
            _ => return Err(RedisUrlError::Invalid(shown())),
        };
        let settings = info.redis_settings();
        let db =
            u16::try_from(settings.db()).map_err(|_| part(&format!("no database has number {}", settings.db())))?;
        Ok(Self { reach: Reach::Direct(endpoint), login: Login::of(settings), db })
    }
}

/// The address without user, password and database: `host:port`, a path, or the Sentinels with the name of the master.
impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(Endpoint::Unix(path)) => write!(f, "{}", path.display()),
            Self::Direct(Endpoint::Tcp { host, port } | Endpoint::Tls { host, port, .. }) => {
                write!(f, "{}", Address { host: host.clone(), port: *port })
            }
            Self::Sentinels(sentinels) => write!(f, "{sentinels}"),
        }
    }
}

/// The URL for logs and status pages: with the user, without the password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reach {
            Reach::Direct(Endpoint::Unix(path)) => {
                write!(f, "unix:{}", path.display())?;
                if self.db == 0 { Ok(()) } else { write!(f, "?db={}", self.db) }
            }
            Reach::Direct(Endpoint::Tcp { .. }) => write!(f, "redis://{}{}/{}", self.login, self.reach, self.db),
            Reach::Direct(Endpoint::Tls { .. }) => write!(f, "rediss://{}{}/{}", self.login, self.reach, self.db),
            Reach::Sentinels(sentinels) => {
                write!(f, "sentinel://{}{sentinels}/{}", self.login, self.db)?;
                let Login { user, password } = &sentinels.login;
                let user = user.as_ref().map(|user| format!("sentinel_user={user}"));
                let password = password.as_ref().map(|_| "sentinel_password=***".to_owned());
                let parameters: Vec<_> = user.into_iter().chain(password).collect();
                if parameters.is_empty() { Ok(()) } else { write!(f, "?{}", parameters.join("&")) }
            }
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

impl Authority {
    #[cfg(feature = "tls")]
    fn read(file: &Path) -> Result<Self, String> {
        if !file.is_absolute() {
            return Err("the path is not absolute".into());
        }
        let pem = std::fs::read(file).map_err(|error| error.to_string())?;
        let authority = Self { file: file.into(), pem };
        if authority.roots()?.is_empty() {
            return Err("no certificate in it".into());
        }
        Ok(authority)
    }

    /// The certificates as trust anchors.
    #[cfg(feature = "tls")]
    pub(super) fn roots(&self) -> Result<rustls::RootCertStore, String> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};

        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.pem) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        Ok(roots)
    }

    #[cfg(not(feature = "tls"))]
    fn read(_: &Path) -> Result<Self, String> {
        Err("this build is without TLS".into())
    }
}

#[cfg(feature = "tls")]
fn check_server_name(host: &str) -> Result<(), String> {
    let name = rustls::pki_types::ServerName::try_from(host);
    name.map(drop).map_err(|_| format!("no certificate can be for the host {host:?}"))
}

#[cfg(not(feature = "tls"))]
fn check_server_name(_: &str) -> Result<(), String> {
    Ok(())
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
        let tls = Endpoint::Tls { host: "h".into(), port: 6379, ca: None };
        assert_eq!(source("rediss://h").reach(), &Reach::Direct(tls));
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

    #[cfg(not(feature = "tls"))]
    #[test]
    fn builds_without_tls_refuse_tls_urls() {
        assert!(refusal("rediss://h").contains("this build is without TLS"));
    }
}
