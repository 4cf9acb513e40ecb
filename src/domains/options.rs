//! invisible-unicorn's command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use super::mapping_policy::is_project;
use super::reserved::parse_reserved;
use crate::daemon::{CommonOptions, RedisOptions, parse_duration, parse_guard};
use crate::route::{Domain, MAX_BACKENDS, parse_network};
use crate::units::parse_size;
use crate::withdrawal_guard::GuardOption;

/// As it is called, and its file to accept withdrawals with.
pub(super) const PROGRAM: &str = "invisible-unicorn";

const HELP: &str = "\
Projects map domains to backends over HTTP; the database has the truth, and frontend:<domain> in Redis follows it, also after
a crash, after Redis was down, and after it was flushed. GET /openapi.json describes the API:

    curl -X PUT http://127.0.0.1:5668/v1/PROJECT/mapping -d '{\"domain\":\"www.example.org\",\"backends\":[\"http://10.0.0.1:80\"]}'
    curl http://127.0.0.1:5668/v1/PROJECT/mapping
    curl -X DELETE http://127.0.0.1:5668/v1/PROJECT/mapping/www.example.org

Whoever reaches --listen may change every project that has no token. `token create PROJECT` prints one; from then on the project
needs `Authorization: Bearer TOKEN`. --require-tokens makes it so for all.

The commands work while the server runs. The old API's database is brought in, as often as you like, by

    invisible-unicorn import /etc/dynamicproxy-api/data.db

`domain list`, `domain map`, `domain move` and `domain remove` are the operator's: they change any project's domains, and the log of
changes says which user did it.

Exit status: 0 when done, or after SIGTERM or SIGINT; 64 for a wrong command line; 1 when it cannot be done.";

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    about = "Has the proxy send whole domains to the backends that their projects name",
    mut_arg("redis", |redis| redis.help(RedisOptions::help("Where domains are kept for the proxy", RedisOptions::DEFAULT))),
    // `--allow-backend 10.0.0.0/8 import data.db` is a command after one network.
    subcommand_precedence_over_arg = true,
    after_help = HELP
)]
pub struct Options {
    /// Where to serve the API
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5668")]
    pub(super) listen: SocketAddr,
    /// SQLite database; made when it is not there
    #[arg(long, value_name = "FILE", global = true, default_value = "/var/lib/invisible-unicorn/domains.db")]
    pub(super) database: PathBuf,
    #[command(flatten)]
    pub(super) policy: PolicyOptions,
    /// Every project needs a token of its own, also those that have none
    #[arg(long)]
    pub(super) require_tokens: bool,
    /// How large the log of changes may grow in the database, e.g. "64MiB"; the oldest entries go, and any after 400 days
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_audit_size)]
    pub(super) audit_size: u64,
    /// Most connections to the API at once
    #[arg(long, value_name = "NUMBER", default_value = "512", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) max_connections: u32,
    /// Change nothing: answer 503 to PUT, POST and DELETE
    #[arg(long)]
    pub(super) read_only: bool,
    /// How long requests may still take after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(super) drain_timeout: Duration,
    /// What only Redis has and is removed at once: "SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]", or "off"
    #[arg(long, value_name = "GUARD", default_value = "50% floor=20 hold=120s", value_parser = |text: &str| parse_guard(text, PROGRAM))]
    pub(super) withdrawal_guard: GuardOption,
    /// How often everything is compared with Redis, whatever was heard
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) resync_interval: Duration,
    #[command(flatten)]
    pub(super) common: CommonOptions,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// What may be mapped; for `import` too.
#[derive(Debug, Default, Args)]
pub(super) struct PolicyOptions {
    /// Networks that backends must be in; then none may be given by name [default: any address but loopback, link-local, metadata,
    /// unspecified and multicast ones]
    #[arg(long, value_name = "CIDR", num_args = 1.., global = true, value_parser = parse_network)]
    pub allow_backend: Vec<IpNet>,
    /// Most domains of one project
    #[arg(long, value_name = "NUMBER", default_value = "1000", global = true)]
    pub max_domains: usize,
    /// Most domains of all projects together
    #[arg(long, value_name = "NUMBER", default_value = "100000", global = true)]
    pub max_total_domains: usize,
    /// Most backends of one domain, at most 64
    #[arg(long, value_name = "NUMBER", default_value = "16", value_parser = parse_max_backends, global = true)]
    pub max_backends: usize,
    /// Domains under which anybody may have one, in the format of the Public Suffix List, or "none" for single labels alone
    /// [default: /usr/share/publicsuffix/public_suffix_list.dat when it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub protected_suffixes: Option<PathBuf>,
    /// Domains that no project gets by itself, nor anything below them; `domain map` gives them
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = parse_reserved, global = true)]
    pub reserve_domain: Vec<Domain>,
    /// The same from a file, a name a line
    #[arg(long, value_name = "FILE", global = true)]
    pub reserved_domains: Option<PathBuf>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// List, map, move and remove any project's domains
    #[command(subcommand)]
    Domain(DomainCommand),
    /// Print what is there and would be refused today: domains above or below another project's, reserved ones, public suffixes,
    /// backends
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy the database to a file, also while it is served
    Backup {
        /// Where to; replaced when it is there
        file: PathBuf,
    },
    /// Bring in what the old API kept in its data.db
    Import {
        /// The old API's database; it stays as it is
        old: PathBuf,
    },
    /// Print who changed what, the latest last
    Audit {
        /// Of this project only
        #[arg(long, value_name = "PROJECT")]
        project: Option<String>,
        /// Of this domain only
        #[arg(long, value_name = "DOMAIN")]
        domain: Option<String>,
        /// No more lines than these
        #[arg(long, value_name = "NUMBER", default_value = "100")]
        limit: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// What operators do with domains, whoever has them.
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// Print domains with their projects and backends
    List {
        /// Of this project only
        #[arg(long, value_name = "PROJECT")]
        project: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Add backends to a domain of a project; makes both when they are not there, also a reserved domain
    Map {
        /// Project that gets it
        #[arg(value_parser = parse_project)]
        project: String,
        /// Which
        domain: String,
        /// Where its requests go, e.g. http://10.0.0.1:8080
        #[arg(required = true, value_name = "BACKEND")]
        backends: Vec<String>,
    },
    /// Give a domain to another project, with its backends
    Move {
        /// Which
        domain: String,
        /// Project that gets it
        #[arg(value_parser = parse_project)]
        project: String,
    },
    /// Remove a domain, also from Redis
    Remove {
        /// Which
        domain: String,
    },
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token of a project, and print it; it cannot be printed again
    Create {
        /// Project that gets it
        #[arg(value_parser = parse_project)]
        project: String,
    },
    /// Print the tokens there are, without their secrets
    List,
    /// From now on nobody may use it
    Revoke {
        /// Its number in the list
        id: i64,
    },
}

fn parse_max_backends(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_BACKENDS).contains(number));
    number.ok_or_else(|| format!("invalid number {text:?}, expected 1 to {MAX_BACKENDS}"))
}

/// At least 64 KiB, so that the latest changes are always there.
fn parse_audit_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).and_then(|bytes| u64::try_from(bytes).ok());
    let fits = bytes.filter(|bytes| (64 << 10..=1 << 40).contains(bytes));
    fits.ok_or_else(|| format!("invalid size {text:?}, expected e.g. \"64MiB\", at least \"64KiB\""))
}

fn parse_project(text: &str) -> Result<String, String> {
    let wrong = "expected letters, digits, _, . and -, beginning with a letter or digit";
    if is_project(text) { Ok(text.to_owned()) } else { Err(format!("invalid project {text:?}, {wrong}")) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_page_has_every_command() {
        let page = include_str!("../../docs/invisible-unicorn.md");
        for command in Options::command().get_subcommands() {
            assert!(page.contains(&format!("| `{}", command.get_name())), "{}", command.get_name());
        }
    }

    #[test]
    fn the_database_is_named_before_or_after_the_command() {
        for line in [
            "--database /x token list",
            "token list --database /x",
            "--database /x --allow-backend 10.0.0.0/8 10.1.0.0/16 token list",
        ] {
            let options = Options::try_parse_from(["invisible-unicorn"].into_iter().chain(line.split(' '))).unwrap();
            assert_eq!(options.database, PathBuf::from("/x"));
            assert!(matches!(options.command, Some(Command::Token(TokenCommand::List))));
        }
    }

    #[test]
    fn a_size_has_a_unit_and_a_least_value() {
        for (text, want) in [("64MiB", Some(64 << 20)), ("64KiB", Some(65_536)), ("1GiB", Some(1 << 30))] {
            assert_eq!(parse_audit_size(text).ok(), want, "{text}");
        }
        for text in ["", "64", "MiB", "63KiB", "0MiB", "-1MiB", "1.5GiB", "64 MiB", "99999999999GiB"] {
            assert!(parse_audit_size(text).is_err_and(|error| error.contains("invalid size")), "{text}");
        }
    }

    #[test]
    fn a_domain_has_at_most_as_many_backends_as_a_route() {
        for (text, want) in [("1", Some(1)), ("64", Some(64)), ("0", None), ("65", None), ("x", None)] {
            assert_eq!(parse_max_backends(text).ok(), want, "{text}");
        }
    }
}
