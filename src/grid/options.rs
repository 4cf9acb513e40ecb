//! proxylistener's command line, and the file that adds to it.

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

/// Longest domain that leaves room for a label of full length below it, and its dot.
const MAX_PARENT_LEN: usize = MAX_DOMAIN_LEN - MAX_LABEL_LEN - 1;

/// As it is called, and its file to accept withdrawals with.
pub(super) const PROGRAM: &str = "proxylistener";

const HELP: &str = "\
A client sends one of these, and is answered once, without a line end:

    register\\n<pattern>\\n<url>\\n
    registerCanonical\\n<pattern>\\n<url>\\n     the same, redirected to https://<tool>.<canonical domain>
    renew\\n<pattern>\\n<url>\\n                only where the pattern has no route, or this one
    renewCanonical\\n<pattern>\\n<url>\\n       the same for registerCanonical
    unregister\\n<pattern>\\n                   what the same host registered
    unregisterUrl\\n<pattern>\\n<url>\\n        if the pattern's route leads there

    ok     committed to Redis; to unregister: nothing of the client's is there now
    fail   refused, or not committed; the log says why
    Identd authentication failed. Please contact an administrator
    This service available only to tool accounts

Whose the connection is, the identd (RFC 1413) of the client's host is asked; the user must be <project>.<tool>.
A URL is http://HOST:PORT or https://HOST:PORT: the client's own address, one in --allow-destination, or a name of
one of these. The identd of the URL's host is asked who listens there: another user's server is refused. A tool whose own
server listens takes the address from a tool that is still routed there; a tool whose server does not listen yet, does not.

Without --allow-client any host that runs an identd can register for any tool.

The audit asks the identd of each route's host whose the port is now; a route whose port is somebody else's is
withdrawn, and so is one whose port refuses connections for --dead-after. That includes what the old proxylistener
wrote: routes without an origin that kube2proxy does not know, inside --allow-client and --allow-destination if given.

SIGHUP reads --settings-file and --project-file again. Exit status: 0 after SIGTERM or SIGINT, when all clients have
been answered; 64 for a wrong command line; 1 when it cannot listen.

    proxylistener --project tools --allow-destination 10.68.0.0/16 --redis redis://redis.example.org/0";

/// What was written. Not to be shown: `args` may have a password in them.
#[derive(Parser)]
#[command(
    name = PROGRAM,
    version,
    args_override_self = true,
    about = "Lets jobs on the grid tell where their tool listens, and has the proxy route to it",
    after_help = HELP
)]
pub struct Options {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8282", value_parser = parse_listen)]
    pub(super) listen: SocketAddr,
    /// More options, one a line without the dashes; the command line has precedence. Read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    settings_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) project: ProjectOptions,
    /// Port of the clients' identd
    #[arg(long, value_name = "PORT", default_value_t = 113, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) ident_port: u16,
    /// How long an identd may take to reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(super) ident_timeout: Duration,
    /// How long a client may take to send its whole command
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(super) idle_timeout: Duration,
    /// Connections open at once, 64 of them from one host (of less than 128: half), half of these by one user
    #[arg(long, value_name = "NUMBER", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) max_connections: u32,
    /// Networks whose hosts may be clients; may be given several times [default: any]
    #[arg(long, value_name = "CIDR", num_args = 1.., value_delimiter = ',', value_parser = parse_network)]
    pub(super) allow_client: Vec<IpNet>,
    /// Networks that routes may lead to, beside the client's own address; may be given several times
    #[arg(long, value_name = "CIDR", num_args = 1.., value_delimiter = ',', value_parser = parse_network)]
    pub(super) allow_destination: Vec<IpNet>,
    /// Domain below which registerCanonical puts tools
    #[arg(long, value_name = "DOMAIN", default_value = "toolforge.org", value_parser = parse_domain)]
    pub(super) canonical_domain: String,
    /// How often the owners of the routes' ports are asked for, or "off"
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_interval)]
    pub(super) audit_interval: Interval,
    /// How long a port must have refused connections, in 3 audits or more, for its route to go, or "off"
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_interval)]
    pub(super) dead_after: Interval,
    /// Of how many tools the ports may do so at once: "SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]", or "off"
    #[arg(long, value_name = "GUARD", default_value = "50% floor=20 hold=1h", value_parser = |text: &str| parse_guard(text, PROGRAM))]
    pub(super) withdrawal_guard: GuardOption,
    #[command(flatten)]
    pub(super) common: CommonOptions,
    /// All that was written, to be read again.
    #[arg(skip)]
    pub(super) args: Vec<OsString>,
}

/// Between two audits; `None` is never. A type of its own: clap would take an `Option` for an option left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval(pub Option<Duration>);

impl Options {
    /// Reads a command line, its program's name first, and the file it names.
    ///
    /// # Errors
    /// A fault in either, with the file's name and line where it is there.
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

/// The file's lines as arguments, each tried alone first so that a fault can be named.
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

/// What is wrong, without clap's hint at its help.
pub(super) fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").trim().replace('\n', " ")
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "invalid address {text:?}, expected an IPv4 or [IPv6] address and a port, e.g. \"0.0.0.0:8282\"; a unix \
             socket has no identd that could tell who connects"
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
    let domain = Domain::normalise(text).ok().filter(is_parent);
    let domain = domain.ok_or_else(|| format!("invalid domain {text:?}, expected e.g. \"toolforge.org\""))?;
    Ok(domain.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_name_that_a_label_fits_below() {
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
    fn the_options_are_consistent() {
        Options::command().debug_assert();
    }
}
