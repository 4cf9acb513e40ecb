//! Options of the Redis connection.

use std::io;
use std::path::PathBuf;

use clap::Args;
use tracing::warn;

use crate::redis_client::{RedisUrl, RedisUrlError, WrittenUrl, read_password_file};

/// `--redis` and `--redis-password-file`, as written.
#[derive(Clone, Debug, Args)]
pub struct RedisOptions {
    #[arg(long, value_name = "URL", env = "URLPROXY_REDIS", hide_env_values = true, help = Self::help("Redis that holds the routes", Self::DEFAULT))]
    redis: Option<WrittenUrl>,
    /// File whose first line is the password for --redis; read at startup
    #[arg(long, value_name = "FILE")]
    redis_password_file: Option<PathBuf>,
}

/// Why the options are invalid.
#[derive(Debug, thiserror::Error)]
pub enum RedisOptionsError {
    /// The URL is invalid.
    #[error("{origin}: {error}")]
    Url {
        /// The option or file that gives the URL.
        origin: String,
        /// What is invalid.
        error: RedisUrlError,
    },
    /// The password file cannot be read, or its first line is empty.
    #[error("{error} while reading --redis-password-file {path:?}")]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

impl RedisOptionsError {
    /// Whether the options are valid but a file that they name is not.
    pub fn is_file_error(&self) -> bool {
        matches!(self, Self::PasswordFile { .. } | Self::Url { error: RedisUrlError::File { .. }, .. })
    }
}

impl RedisOptions {
    /// The default URL.
    pub const DEFAULT: &str = "redis://127.0.0.1:6379/0";

    /// The help text of `--redis` for a program with this purpose and default.
    pub fn help(purpose: &str, default: &str) -> String {
        format!(
            "{purpose}: redis://[user:password@]host[:port][/db], unix:/path[?db=N], or \
             sentinel://[user:password@]host[:port],.../MASTER[/db][?sentinel_user=U&sentinel_password_file=FILE]; rediss:// and \
             sentinels:// for TLS, with [?ca=FILE&cert=FILE&key=FILE] [default: {default}]"
        )
    }

    /// Uses the password file of a settings file, unless the options name a server or a password file of their own: a password is
    /// for the server that is named beside it.
    pub fn with_password_file(mut self, path: Option<PathBuf>) -> Self {
        if self.redis.is_none() && self.redis_password_file.is_none() {
            self.redis_password_file = path;
        }
        self
    }

    /// The URL with its password, or the default URL.
    ///
    /// # Errors
    /// The URL is invalid, or the password file has no password.
    pub fn to_url(&self) -> Result<RedisUrl, RedisOptionsError> {
        self.to_url_or(None)
    }

    /// Like [`to_url`](Self::to_url), with a fallback before the default: a URL from a settings file, and the name of its origin for
    /// errors.
    ///
    /// # Errors
    /// The URL is invalid, or the password file has no password.
    pub fn to_url_or(&self, other: Option<(&str, &str)>) -> Result<RedisUrl, RedisOptionsError> {
        let own = self.redis.as_ref().map(|url| (url.as_str(), "--redis"));
        let (url, origin) = own.or(other).unwrap_or((Self::DEFAULT, "--redis"));
        let wrong = |error| RedisOptionsError::Url { origin: origin.to_owned(), error };
        let url: RedisUrl = url.parse().map_err(wrong)?;
        for path in url.exposed_files() {
            warn!(
                ?path,
                "file with a key or a password is readable by every user of this host; expected e.g. mode 0640"
            );
        }
        let Some(path) = &self.redis_password_file else { return Ok(url) };
        let missing = || io::Error::other("no password on the first line");
        match read_password_file(path).and_then(|password| password.ok_or_else(missing)) {
            Ok(password) => Ok(url.with_password(password)),
            Err(error) => Err(RedisOptionsError::PasswordFile { path: path.clone(), error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn options(redis: Option<&str>, file: Option<PathBuf>) -> RedisOptions {
        RedisOptions { redis: redis.map(|url| url.to_owned().into()), redis_password_file: file }
    }

    #[test]
    fn default_is_redis_on_localhost() {
        assert_eq!(options(None, None).to_url().unwrap().to_string(), RedisOptions::DEFAULT);
        assert_eq!(options(None, None).to_url_or(Some(("unix:/s", "file"))).unwrap().to_string(), "unix:/s");
        assert_eq!(
            options(Some("redis://h"), None).to_url_or(Some(("unix:/s", "file"))).unwrap().to_string(),
            "redis://h:6379/0"
        );
    }

    #[test]
    fn password_is_the_first_line_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("redis.pass");
        for (content, password) in [("s3cret\nmore\n", "s3cret"), ("päss", "päss")] {
            fs::write(&file, content).unwrap();
            let url = options(Some("redis://me@h"), Some(file.clone())).to_url().unwrap();
            assert_eq!(url.credentials(), Some(("me", password)));
        }
        for (content, want) in
            [(&b""[..], "no password on the first line"), (b"\nx", "no password"), (b"\xff", "UTF-8")]
        {
            fs::write(&file, content).unwrap();
            let error = options(None, Some(file.clone())).to_url().unwrap_err().to_string();
            assert!(error.contains(want) && error.contains("while reading --redis-password-file"), "{error}");
        }
    }

    #[test]
    fn errors_name_the_option_and_no_password() {
        let error = options(Some("http://me:s3cret@h"), None).to_url().unwrap_err().to_string();
        assert_eq!(error, r#"--redis: invalid URL "http://me:***@h", expected e.g. "redis://127.0.0.1:6379/0""#);
        let error = options(None, None).to_url_or(Some(("redis://h:0", "redis in --config \"/c\""))).unwrap_err();
        assert!(error.to_string().starts_with("redis in --config \"/c\": invalid URL"), "{error}");
    }

    #[test]
    fn debug_output_hides_the_password() {
        let options = options(Some("redis://me:s3cret@h"), None);
        let shown = format!("{options:?}");
        assert!(shown.contains("me:***@h") && !shown.contains("s3cret"), "{shown}");
    }
}
