//! invisible-unicorn's command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use super::policy::is_project;
use crate::daemon::{GuardOption, LogOptions, parse_duration};
use crate::route::MAX_BACKENDS;

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

Exit status: 0 when done, or after SIGTERM or SIGINT; 64 for a wrong command line; 1 when it cannot be done.";

/// What was written.
#[derive(Debug, Parser)]
#[command(
    name = "invisible-unicorn",
    version,
    about = "Has the proxy send whole domains to the backends that their projects name",
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
    /// Change nothing: answer 503 to PUT, POST and DELETE
    #[arg(long)]
    pub(super) read_only: bool,
    /// How long requests may still take after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(super) drain_timeout: Duration,
    /// What only Redis has and is removed at once: "SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]", or "off"
    #[arg(long, value_name = "GUARD", default_value = "50% floor=20 hold=120s", value_parser = parse_guard)]
    pub(super) withdrawal_guard: GuardOption,
    /// How often everything is compared with Redis, whatever was heard
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(super) resync_interval: Duration,
    /// Where domains are kept for the proxy: redis://[user:password@]host[:port][/db] or unix:///path
    #[arg(
        long,
        value_name = "URL",
        env = "URLPROXY_REDIS",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379/0"
    )]
    pub(super) redis: String,
    /// Where to tell of itself over HTTP: /metrics, /live and /ready [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    /// Its log.
    pub log: LogOptions,
    #[command(subcommand)]
    /// What to do instead of serving.
    pub command: Option<Command>,
}

/// What may be mapped; for `import` too.
#[derive(Debug, Args)]
pub(super) struct PolicyOptions {
    /// Networks that backends must be in; then none may be given by name [default: any address but link-local, metadata,
    /// unspecified and multicast ones]
    #[arg(long, value_name = "CIDR", num_args = 1.., global = true)]
    pub allow_backend: Vec<IpNet>,
    /// Most domains of one project
    #[arg(long, value_name = "NUMBER", default_value = "1000", global = true)]
    pub max_domains: usize,
    /// Most backends of one domain, at most 64
    #[arg(long, value_name = "NUMBER", default_value = "16", value_parser = parse_max_backends, global = true)]
    pub max_backends: usize,
    /// Domains under which anybody may have one, in the format of the Public Suffix List [default: single labels]
    #[arg(long, value_name = "FILE", global = true)]
    pub protected_suffixes: Option<PathBuf>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
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
    },
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token of a project, and print it; it cannot be printed again
    Create {
        /// Whose it is to be
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

fn parse_guard(text: &str) -> Result<GuardOption, String> {
    GuardOption::parse(text, "invisible-unicorn")
}

fn parse_max_backends(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_BACKENDS).contains(number));
    number.ok_or_else(|| format!("invalid number {text:?}, expected 1 to {MAX_BACKENDS}"))
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
    fn the_manual_has_every_option_with_its_default() {
        let manual = include_str!("../../README.md").split("### invisible-unicorn").nth(1).unwrap();
        let manual = manual.split("\n## ").next().unwrap();
        for argument in Options::command().get_arguments() {
            let Some(name) = argument.get_long() else { continue };
            let row = manual.lines().find(|line| line.starts_with(&format!("| `--{name}")));
            let row = row.unwrap_or_else(|| panic!("--{name} is not in the manual"));
            for default in argument.get_default_values() {
                assert!(row.contains(&format!("| `{}` |", default.display())), "{row}");
            }
        }
        for command in Options::command().get_subcommands() {
            assert!(manual.contains(&format!("| `{}", command.get_name())), "{}", command.get_name());
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
    fn a_domain_has_at_most_as_many_backends_as_a_route() {
        for (text, want) in [("1", Some(1)), ("64", Some(64)), ("0", None), ("65", None), ("x", None)] {
            assert_eq!(parse_max_backends(text).ok(), want, "{text}");
        }
    }
}
