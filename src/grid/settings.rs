//! Validated settings; part of them may be reloaded.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tracing::warn;

use super::options::{Options, PROGRAM, reason};
use crate::daemon::{CommonOptions, ProjectError, RedisOptionsError, raise_fd_limit};
use crate::redis_client::RedisUrl;
use crate::withdrawal_guard::GuardSettings;

/// Settings from the command line and `--settings-file`.
pub struct Settings {
    /// `--listen`.
    pub listen: SocketAddr,
    /// `--redis` with its password.
    pub redis: RedisUrl,
    pub(super) policy: Policy,
    common: CommonOptions,
    args: Vec<OsString>,
}

/// Settings that may be reloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Tool accounts are `<project>.<tool>`.
    pub project: String,
    /// Canonical hosts are `<tool>.<canonical_domain>`.
    pub canonical_domain: String,
    /// Hosts that may be clients; an empty list admits all.
    pub allowed_clients: Vec<IpNet>,
    /// Destinations besides a client's own address.
    pub allowed: Vec<IpNet>,
    /// Port of the identds.
    pub ident_port: u16,
    /// Longest time for an identd's reply.
    pub ident_timeout: Duration,
    /// Longest time for a client's complete command.
    pub idle_timeout: Duration,
    /// Most concurrent connections.
    pub max_connections: usize,
    /// From the start of an audit to the start of the next; `None` disables the audit.
    pub audit_interval: Option<Duration>,
    /// How long a port must refuse connections until its route is withdrawn; `None` keeps such routes.
    pub dead_after: Option<Duration>,
    /// The guard of those withdrawals; `None` disables it.
    pub dead_guard: Option<GuardSettings>,
}

/// The current policy. Each decision loads it once.
pub type LivePolicy = Arc<ArcSwap<Policy>>;

/// An invalid combination of options, or an invalid file that they name.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// `--project` or `--project-file`.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// `--redis` or `--redis-password-file`.
    #[error(transparent)]
    Redis(#[from] RedisOptionsError),
}

impl Options {
    /// Validates the options, and reads the files that they name.
    pub(super) fn into_settings(self) -> Result<Settings, SettingsError> {
        let redis = self.common.redis.to_url()?;
        self.with_redis(redis)
    }

    fn with_redis(self, redis: RedisUrl) -> Result<Settings, SettingsError> {
        let project = self.project.resolve()?;
        Ok(Settings {
            listen: self.listen,
            redis,
            policy: Policy {
                project,
                canonical_domain: self.canonical_domain,
                allowed_clients: self.allow_client,
                allowed: self.allow_destination,
                ident_port: self.ident_port,
                ident_timeout: self.ident_timeout,
                idle_timeout: self.idle_timeout,
                max_connections: self.max_connections as usize,
                audit_interval: self.audit_interval.0,
                dead_after: self.dead_after.0,
                dead_guard: self.withdrawal_guard.into_settings(PROGRAM),
            },
            common: self.common,
            args: self.args,
        })
    }
}

impl Settings {
    /// Reads the command line of the start again, with its files. Keeps the Redis options if their files cannot be read: they
    /// need a restart anyway.
    ///
    /// # Errors
    /// The invalid option or file, for the log.
    pub(super) fn reload(&self) -> Result<Self, String> {
        let options = Options::read_with_file(&self.args).map_err(|error| reason(&error))?;
        let redis = match options.common.redis.to_url() {
            Err(error) if error.is_file_error() => {
                warn!(%error, "Redis options not reloaded; keeping current ones, which need a restart to change");
                self.redis.clone()
            }
            redis => redis.map_err(|error| error.to_string())?,
        };
        options.with_redis(redis).map_err(|error| error.to_string())
    }

    /// The options that differ from `other`'s and need a restart.
    pub(super) fn changes_needing_restart(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let own = [
            ("--listen", self.listen == other.listen),
            ("--redis or --redis-password-file", self.redis == other.redis),
        ];
        let own = own.into_iter().filter(|(_, same)| !same).map(|(option, _)| option);
        own.chain(self.common.differing_from(&other.common))
    }
}

impl Policy {
    /// Whether a host may be a client. An IPv4 client has an IPv4 address here, not a mapped one.
    pub(super) fn admits(&self, host: IpAddr) -> bool {
        self.allowed_clients.is_empty() || self.allowed_clients.iter().any(|network| network.contains(&host))
    }

    /// Warns if any host may be a client.
    pub(super) fn warn_if_open(&self) {
        if self.allowed_clients.is_empty() {
            warn!(
                "--allow-client is not set; any host that reaches this port and runs an identd can register for any \
                 tool, set it to the networks of the exec hosts"
            );
        }
    }

    /// Raises the limit of open files to what the connections need, and warns if the system allows less.
    pub(super) fn raise_fd_limit(&self) {
        // Each client and its identd take one, and as many clients may wait, and linger after their reply, as are served.
        let needed = 4 * self.max_connections as u64 + 704;
        if let Some(limit) = raise_fd_limit().filter(|limit| *limit < needed) {
            warn!(limit, needed, "open file limit too low for --max-connections; connections may fail under load");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, String> {
        let args: Vec<_> = ["proxylistener"].iter().chain(args).map(OsString::from).collect();
        let options = Options::read_with_file(&args).map_err(|error| reason(&error))?;
        options.into_settings().map_err(|error| error.to_string())
    }

    #[test]
    fn valid_options_are_accepted() {
        let settings = settings(&[
            "--project",
            "tools",
            "--allow-destination",
            "10.0.0.0/8,fd00::/8",
            "--allow-destination",
            "192.0.2.1",
            "--allow-client",
            "::ffff:10.0.0.0/104",
            "192.0.2.8/30,fd00::/8",
            "--canonical-domain",
            "Example.org",
            "--redis",
            "redis://user:s3cret@redis.example.org:7000/1",
        ])
        .unwrap();
        assert_eq!(settings.listen, "0.0.0.0:8282".parse().unwrap());
        assert_eq!(settings.policy.allowed.len(), 3);
        let admits = |host: &str| settings.policy.admits(host.parse().unwrap());
        assert!(admits("10.0.0.1") && admits("192.0.2.9") && admits("fd00::1") && !admits("192.0.2.7"));
        assert_eq!(settings.policy.canonical_domain, "example.org");
        assert_eq!(settings.policy.audit_interval, Some(Duration::from_secs(300)));
        assert_eq!(settings.redis.reach().to_string(), "redis.example.org:7000");
    }

    #[test]
    fn project_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("project");
        let path = file.to_str().unwrap();
        fs::write(&file, "toolsbeta\nmore\n").unwrap();
        assert_eq!(settings(&["--project-file", path]).unwrap().policy.project, "toolsbeta");
        fs::write(&file, "\n").unwrap();
        assert!(settings(&["--project-file", path]).err().unwrap().contains("invalid project \"\""));
    }

    #[test]
    fn changed_password_file_needs_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("redis.pass");
        let args = ["--project", "tools", "--redis-password-file", file.to_str().unwrap()];
        let read = |password: &str| {
            fs::write(&file, password).unwrap();
            settings(&args).unwrap()
        };
        let [first, same, other] = ["a\n", "a\n", "b\n"].map(read);
        assert_eq!(first.changes_needing_restart(&same).count(), 0);
        assert_eq!(first.changes_needing_restart(&other).collect::<Vec<_>>(), ["--redis or --redis-password-file"]);
    }

    #[test]
    fn command_line_overrides_the_settings_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings");
        let path = file.to_str().unwrap();
        let text = "# ours\nproject tools\n\n  idle-timeout  7s\nident-timeout 1s\nallow-destination 10.0.0.0/8 fd00::/8\n\
            allow-client 10.0.0.0/8,10.1.0.0/16\nallow-client fd00::/8\n\
            allow-destination 192.0.2.1\naudit-interval off\nwithdrawal-guard 60% hold=2h\ndead-after 7m\n";
        fs::write(&file, text).unwrap();
        let args = ["--settings-file", path, "--ident-timeout", "2s", "--allow-destination", "192.0.2.2"];
        let policy = settings(&args).unwrap().policy;
        assert_eq!(policy.project, "tools");
        assert_eq!((policy.idle_timeout, policy.ident_timeout), (Duration::from_secs(7), Duration::from_secs(2)));
        assert_eq!((policy.allowed.len(), policy.allowed_clients.len(), policy.audit_interval), (4, 3, None));
        for (text, want) in [
            ("project tools\nno-such 1\n", ":2: unknown setting \"no-such\", expected an option without its dashes"),
            ("settings-file /x\n", ":1: unknown setting \"settings-file\""),
            ("--project tools\n", ":1: unknown setting \"--project\""),
            ("idle-timeout soon\n", ":1: invalid value 'soon' for '--idle-timeout <TIME>': invalid duration"),
            ("idle-timeout\n", ":1: a value is required for '--idle-timeout <TIME>'"),
            ("idle-timeout 1s 2s\n", ":1: unexpected argument '2s'"),
        ] {
            fs::write(&file, text).unwrap();
            let error = settings(&["--project", "a", "--settings-file", path]).err().unwrap();
            assert!(error.contains(&format!("{path}{want}")), "{text:?}: {error}");
        }
        let error = settings(&["--project", "a", "--settings-file", "/nowhere"]).err().unwrap();
        assert!(error.contains("while reading --settings-file /nowhere"), "{error}");
    }

    #[test]
    fn redis_options_stay_when_their_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let write = |domain: &str| fs::write(path("settings"), format!("canonical-domain {domain}\n")).unwrap();
        fs::write(path("redis.pass"), "s3cret\n").unwrap();
        write("a.org");
        let (pass, file) = (path("redis.pass"), path("settings"));
        let begun = settings(&["--project", "a", "--settings-file", &file, "--redis-password-file", &pass]).unwrap();
        fs::remove_file(&pass).unwrap();
        write("b.org");
        let read = begun.reload().unwrap();
        assert_eq!((&*read.policy.canonical_domain, &read.redis), ("b.org", &begun.redis));
        assert_eq!(begun.changes_needing_restart(&read).count(), 0);
        fs::write(&pass, "other\n").unwrap();
        let read = begun.reload().unwrap();
        assert!(begun.changes_needing_restart(&read).eq(["--redis or --redis-password-file"]));
    }

    #[test]
    fn shipped_file_is_valid_with_its_suggestions() {
        let shipped = include_str!("../../packaging/etc/proxylistener.settings");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings");
        let uncomment = |line: &'static str| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line);
        let uncommented: Vec<_> = shipped.lines().map(uncomment).collect();
        fs::write(&file, uncommented.join("\n")).unwrap();
        let settings = settings(&["--settings-file", file.to_str().unwrap()]).unwrap();
        assert_eq!((&*settings.policy.project, settings.policy.allowed.len()), ("tools", 1));
        assert_eq!(settings.policy.allowed_clients.len(), 1);
        assert!(settings.common.metrics_listen.is_some());
    }

    #[test]
    fn errors_name_the_option_and_a_valid_value() {
        for (args, want) in [
            (&["--project", "a.b"][..], "invalid project \"a.b\""),
            (&["--project-file", "/nowhere"], "--project-file \"/nowhere\""),
            (&["--project", "a", "--project-file", "/b"], "cannot be used with"),
            (&["--project", "a", "--listen", "8282"], "expected an IPv4 or [IPv6] address and a port"),
            (&["--project", "a", "--listen", "unix:/run/x"], "a unix socket has no identd"),
            (&["--project", "a", "--metrics-listen", "9100"], "--metrics-listen"),
            (&["--project", "a", "--ident-port", "0"], "--ident-port"),
            (&["--project", "a", "--ident-timeout", "5 s"], "expected e.g. \"5s\""),
            (&["--project", "a", "--idle-timeout", "0s"], "expected e.g. \"5s\""),
            (&["--project", "a", "--audit-interval", "never"], "or \"off\""),
            (&["--project", "a", "--dead-after", "never"], "or \"off\""),
            (&["--project", "a", "--withdrawal-guard", "50"], "/run/urlproxy/proxylistener.accept"),
            (&["--project", "a", "--max-connections", "0"], "--max-connections"),
            (&["--project", "a", "--allow-destination", "10.0.0.0/33"], "expected e.g. \"10.0.0.0/8\""),
            (&["--project", "a", "--allow-client", "exec-1"], "expected e.g. \"10.0.0.0/8\""),
            (&["--project", "a", "--canonical-domain", "a..b"], "expected e.g. \"toolforge.org\""),
            (&["--project", "a", "--redis", "http://h"], "--redis: invalid URL"),
            (&["--project", "a", "--redis", "redis://h:0"], "expected e.g. \"redis://"),
            (&["--project", "a", "--redis-password-file", "/nowhere"], "while reading --redis-password-file"),
            (&["--project", "a", "--log-format", "xml"], "--log-format"),
            (&["--project", "a", "--log-level", "all"], "expected error, warn, info or debug"),
            (&["--project", "a", "more"], "unexpected argument"),
        ] {
            let error = settings(args).err().unwrap();
            assert!(error.contains(want), "{args:?}: {error}");
        }
    }
}
