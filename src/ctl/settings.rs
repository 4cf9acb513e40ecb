//! The settings of all commands: from options, the environment and the settings file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::admin_client::{AdminClient, AdminUrl};
use super::outcome::CtlError;
use crate::daemon::{RedisOptions, Store};
use crate::redis_client::{RedisUrl, WrittenUrl};
use prometheus_client::metrics::histogram::Histogram;

/// Read if it exists and `--config` names no other.
const DEFAULT_FILE: &str = "/etc/urlproxy/urlproxyctl.toml";

/// Options of all commands, as written.
#[derive(Debug, Args)]
pub struct CommonOptions {
    /// Admin API of nginx, a location with "urlproxy_admin" [default: http://127.0.0.1:8081/]
    #[arg(long, value_name = "URL", env = "URLPROXYCTL_ADMIN", hide_env_values = true, global = true)]
    admin: Option<String>,
    /// Settings file in TOML with the keys admin, redis and redis-password-file; options come first [default:
    /// /etc/urlproxy/urlproxyctl.toml if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Options of the Redis connection.
    #[command(flatten)]
    redis: RedisOptions,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct File {
    admin: Option<String>,
    redis: Option<WrittenUrl>,
    redis_password_file: Option<PathBuf>,
}

/// What all commands need to know.
#[derive(Debug)]
pub struct Settings {
    /// The admin API.
    pub admin: AdminClient,
    redis: Result<RedisUrl, CtlError>,
}

impl CommonOptions {
    /// Validates the options and the settings file.
    ///
    /// # Errors
    /// The URL of the admin API, or the settings file, is invalid. An invalid URL of Redis is an error only when it is used.
    pub fn resolve(self) -> Result<Settings, CtlError> {
        let path = self.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let file = read(path, self.config.is_some())?;
        let (admin, origin) = match (&self.admin, &file.admin) {
            (Some(url), _) => (url.as_str(), "--admin".to_owned()),
            (None, Some(url)) => (url.as_str(), format!("admin in {path:?}")),
            (None, None) => (AdminUrl::DEFAULT, "--admin".to_owned()),
        };
        let admin = admin.parse().map_err(|error| CtlError::usage(format!("{origin}: {error}")))?;
        let origin = format!("redis in {path:?}");
        let fallback = file.redis.as_ref().map(|url| (url.as_str(), origin.as_str()));
        let redis = self.redis.with_password_file(file.redis_password_file).to_url_or(fallback);
        Ok(Settings { admin: AdminClient::new(admin), redis: redis.map_err(CtlError::usage) })
    }
}

impl Settings {
    /// The URL of Redis without its password; empty if it is invalid.
    pub fn redis_name(&self) -> String {
        self.redis.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// A connection to Redis, which is made at the first request.
    ///
    /// # Errors
    /// The URL of Redis, or its password file, is invalid.
    pub fn store(self) -> Result<(AdminClient, Store), CtlError> {
        // Nobody reads the latencies.
        Ok((self.admin, Store::new(self.redis?, Histogram::new([]))))
    }
}

fn read(path: &Path, is_named: bool) -> Result<File, CtlError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !is_named => return Ok(File::default()),
        Err(error) => return Err(CtlError::usage(format!("{error} while reading the settings file {path:?}"))),
    };
    parse(&text, path)
}

/// Parses the settings file at `path`.
///
/// # Errors
/// The place and the reason, without any value of the file.
pub fn parse(text: &str, path: &Path) -> Result<File, CtlError> {
    // The parser quotes the line, which may have a password.
    let message = |error: &toml::de::Error| {
        let line = error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        format!("line {line}: {}", error.message())
    };
    toml::from_str(text).map_err(|error| {
        let expected = "expected e.g. admin = \"http://127.0.0.1:8081/\"";
        CtlError::usage(format!("invalid settings file {path:?}, {}, {expected}", message(&error)))
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        common: CommonOptions,
    }

    fn resolve(file: &str, args: &[&str]) -> Result<(String, String), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("urlproxyctl.toml");
        fs::write(&path, file).unwrap();
        let args = ["urlproxyctl", "--config", path.to_str().unwrap()].into_iter().chain(args.iter().copied());
        // Variables of the machine that runs the test do not count.
        let command = Line::command().mut_args(|arg| arg.env(None::<&str>));
        let options = Line::from_arg_matches(&command.get_matches_from(args)).unwrap();
        let settings = options.common.resolve().map_err(|error| error.to_string())?;
        let redis = settings.redis.map_err(|error| error.to_string())?;
        let password = redis.credentials().map(|(_, password)| password.to_owned());
        Ok((format!("{:?}", settings.admin), format!("{redis} {}", password.unwrap_or_default())))
    }

    #[test]
    fn options_come_before_the_file_and_the_file_before_defaults() {
        let (admin, redis) = resolve("", &[]).unwrap();
        assert!(admin.contains("127.0.0.1") && redis.starts_with("redis://127.0.0.1:6379/0"), "{admin} {redis}");
        let file = "admin = 'http://a:1/x'\nredis = 'redis://r:2/3'\n";
        let (admin, redis) = resolve(file, &[]).unwrap();
        assert!(admin.contains("\"/x/\"") && redis.starts_with("redis://r:2/3"), "{admin} {redis}");
        let (admin, redis) = resolve(file, &["--admin", "http://b:9", "--redis", "redis://q"]).unwrap();
        assert!(admin.contains("\"b\"") && redis.starts_with("redis://q:6379/0"), "{admin} {redis}");
    }

    #[test]
    fn password_of_the_file_is_not_sent_to_another_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        fs::write(&path, "s3cret\n").unwrap();
        let file = format!("redis = 'redis://me@r'\nredis-password-file = {path:?}");
        assert!(resolve(&file, &[]).unwrap().1.ends_with(" s3cret"));
        assert!(!resolve(&file, &["--redis", "redis://me@q"]).unwrap().1.contains("s3cret"));
    }

    #[test]
    fn invalid_files_are_refused_without_their_passwords() {
        for (file, want) in [
            ("amin = 'x'", "unknown field `amin`"),
            ("admin = 'ftp://x'", "invalid URL \"ftp://x\""),
            ("admin = 1", "expected e.g. admin ="),
            ("\nredis = 'redis://:s3cret@h' x", "line 2"),
            ("redis = 'redis://:s3cret@h:port'", "redis in \""),
        ] {
            let error = resolve(file, &[]).unwrap_err();
            assert!(error.contains(want) && !error.contains("s3cret"), "{file}: {error}");
        }
        let error = read(Path::new("/does/not/exist"), true).unwrap_err().to_string();
        assert!(error.contains("while reading the settings file \"/does/not/exist\""), "{error}");
        assert!(read(Path::new("/does/not/exist"), false).is_ok());
    }
}
