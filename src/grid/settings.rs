//! What proxylistener goes by: checked, and partly exchanged while it serves.

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

/// Everything that a command line and its file say.
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The Redis.
    pub redis: RedisUrl,
    pub(super) policy: Policy,
    common: CommonOptions,
    args: Vec<OsString>,
}

/// What may change while it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whose tools: accounts are `<project>.<tool>`.
    pub project: String,
    /// Canonical hosts are `<tool>.<canonical_domain>`.
    pub canonical_domain: String,
    /// Hosts that may be clients; none listed is all.
    pub allowed_clients: Vec<IpNet>,
    /// Destinations beside a client's own address.
    pub allowed: Vec<IpNet>,
    /// Where identds listen.
    pub ident_port: u16,
    /// How long one may take.
    pub ident_timeout: Duration,
    /// For a client's whole command.
    pub idle_timeout: Duration,
    /// Connections open at once.
    pub max_connections: usize,
    /// From the beginning of an audit to that of the next; `None` is never.
    pub audit_interval: Option<Duration>,
    /// How long a port must have refused connections for its route to go; `None` is for ever.
    pub dead_after: Option<Duration>,
    /// Of how many tools at once; `None` is of any.
    pub dead_guard: Option<GuardSettings>,
}

/// The policy in force. Whoever decides something takes it once.
pub type LivePolicy = Arc<ArcSwap<Policy>>;

/// What is wrong with a command line whose values are right one by one.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No project.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// No URL of a Redis.
    #[error(transparent)]
    Redis(#[from] RedisOptionsError),
}

impl Options {
    /// Resolves what was written, once.
    ///
    /// # Errors
    /// Which of the values, or of the files that they name, is wrong.
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
    /// The same as at the start, as it is now. The Redis stays where a file of its password or authority cannot be read: what is
    /// in there takes a restart to change anyway.
    ///
    /// # Errors
    /// What is wrong there.
    pub(super) fn reload(&self) -> Result<Self, String> {
        let options = Options::read_with_file(&self.args).map_err(|error| reason(&error))?;
        let redis = match options.common.redis.to_url() {
            Err(error) if error.is_file_error() => {
                warn!(%error, "Redis stays as it is, which takes a restart to change");
                self.redis.clone()
            }
            redis => redis.map_err(|error| error.to_string())?,
        };
        options.with_redis(redis).map_err(|error| error.to_string())
    }

    /// The options that differ from `other`'s and can't be exchanged while it serves.
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
    /// Whether a host may be a client: its address in its own family.
    pub(super) fn admits(&self, host: IpAddr) -> bool {
        self.allowed_clients.is_empty() || self.allowed_clients.iter().any(|network| network.contains(&host))
    }

    /// Says so when everybody may.
    pub(super) fn warn_if_open(&self) {
        if self.allowed_clients.is_empty() {
            warn!(
                "--allow-client is not set: any host that can connect here and runs an identd of its own can register \
                 for any tool; set it to the networks of the hosts that run the tools' jobs"
            );
        }
    }

    /// Lets the process open the files that so many clients take, and says so when the system does not.
    pub(super) fn raise_fd_limit(&self) {
        // A client and its identd take one each, and as many clients as are served may wait for a place, and as many have an
        // answer and not have closed.
        let needed = 4 * self.max_connections as u64 + 640;
        if let Some(limit) = raise_fd_limit().filter(|limit| *limit < needed) {
            warn!(limit, needed, "few open files allowed for --max-connections");
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
    fn what_is_right_is_taken() {
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
    fn the_project_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("project");
        let path = file.to_str().unwrap();
        fs::write(&file, "toolsbeta\nmore\n").unwrap();
        assert_eq!(settings(&["--project-file", path]).unwrap().policy.project, "toolsbeta");
        fs::write(&file, "\n").unwrap();
        assert!(settings(&["--project-file", path]).err().unwrap().contains("invalid project \"\""));
    }

    #[test]
    fn another_password_in_the_same_file_differs() {
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
    fn a_file_adds_to_the_command_line_which_has_precedence() {
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
    fn a_redis_that_cannot_be_read_again_stays() {
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
    fn the_file_that_is_shipped_is_right_also_where_it_only_suggests() {
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
    fn each_fault_names_its_option_and_a_right_value() {
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
