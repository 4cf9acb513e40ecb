//! The directives of `urlproxy_table NAME { ... }`, and the resulting settings.

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::ready::{DrainFile, ReadyMaxAge};
use super::{Directive, DirectiveError, absolute, duration, set_once, single_value};
use crate::admin::readiness::ReadyLimits;
use crate::redis_client::{RedisUrl, read_password_file};
use crate::registry::Admission;
use crate::route::parse_network;
use crate::sync::{Settings, SnapshotSettings};
use crate::units::{parse_duration, parse_size};
use crate::withdrawal_guard::{GuardOption, GuardOptionError};

const DEFAULT_ZONE_BYTES: usize = 16 << 20;
const MIN_ZONE_BYTES: usize = 256 << 10;
const DEFAULT_SOURCE: &str = "redis://127.0.0.1:6379/0";
const DEFAULT_WAIT: Duration = Duration::from_secs(2);
const DEFAULT_RESYNC_INTERVAL: Duration = Duration::from_secs(60);
const MIN_RESYNC_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_METRICS_TOOLS: usize = 100;
const MAX_METRICS_TOOLS: usize = 1000;
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(86400);

/// The block as written.
#[derive(Debug, Default)]
pub struct TableOptions {
    zone_bytes: Option<usize>,
    source: Option<RedisUrl>,
    password: Option<String>,
    wait_for_routes: Option<Duration>,
    resync_interval: Option<Duration>,
    networks: Option<Vec<IpNet>>,
    snapshot: Option<SnapshotSettings>,
    withdrawal_guard: Option<GuardOption>,
    metrics_tools: Option<usize>,
    ready_limits: ReadyLimits,
}

/// One directive of the block: its name and its parser.
pub type Entry = (&'static str, fn(&mut TableOptions, &[&str]) -> Result<(), DirectiveError>);

/// All directives of the block.
pub const ENTRIES: &[Entry] = &[
    entry::<Zone>(),
    entry::<Redis>(),
    entry::<PasswordFile>(),
    entry::<WaitForRoutes>(),
    entry::<ResyncInterval>(),
    entry::<AllowBackend>(),
    entry::<Snapshot>(),
    entry::<WithdrawalGuard>(),
    entry::<MetricsTools>(),
    (ReadyMaxAge::NAME, |conf, args| ReadyMaxAge::apply(&mut conf.ready_limits, args)),
    (DrainFile::NAME, |conf, args| DrainFile::apply(&mut conf.ready_limits, args)),
];

const fn entry<D: Directive<Conf = TableOptions>>() -> Entry {
    (D::NAME, D::apply)
}

/// The resolved settings of a table.
#[derive(Debug)]
pub struct TableSettings {
    /// Size of the zone.
    pub zone_bytes: usize,
    /// How long a cold start may wait for the initial load.
    pub wait_for_routes: Duration,
    /// Settings of the companion. The proxy's own sockets are added once they are open.
    pub companion: Settings,
    /// What makes the proxy unready.
    pub ready_limits: ReadyLimits,
}

impl TableOptions {
    /// Resolves the settings of the table `name`, with defaults for unset values.
    ///
    /// # Errors
    /// The default source is invalid.
    pub fn into_settings(self, name: &str) -> Result<TableSettings, DirectiveError> {
        let source = match self.source {
            Some(source) => source,
            None => DEFAULT_SOURCE.parse().map_err(|e| DirectiveError::Other(format!("{e}")))?,
        };
        let source = match self.password {
            Some(password) => source.with_password(password),
            None => source,
        };
        let admission = Admission { networks: self.networks.unwrap_or_default(), own_sockets: Vec::new() };
        let resync_interval = self.resync_interval.unwrap_or(DEFAULT_RESYNC_INTERVAL);
        Ok(TableSettings {
            zone_bytes: self.zone_bytes.unwrap_or(DEFAULT_ZONE_BYTES),
            wait_for_routes: self.wait_for_routes.unwrap_or(DEFAULT_WAIT),
            companion: Settings {
                source,
                resync_interval,
                admission,
                snapshot: self.snapshot,
                withdrawal_guard: self.withdrawal_guard.unwrap_or(GuardOption::DEFAULT).into_settings(name),
                metrics_tools: self.metrics_tools.unwrap_or(DEFAULT_METRICS_TOOLS),
                is_new_source: false,
            },
            ready_limits: self.ready_limits,
        })
    }
}

/// `zone SIZE;`
struct Zone;

impl Directive for Zone {
    const NAME: &'static str = "zone";
    type Conf = TableOptions;

    fn apply(conf: &mut TableOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let value = single_value(args, Self::NAME, "zone 16m;")?;
        let size = parse_size(value).filter(|&bytes| bytes >= MIN_ZONE_BYTES);
        let size = size.ok_or_else(|| DirectiveError::Invalid {
            directive: Self::NAME,
            what: "size (at least 256k)",
            value: value.into(),
            example: "16m",
        })?;
        set_once(&mut conf.zone_bytes, Self::NAME, size)
    }
}

/// `redis URL;`
struct Redis;

impl Directive for Redis {
    const NAME: &'static str = "redis";
    type Conf = TableOptions;

    fn apply(conf: &mut TableOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let value = single_value(args, Self::NAME, "redis redis://127.0.0.1:6379/0;")?;
        let source = value.parse::<RedisUrl>().map_err(|e| DirectiveError::Other(format!("\"{}\" {e}", Self::NAME)))?;
        set_once(&mut conf.source, Self::NAME, source)
    }
}

/// `password_file PATH;`
struct PasswordFile;

impl Directive for PasswordFile {
    const NAME: &'static str = "password_file";
    type Conf = TableOptions;

    fn apply(conf: &mut TableOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let path = single_value(args, Self::NAME, "password_file /etc/urlproxy/redis.pass;")?;
        let unread = |e| DirectiveError::Other(format!("\"{}\" \"{path}\" cannot be read: {e}", Self::NAME));
        let password = read_password_file(Path::new(path)).map_err(unread)?.ok_or_else(|| {
            DirectiveError::Other(format!(
                "\"{}\" \"{path}\" is empty, expected the password on its first line",
                Self::NAME
            ))
        })?;
        set_once(&mut conf.password, Self::NAME, password)
    }
}

/// `wait_for_routes TIME;`
struct WaitForRoutes;

impl Directive for WaitForRoutes {
    const NAME: &'static str = "wait_for_routes";
    type Conf = TableOptions;

    fn apply(conf: &mut TableOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let value = duration(args, Self::NAME, "2s")?;
        set_once(&mut conf.wait_for_routes, Self::NAME, value)
    }
}

/// `resync_interval TIME;`
struct ResyncInterval;

impl Directive for ResyncInterval {
    const NAME: &'static str = "resync_interval";
    type Conf = TableOptions;

    fn apply(conf: &mut TableOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let value = duration(args, Self::NAME, "60s")?;
        if value < MIN_RESYNC_INTERVAL {
            return Err(DirectiveError::Invalid {
                directive: Self::NAME,
                what: "duration (at least 1s)",
                value: args.concat(),
                example: "60s",
            });
        }
        set_once(&mut conf.resync_interval, Self::NAME, value)
    }
}

/// `allow_backend CIDR...;`
struct AllowBackend;

impl Directive for AllowBackend {
    const NAME: &'static str = "allow_backend";
    type Conf = TableOptions;

    fn apply(conf: &mut TableOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let example = "10.0.0.0/8";
        if args.is_empty() {
            return Err(DirectiveError::Arguments { directive: Self::NAME, takes: "networks", example });
        }
        for &value in args {
            let network = parse_network(value).map_err(|_| DirectiveError::Invalid {
                directive: Self::NAME,
                what: "network",
                value: value.into(),
                example,
            })?;
            conf.networks.get_or_insert_default().push(network);
        }
        Ok(())
    }
}

/// `metrics_tools NUMBER;`
struct MetricsTools;

impl Directive for MetricsTools {
    const NAME: &'static str = "metrics_tools";
    type Conf = TableOptions;

    fn apply(conf: &mut TableOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let value = single_value(args, Self::NAME, "metrics_tools 100;")?;
        let number = value.parse().ok().filter(|&number| number <= MAX_METRICS_TOOLS);
        let number = number.ok_or_else(|| DirectiveError::Invalid {
            directive: Self::NAME,
            what: "number (0 to 1000)",
            value: value.into(),
            example: "100",
        })?;
        set_once(&mut conf.metrics_tools, Self::NAME, number)
    }
}

/// `snapshot PATH [max_age=TIME];`
struct Snapshot;

impl Directive for Snapshot {
    const NAME: &'static str = "snapshot";
    type Conf = TableOptions;

    fn apply(conf: &mut TableOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let (directive, example) = (Self::NAME, "snapshot /var/lib/urlproxy/tools.snapshot max_age=7d;");
        let [path, parameters @ ..] = args else {
            return Err(DirectiveError::Arguments { directive, takes: "a path", example });
        };
        let path = absolute(path, directive, "/var/lib/urlproxy/tools.snapshot")?;
        let mut max_age = DEFAULT_MAX_AGE;
        for parameter in parameters {
            let invalid = || DirectiveError::Invalid {
                directive,
                what: "parameter",
                value: (*parameter).into(),
                example: "max_age=7d",
            };
            max_age = parameter.strip_prefix("max_age=").and_then(parse_duration).ok_or_else(invalid)?;
        }
        set_once(&mut conf.snapshot, directive, SnapshotSettings { path, max_age, owners: Vec::new() })
    }
}

/// `withdrawal_guard PERCENT [floor=N] [hold=TIME] [accept=PATH];` or `off`
struct WithdrawalGuard;

impl Directive for WithdrawalGuard {
    const NAME: &'static str = "withdrawal_guard";
    type Conf = TableOptions;

    fn apply(conf: &mut TableOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let (directive, example) = (Self::NAME, "withdrawal_guard 50% floor=20 hold=120s;");
        if args.is_empty() {
            return Err(DirectiveError::Arguments { directive, takes: "a percentage or \"off\"", example });
        }
        let option =
            GuardOption::from_words(args.iter().copied()).map_err(|GuardOptionError { what, value, example }| {
                DirectiveError::Invalid { directive, what, value, example }
            })?;
        set_once(&mut conf.withdrawal_guard, directive, option)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::withdrawal_guard::GuardSettings;

    fn apply(line: &str) -> Result<TableOptions, DirectiveError> {
        let mut options = TableOptions::default();
        for line in line.split(';').map(str::trim).filter(|l| !l.is_empty()) {
            let words: Vec<_> = line.split(' ').collect();
            let (_, apply) = ENTRIES.iter().find(|(name, _)| *name == words[0]).unwrap();
            apply(&mut options, &words[1..])?;
        }
        Ok(options)
    }

    #[test]
    fn empty_block_has_the_documented_defaults() {
        let conf = TableOptions::default().into_settings("tools").unwrap();
        assert_eq!((conf.zone_bytes, conf.wait_for_routes), (16 << 20, Duration::from_secs(2)));
        assert_eq!(conf.companion.resync_interval, Duration::from_secs(60));
        assert!(conf.companion.admission.networks.is_empty());
        assert_eq!(conf.companion.snapshot, None);
        let hold = Duration::from_secs(120);
        let guard = GuardSettings { percent: 50, floor: 20, hold, accept: "/run/urlproxy/tools.accept".into() };
        assert_eq!(conf.companion.withdrawal_guard, Some(guard));
    }

    #[test]
    fn all_values_are_parsed() {
        let options = apply(
            "zone 1m; redis redis://10.0.0.1:7000/2; wait_for_routes 0; resync_interval 5m; allow_backend 10.0.0.0/8 192.0.2.1; allow_backend fd00::/8",
        );
        let conf = options.unwrap().into_settings("tools").unwrap();
        assert_eq!((conf.zone_bytes, conf.wait_for_routes), (1 << 20, Duration::ZERO));
        let networks: Vec<_> = conf.companion.admission.networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]);
        let settings = |line: &str| apply(line).unwrap().into_settings("tools").unwrap().companion;
        let snapshot = |line: &str| settings(line).snapshot.map(|s| (s.path, s.max_age.as_secs()));
        assert_eq!(snapshot("snapshot /x/y"), Some(("/x/y".into(), 86400)));
        assert_eq!(snapshot("snapshot /x/y max_age=1h"), Some(("/x/y".into(), 3600)));
        assert_eq!(settings("withdrawal_guard off").withdrawal_guard, None);
        let (hold, accept) = (Duration::from_millis(1500), PathBuf::from("/x/accept"));
        let guard = GuardSettings { percent: 7, floor: 0, hold, accept };
        let line = "withdrawal_guard 7% hold=1500ms accept=/x/accept floor=0";
        assert_eq!(settings(line).withdrawal_guard, Some(guard));
    }

    #[test]
    fn error_names_the_wrong_value_and_an_example() {
        for (line, want) in [
            ("zone 8k", r#""zone" invalid size (at least 256k) "8k", expected e.g. "16m""#),
            ("zone", r#""zone" takes one value, e.g. "zone 16m;""#),
            ("zone 1m; zone 2m", r#""zone" is duplicate"#),
            ("resync_interval soon", r#""resync_interval" invalid duration "soon", expected e.g. "60s""#),
            ("resync_interval 10ms", r#""resync_interval" invalid duration (at least 1s) "10ms", expected e.g. "60s""#),
            ("wait_for_routes 1y", r#""wait_for_routes" invalid duration "1y", expected e.g. "2s""#),
            (
                "allow_backend 10.0.0.0/33",
                r#""allow_backend" invalid network "10.0.0.0/33", expected e.g. "10.0.0.0/8""#,
            ),
            ("redis htp://x", r#""redis" invalid URL "htp://x", expected e.g. "redis://127.0.0.1:6379/0""#),
            ("snapshot", r#""snapshot" takes a path, e.g. "snapshot /var/lib/urlproxy/tools.snapshot max_age=7d;""#),
            (
                "snapshot tools.snapshot",
                r#""snapshot" invalid path of a file (absolute) "tools.snapshot", expected e.g. "/var/lib/urlproxy/tools.snapshot""#,
            ),
            ("snapshot /x max_age=old", r#""snapshot" invalid parameter "max_age=old", expected e.g. "max_age=7d""#),
            ("withdrawal_guard 0%", r#""withdrawal_guard" invalid percentage "0%", expected e.g. "50%""#),
            ("withdrawal_guard 50", r#""withdrawal_guard" invalid percentage "50", expected e.g. "50%""#),
            ("withdrawal_guard 101%", r#""withdrawal_guard" invalid percentage "101%", expected e.g. "50%""#),
            (
                "withdrawal_guard",
                r#""withdrawal_guard" takes a percentage or "off", e.g. "withdrawal_guard 50% floor=20 hold=120s;""#,
            ),
            (
                "withdrawal_guard 50% floor=x",
                r#""withdrawal_guard" invalid parameter "floor=x", expected e.g. "floor=20 hold=120s accept=/run/urlproxy/tools.accept""#,
            ),
            (
                "password_file /nonexistent/pass",
                r#""password_file" "/nonexistent/pass" cannot be read: No such file or directory (os error 2)"#,
            ),
        ] {
            assert_eq!(apply(line).unwrap_err().to_string(), want);
        }
    }
}
