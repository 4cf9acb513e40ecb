//! proxylistener's command line, and the settings that come of it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;
use redis::{Client, ConnectionAddr, RedisError};

use super::registrar::Registrar;
use super::store::Store;
use crate::daemon::{LogFormat, parse_duration};

/// Longest domain name whose labels below it still have room for one more of full length.
const MAX_DOMAIN_LEN: usize = 253 - 64;

const HELP: &str = "\
A client sends one of these, and is answered once, without a line end:

    register\\n<pattern>\\n<url>\\n
    registerCanonical\\n<pattern>\\n<url>\\n     the same, redirected to https://<tool>.<canonical domain>
    unregister\\n<pattern>\\n                   only what the same host registered

    ok     committed to Redis
    fail   refused, or not committed; the log says why
    Identd authentication failed. Please contact an administrator
    This service available only to tool accounts

Whose the connection is, the identd (RFC 1413) of the client's host is asked; the user must be <project>.<tool>.
A URL is http://ADDRESS:PORT or https://ADDRESS:PORT: the client's own address, or one in --allow-destination.

Exit status: 0 after SIGTERM or SIGINT, when all clients have been answered; 64 for a wrong command line; 1 when
it cannot listen.

    proxylistener --project tools --allow-destination 10.68.0.0/16 --redis redis://redis.example.org/0";

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = "proxylistener",
    version,
    about = "Lets jobs on the grid tell where their tool listens, and has the proxy route to it",
    after_help = HELP
)]
pub struct Options {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8282")]
    listen: SocketAddr,
    /// Project whose tools may register: their accounts are NAME.<tool>
    #[arg(long, value_name = "NAME", conflicts_with = "project_file")]
    project: Option<String>,
    /// File whose first line is the project's name
    #[arg(long, value_name = "FILE", default_value = "/etc/wmcs-project")]
    project_file: PathBuf,
    /// Port of the clients' identd
    #[arg(long, value_name = "PORT", default_value_t = 113, value_parser = clap::value_parser!(u16).range(1..))]
    ident_port: u16,
    /// How long an identd may take to reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    ident_timeout: Duration,
    /// How long a client may take to send its whole command
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    idle_timeout: Duration,
    /// Connections open at once, 64 of them from one host (of less than 128: half)
    #[arg(long, value_name = "NUMBER", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// Networks that routes may lead to, beside the client's own address; may be given several times
    #[arg(long, value_name = "CIDR", num_args = 1.., value_delimiter = ',', value_parser = parse_network)]
    allow_destination: Vec<IpNet>,
    /// Domain below which registerCanonical puts tools
    #[arg(long, value_name = "DOMAIN", default_value = "toolforge.org", value_parser = parse_domain)]
    canonical_domain: String,
    /// Where routes are kept: redis://[user:password@]host[:port][/db] or unix:///path
    #[arg(
        long,
        value_name = "URL",
        env = "URLPROXY_REDIS",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379/0"
    )]
    redis: String,
    /// How a line of the log is written, on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// What is served, checked.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Connections open at once.
    pub max_connections: usize,
    /// For a client's whole command.
    pub idle_timeout: Duration,
    /// The Redis, without its password, for people.
    pub redis: String,
    /// Who decides.
    pub(super) registrar: Registrar,
}

/// What is wrong with a command line whose values are right one by one.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file with the project's name.
    #[error("{error} while reading --project-file {path:?}; --project NAME gives the name itself")]
    ProjectFile {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No name that accounts can begin with.
    #[error("invalid project {0:?}, expected letters, digits, - and _, e.g. \"tools\"")]
    Project(String),
    /// No URL of a Redis. The text is left out: it may hold a password.
    #[error("invalid --redis: {0}, expected e.g. redis://127.0.0.1:6379/0")]
    Redis(RedisError),
    /// A Redis that this program can't speak to.
    #[error("invalid --redis: TLS is not supported here, expected e.g. redis://127.0.0.1:6379/0")]
    RedisTls,
}

impl Options {
    /// Resolves what was written, once.
    ///
    /// # Errors
    /// An unreadable project file, no project's name in it, a URL that is none.
    pub fn into_settings(self) -> Result<Settings, SettingsError> {
        let project = match self.project {
            Some(name) => name,
            None => {
                let read = fs::read_to_string(&self.project_file);
                let text = read.map_err(|error| SettingsError::ProjectFile { path: self.project_file, error })?;
                text.lines().next().unwrap_or_default().trim().to_owned()
            }
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if project.is_empty() || !project.bytes().all(allowed) {
            return Err(SettingsError::Project(project));
        }
        let client = Client::open(self.redis).map_err(SettingsError::Redis)?;
        let address = client.get_connection_info().addr();
        if matches!(address, ConnectionAddr::TcpTls { .. }) {
            return Err(SettingsError::RedisTls);
        }
        Ok(Settings {
            listen: self.listen,
            max_connections: self.max_connections as usize,
            idle_timeout: self.idle_timeout,
            redis: address.to_string(),
            registrar: Registrar {
                project,
                canonical_domain: self.canonical_domain,
                allowed: self.allow_destination,
                ident_port: self.ident_port,
                ident_timeout: self.ident_timeout,
                store: Store::new(client),
            },
        })
    }
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse().ok().or_else(address);
    network.ok_or_else(|| format!("invalid network {text:?}, expected e.g. \"10.0.0.0/8\""))
}

fn parse_domain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= MAX_DOMAIN_LEN && text.split('.').all(label) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("invalid domain {text:?}, expected e.g. \"toolforge.org\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, String> {
        let options = Options::try_parse_from(["proxylistener"].iter().chain(args)).map_err(|e| e.to_string())?;
        options.into_settings().map_err(|e| e.to_string())
    }

    #[test]
    fn the_options_are_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn what_is_right_is_taken() {
        let settings = settings(&[
            "--project",
            "tools",
            "--allow-destination",
            "10.0.0.0/8,fd00::/8",
            "--allow-destination",
            "192.0.2.1",
            "--canonical-domain",
            "Example.org",
            "--redis",
            "redis://user:s3cret@redis.example.org:7000/1",
        ])
        .unwrap();
        assert_eq!(settings.listen, "0.0.0.0:8282".parse().unwrap());
        assert_eq!(settings.registrar.allowed.len(), 3);
        assert_eq!(settings.registrar.canonical_domain, "example.org");
        assert_eq!(settings.redis, "redis.example.org:7000");
    }

    #[test]
    fn the_project_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("project");
        let path = file.to_str().unwrap();
        fs::write(&file, "toolsbeta\nmore\n").unwrap();
        assert_eq!(settings(&["--project-file", path]).unwrap().registrar.project, "toolsbeta");
        fs::write(&file, "\n").unwrap();
        assert!(settings(&["--project-file", path]).unwrap_err().contains("invalid project \"\""));
    }

    #[test]
    fn each_fault_names_its_option_and_a_right_value() {
        for (args, want) in [
            (&["--project", "a.b"][..], "invalid project \"a.b\""),
            (&["--project-file", "/nowhere"], "--project-file \"/nowhere\""),
            (&["--project", "a", "--project-file", "/b"], "cannot be used with"),
            (&["--project", "a", "--listen", "8282"], "--listen"),
            (&["--project", "a", "--ident-port", "0"], "--ident-port"),
            (&["--project", "a", "--ident-timeout", "5"], "expected e.g. \"5s\""),
            (&["--project", "a", "--idle-timeout", "0s"], "expected e.g. \"5s\""),
            (&["--project", "a", "--max-connections", "0"], "--max-connections"),
            (&["--project", "a", "--allow-destination", "10.0.0.0/33"], "expected e.g. \"10.0.0.0/8\""),
            (&["--project", "a", "--canonical-domain", "a..b"], "expected e.g. \"toolforge.org\""),
            (&["--project", "a", "--redis", "http://h"], "expected e.g. redis://"),
            (&["--project", "a", "--redis", "rediss://h"], "expected e.g. redis://"),
            (&["--project", "a", "--log-format", "xml"], "--log-format"),
            (&["--project", "a", "more"], "unexpected argument"),
        ] {
            let error = settings(args).unwrap_err();
            assert!(error.contains(want), "{args:?}: {error}");
        }
    }
}
