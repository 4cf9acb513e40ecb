//! proxylistener's command line and settings file.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use ipnet::IpNet;

use crate::daemon::{CommonOptions, ProjectOptions, parse_duration, parse_guard};
use crate::route::{Domain, MAX_DOMAIN_LEN, MAX_LABEL_LEN, parse_network};
use crate::withdrawal_guard::GuardOption;

/// Longest domain that leaves room for the longest label and a dot before it.
const MAX_PARENT_LEN: usize = MAX_DOMAIN_LEN - MAX_LABEL_LEN - 1;

/// The program's name, also of its accept file.
pub(super) const PROGRAM: &str = "proxylistener";

const HELP: &str = "\
A client sends one of these commands, and gets one reply without a line end:

    register\\n<pattern>\\n<url>\\n             route the pattern's requests to the URL
    registerCanonical\\n<pattern>\\n<url>\\n    the same, and redirect clients to https://<tool>.<canonical domain>
    renew\\n<pattern>\\n<url>\\n                register, only if the pattern has no route or this one
    renewCanonical\\n<pattern>\\n<url>\\n       the same for registerCanonical
    unregister\\n<pattern>\\n                  remove the route if the client's host registered it
    unregisterUrl\\n<pattern>\\n<url>\\n        remove the route if it leads to the URL

    ok     committed to Redis; for unregister also: the client had no such route
    fail   refused, or not committed; the log says why
    Identd authentication failed. Please contact an administrator
    This service available only to tool accounts

The identd (RFC 1413) of the client's host names the client's user, which must be <project>.<tool>.
A URL is http://HOST:PORT or https://HOST:PORT: the client's own address, one in --allow-destination, or a name of
one of these. The identd of the URL's host names the owner of the server there: another user's server is refused. A tool
whose own server listens takes the address from a tool that is still routed there; a server that does not listen yet
takes no address from another tool.

Without --allow-client any host that runs an identd can register for any tool.

The audit verifies port ownership with the identd of each route's host. It withdraws routes whose port belongs to another
user, and routes whose port refuses connections for --dead-after. That includes routes that the old proxylistener
wrote: without an origin, unknown to kube2proxy, and inside --allow-client and --allow-destination if given.

SIGHUP reloads --settings-file and --project-file. SIGTERM or SIGINT: stops accepting, drains open connections, exits 0.
Exits 64 on usage errors, 1 if the port cannot be bound.

    proxylistener --project tools --allow-destination 10.68.0.0/16 --redis redis://redis.example.org/0";

/// The parsed command line. Not `Debug`: `args` may contain a password.
#[derive(Parser)]
#[command(
    name = PROGRAM,
    version,
    args_override_self = true,
    about = "Registers the web services of grid jobs as routes in Redis",
    after_help = HELP
)]
pub struct Options {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8282", value_parser = parse_listen)]
    pub(super) listen: SocketAddr,
    /// File with more options, one per line without dashes; the command line has precedence. Reloaded at SIGHUP
    #[arg(long, value_name = "FILE")]
    settings_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) project: ProjectOptions,
    /// Port of the clients' identd
    #[arg(long, value_name = "PORT", default_value_t = 113, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) ident_port: u16,
    /// Longest time for an identd's reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(super) ident_timeout: Duration,
    /// Longest time for a client to send its command
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(super) idle_timeout: Duration,
    /// Most concurrent connections; one host may have 64 (at most half), one of its users half of that
    #[arg(long, value_name = "NUMBER", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) max_connections: u32,
    /// Networks whose hosts may register; repeatable [default: any]
    #[arg(long, value_name = "CIDR", num_args = 1.., value_delimiter = ',', value_parser = parse_network)]
    pub(super) allow_client: Vec<IpNet>,
    /// Networks that routes may lead to, besides the client's own address; repeatable
    #[arg(long, value_name = "CIDR", num_args = 1.., value_delimiter = ',', value_parser = parse_network)]
    pub(super) allow_destination: Vec<IpNet>,
    /// Parent domain of the tools' own hosts, for registerCanonical
    #[arg(long, value_name = "DOMAIN", default_value = "toolforge.org", value_parser = parse_domain)]
    pub(super) canonical_domain: String,
    /// How often port ownership is verified; "off" disables the audit
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_interval)]
    pub(super) audit_interval: Interval,
    /// Withdraw a route when its port has refused connections for this long, in 3 audits or more; "off" keeps it
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_interval)]
    pub(super) dead_after: Interval,
    /// Hold such withdrawals when they affect too many tools at once: "SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]", or "off"
    #[arg(long, value_name = "GUARD", default_value = "50% floor=20 hold=1h", value_parser = |text: &str| parse_guard(text, PROGRAM))]
    pub(super) withdrawal_guard: GuardOption,
    #[command(flatten)]
    pub(super) common: CommonOptions,
    /// The command line as given, for reloads.
    #[arg(skip)]
    pub(super) args: Vec<OsString>,
}

/// A time, or `None` for "off". A type of its own: clap treats an `Option` as an optional argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval(pub Option<Duration>);

impl Options {
    /// Parses a command line, the program's name first, and the settings file that it names.
    ///
    /// # Errors
    /// An invalid option; one in the file with the file's name and line.
    pub(super) fn read_with_file(args: &[OsString]) -> Result<Self, clap::Error> {
        let mut options = Self::try_parse_from(args)?;
        if let Some(path) = &options.settings_file {
            let (program, rest) = args.split_at(args.len().min(1));
            options = Self::try_parse_from([program, &read_file(path)?, rest].concat())?;
        }
        options.args = args.to_vec();
        Ok(options)
    }
}

/// The file's lines as arguments. Parses each alone first, so that an error names its line.
fn read_file(path: &Path) -> Result<Vec<OsString>, clap::Error> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| fault(&format!("{error} while reading --settings-file {}", path.display())))?;
    let mut args: Vec<OsString> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{}:{}", path.display(), index + 1);
        let (name, values) = line.split_once(|c: char| c.is_whitespace()).unwrap_or((line, ""));
        let command = Options::command();
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(name));
        if known.is_none() || name == "settings-file" {
            let example = "expected an option without its dashes, e.g. \"allow-destination 10.68.0.0/16\"";
            return Err(fault(&format!("{place}: unknown setting {name:?}, {example}")));
        }
        // A guard's parameters are one value.
        let is_guard =
            known.and_then(clap::Arg::get_value_names).is_some_and(|names| names.iter().any(|n| n == "GUARD"));
        let values = if is_guard { vec![values.trim()] } else { values.split_whitespace().collect() };
        let words = [format!("--{name}")].into_iter().chain(values.into_iter().map(str::to_owned));
        let words: Vec<OsString> = words.map(OsString::from).collect();
        Options::try_parse_from([&["proxylistener".into()], &words[..]].concat())
            .map_err(|error| fault(&format!("{place}: {}", reason(&error))))?;
        args.extend(words);
    }
    Ok(args)
}

fn fault(error: &dyn std::fmt::Display) -> clap::Error {
    Options::command().error(ErrorKind::InvalidValue, error)
}

/// clap's error without its hint to `--help`.
pub(super) fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").trim().replace('\n', " ")
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "invalid address {text:?}, expected an IPv4 or [IPv6] address and a port, e.g. \"0.0.0.0:8282\"; a unix \
             socket has no identd to name its clients"
        )
    })
}

fn parse_interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval(None));
    }
    parse_duration(text).map(|period| Interval(Some(period))).map_err(|error| format!("{error}, or \"off\""))
}

fn parse_domain(text: &str) -> Result<String, String> {
    let is_parent =
        |domain: &Domain| !domain.is_wildcard() && !domain.is_address() && domain.as_str().len() <= MAX_PARENT_LEN;
    let domain = Domain::normalize(text).ok().filter(is_parent);
    let domain = domain.ok_or_else(|| format!("invalid domain {text:?}, expected e.g. \"toolforge.org\""))?;
    Ok(domain.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_leave_room_for_a_label() {
        let longest = ["a"; 95].join(".");
        for (text, want) in [("Toolforge.org", "toolforge.org"), ("localhost", "localhost"), (&longest, &longest)] {
            assert_eq!(parse_domain(text), Ok(want.into()));
        }
        for text in ["", "a..b", "-a.b", "*.example.org", "10.0.0.1", "[::1]", "a b", &format!("{longest}.a")] {
            let error = parse_domain(text).unwrap_err();
            assert_eq!(error, format!("invalid domain {text:?}, expected e.g. \"toolforge.org\""));
        }
    }

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }
}
