//! Command line of invisible-unicorn.

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

/// The program's name, and the owner of its accept file.
pub(super) const PROGRAM: &str = "invisible-unicorn";

const HELP: &str = "\
Projects map domains to backends over HTTP. The database is authoritative and is replicated to the keys frontend:<domain> in
Redis, also after a crash, an outage of Redis, or a flush. GET /openapi.json describes the API:

    curl -X PUT http://127.0.0.1:5668/v1/PROJECT/mapping -d '{\"domain\":\"www.example.org\",\"backends\":[\"http://10.0.0.1:80\"]}'
    curl http://127.0.0.1:5668/v1/PROJECT/mapping
    curl -X DELETE http://127.0.0.1:5668/v1/PROJECT/mapping/www.example.org

Any client that reaches --listen may change projects without a token. `token create PROJECT` prints a token; from then on,
requests for the project need `Authorization: Bearer TOKEN`. --require-tokens requires tokens for all projects.

The commands work while the server runs. This command imports the old API's database, and may be repeated:

    invisible-unicorn import /etc/dynamicproxy-api/data.db

`domain list`, `domain map`, `domain move` and `domain remove` are for operators: they work on the domains of any project, and the
audit log names the user.

Exit status: 0 on success, or after SIGTERM or SIGINT; 64 on usage errors; 1 on any other failure.";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    about = "HTTP API that lets projects map whole domains to their backends",
    mut_arg("redis", |redis| redis.help(RedisOptions::help("Redis that receives the domains", RedisOptions::DEFAULT))),
    // In `--allow-backend 10.0.0.0/8 import data.db`, a command follows the one network.
    subcommand_precedence_over_arg = true,
    after_help = HELP
)]
pub struct Options {
    /// Address of the API
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5668")]
    pub(super) listen: SocketAddr,
    /// SQLite database; created if missing
    #[arg(long, value_name = "FILE", global = true, default_value = "/var/lib/invisible-unicorn/domains.db")]
    pub(super) database: PathBuf,
    #[command(flatten)]
    pub(super) policy: PolicyOptions,
    /// Require a token for every project, even for those that have none yet
    #[arg(long)]
    pub(super) require_tokens: bool,
    /// Size limit of the audit log, e.g. "64MiB"; the oldest entries are removed, and all entries after 400 days
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_audit_size)]
    pub(super) audit_size: u64,
    /// Limit of simultaneous connections to the API
    #[arg(long, value_name = "NUMBER", default_value = "512", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) max_connections: u32,
    /// Refuse changes: answer 503 to PUT, POST and DELETE
    #[arg(long)]
    pub(super) read_only: bool,
    /// Time for open requests to complete after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(super) drain_timeout: Duration,
    /// Hold back removals from Redis of more than SHARE% of the domains: "SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]", or "off"
    #[arg(long, value_name = "GUARD", default_value = "50% floor=20 hold=120s", value_parser = |text: &str| parse_guard(text, PROGRAM))]
    pub(super) withdrawal_guard: GuardOption,
    /// Interval of full comparisons with Redis
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) resync_interval: Duration,
    #[command(flatten)]
    pub(super) common: CommonOptions,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// Options of the mapping policy, which commands such as `import` use too.
#[derive(Debug, Default, Args)]
pub(super) struct PolicyOptions {
    /// Networks that backends must be in; host names are then refused [default: any address except loopback, link-local, metadata,
    /// unspecified and multicast ones]
    #[arg(long, value_name = "CIDR", num_args = 1.., global = true, value_parser = parse_network)]
    pub allow_backend: Vec<IpNet>,
    /// Limit of domains per project
    #[arg(long, value_name = "NUMBER", default_value = "1000", global = true)]
    pub max_domains: usize,
    /// Limit of domains of all projects together
    #[arg(long, value_name = "NUMBER", default_value = "100000", global = true)]
    pub max_total_domains: usize,
    /// Limit of backends per domain, at most 64
    #[arg(long, value_name = "NUMBER", default_value = "16", value_parser = parse_max_backends, global = true)]
    pub max_backends: usize,
    /// File of public suffixes, which no project may map, in the format of the Public Suffix List; "none" protects single labels only
    /// [default: /usr/share/publicsuffix/public_suffix_list.dat if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub protected_suffixes: Option<PathBuf>,
    /// Domains that only operators may map, with everything below them; see `domain map`
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = parse_reserved, global = true)]
    pub reserve_domain: Vec<Domain>,
    /// File of further reserved domains, one per line
    #[arg(long, value_name = "FILE", global = true)]
    pub reserved_domains: Option<PathBuf>,
}

/// Commands instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// List, map, move and remove any project's domains
    #[command(subcommand)]
    Domain(DomainCommand),
    /// List mappings that today's options would refuse: domains above or below another project's, reserved domains, public
    /// suffixes, backends
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy the database to a file; works while the server runs
    Backup {
        /// The copy; an existing file is replaced
        file: PathBuf,
    },
    /// Import the old API's data.db
    Import {
        /// The old API's database; it is only read
        old: PathBuf,
    },
    /// Print the audit log, latest entry last
    Audit {
        /// Only entries of this project
        #[arg(long, value_name = "PROJECT")]
        project: Option<String>,
        /// Only entries of this domain
        #[arg(long, value_name = "DOMAIN")]
        domain: Option<String>,
        /// Number of entries
        #[arg(long, value_name = "NUMBER", default_value = "100")]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Operators' commands for the domains of any project.
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// List domains with their projects and backends
    List {
        /// Only domains of this project
        #[arg(long, value_name = "PROJECT")]
        project: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add backends to a domain of a project, reserved domains included; creates project and domain if missing
    Map {
        /// Project of the domain
        #[arg(value_parser = parse_project)]
        project: String,
        /// Domain to map
        domain: String,
        /// Backend to add, e.g. http://10.0.0.1:8080
        #[arg(required = true, value_name = "BACKEND")]
        backends: Vec<String>,
    },
    /// Move a domain with its backends to another project
    Move {
        /// Domain to move
        domain: String,
        /// New project
        #[arg(value_parser = parse_project)]
        project: String,
    },
    /// Remove a domain, also from Redis
    Remove {
        /// Domain to remove
        domain: String,
    },
}

/// Commands for tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token for a project, and print it; it cannot be printed again
    Create {
        /// Project of the token
        #[arg(value_parser = parse_project)]
        project: String,
    },
    /// List tokens without their secrets
    List,
    /// Revoke a token
    Revoke {
        /// ID of the token in the list
        id: i64,
    },
}

fn parse_max_backends(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_BACKENDS).contains(number));
    number.ok_or_else(|| format!("invalid number {text:?}, expected 1 to {MAX_BACKENDS}"))
}

/// Parses a size of at least 64 KiB, so that the audit log always has the latest changes.
fn parse_audit_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).and_then(|bytes| u64::try_from(bytes).ok());
    let fits = bytes.filter(|bytes| (64 << 10..=1 << 40).contains(bytes));
    fits.ok_or_else(|| format!("invalid size {text:?}, expected e.g. \"64MiB\", at least \"64KiB\""))
}

fn parse_project(text: &str) -> Result<String, String> {
    let expected = "expected letters, digits, _, . and -, beginning with a letter or digit";
    if is_project(text) { Ok(text.to_owned()) } else { Err(format!("invalid project {text:?}, {expected}")) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn page_lists_every_command() {
        let page = include_str!("../../docs/invisible-unicorn.md");
        for command in Options::command().get_subcommands() {
            assert!(page.contains(&format!("| `{}", command.get_name())), "{}", command.get_name());
        }
    }

    #[test]
    fn database_option_stands_before_or_after_the_command() {
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
    fn audit_size_has_a_unit_and_a_minimum() {
        for (text, want) in [("64MiB", Some(64 << 20)), ("64KiB", Some(65_536)), ("1GiB", Some(1 << 30))] {
            assert_eq!(parse_audit_size(text).ok(), want, "{text}");
        }
        for text in ["", "64", "MiB", "63KiB", "0MiB", "-1MiB", "1.5GiB", "64 MiB", "99999999999GiB"] {
            assert!(parse_audit_size(text).is_err_and(|error| error.contains("invalid size")), "{text}");
        }
    }

    #[test]
    fn max_backends_is_at_most_that_of_a_route() {
        for (text, want) in [("1", Some(1)), ("64", Some(64)), ("0", None), ("65", None), ("x", None)] {
            assert_eq!(parse_max_backends(text).ok(), want, "{text}");
        }
    }
}
