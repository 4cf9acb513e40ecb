//! The command line of urlproxyctl.

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::IpNet;

use super::settings::CommonOptions;
use crate::daemon::parse_duration;
use crate::route::{Kind, parse_network};
use crate::units::parse_size;

const HELP: &str = "\
list, lookup, explain, status, rejected, watch, top, accept-withdrawal and drain ask the admin API of nginx; set, delete,
check, export and import use Redis; diff uses both.

Exit status: 0 if the command did what it was asked, or all is well. 1 for a negative answer: nothing found, differences,
findings, nothing to accept, a drain that nginx does not see. 2 if the admin API or Redis cannot be asked. 64 on usage errors.

    urlproxyctl explain https://tools.example.org/hello/x
    urlproxyctl set hello '.*' http://10.0.0.1:8000";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "urlproxyctl",
    version,
    about = "Shows and changes what the proxy routes",
    after_help = HELP,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Options {
    /// Options of all commands.
    #[command(flatten)]
    pub common: CommonOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the table's tools, redirects and domains with their backends
    #[command(after_help = "Example:\n    urlproxyctl list wiki --kind tool")]
    List(ListOptions),
    /// Print the backends that answer a URL
    #[command(after_help = "Example:\n    urlproxyctl lookup https://tools.example.org/hello/")]
    Lookup {
        /// URL, or a path that begins with a slash
        url: String,
    },
    /// Explain step by step how a URL is routed
    #[command(
        after_help = "Examples:\n    urlproxyctl explain 'https://tools.example.org/hello/x?y=1'\n    urlproxyctl explain /hello/"
    )]
    Explain {
        /// URL, or a path that begins with a slash
        url: String,
    },
    /// Print the health of the table, its source and its snapshot; exit status 1 unless it is in step with Redis
    #[command(after_help = "Example:\n    urlproxyctl status --json | jq .summary.state")]
    Status,
    /// List routes that nginx does not serve, with reasons; exit status 1 if there are any
    #[command(after_help = "Example:\n    urlproxyctl rejected --json | jq -r '.items[].key'")]
    Rejected,
    /// Set a route of a tool in Redis
    #[command(
        after_help = "Examples:\n    urlproxyctl set hello '.*' http://10.0.0.1:8000\n    urlproxyctl set hello '^/api/' http://10.0.0.2:8000 --evict"
    )]
    Set(SetOptions),
    /// Delete a route of a tool from Redis, or all of them
    #[command(after_help = "Examples:\n    urlproxyctl delete hello '^/api/'\n    urlproxyctl delete hello --yes")]
    Delete {
        /// Tool
        tool: String,
        /// Pattern, exactly as registered; all patterns without it
        pattern: Option<String>,
        /// Do not ask before deleting all routes
        #[arg(long)]
        yes: bool,
    },
    /// Compare Redis, the table and the snapshot; exit status 1 if they differ
    #[command(after_help = "Example:\n    urlproxyctl diff --snapshot /var/lib/urlproxy/tools.snapshot")]
    Diff {
        /// Snapshot to compare, instead of the one that nginx writes
        #[arg(long, value_name = "FILE")]
        snapshot: Option<PathBuf>,
    },
    /// List entries in Redis that the module refuses, or treats differently from the old Lua; exit status 1 if there are any
    #[command(
        after_help = "Example:\n    urlproxyctl check --allow-backend 10.0.0.0/8 172.16.0.0/12 --ignore order,end_anchor"
    )]
    Check(CheckOptions),
    /// Print all tools and domains in Redis as JSON lines
    #[command(after_help = "Example:\n    urlproxyctl export --output routes.jsonl")]
    Export {
        /// File to write instead of standard output; replaced when complete
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write tools and domains from JSON lines to Redis
    #[command(
        after_help = "Examples:\n    urlproxyctl import routes.jsonl --dry-run\n    urlproxyctl import - < routes.jsonl"
    )]
    Import(ImportOptions),
    /// Print changes of the table as they happen
    #[command(after_help = "Example:\n    urlproxyctl watch --json | jq -r 'select(.change == \"removed\").name'")]
    Watch {
        /// Begin after this change; without it, with the next one
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
        /// End after this number of changes
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Let nginx withdraw the routes that its withdrawal guard holds; run on nginx's machine, as root
    #[command(
        after_help = "Examples:\n    urlproxyctl accept-withdrawal\n    urlproxyctl accept-withdrawal hello frontend:www.example.org"
    )]
    AcceptWithdrawal {
        /// Tools, or keys such as frontend:www.example.org; everything that is held without them
        #[arg(value_name = "TOOL")]
        tools: Vec<String>,
        /// The guard's accept file; needed if nginx's is not in /run/urlproxy
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// Longest wait for nginx
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
        timeout: Duration,
    },
    /// Take this proxy out of service: /ready answers 503, and requests are served on; run on nginx's machine, as root
    #[command(after_help = "Examples:\n    urlproxyctl drain\n    urlproxyctl drain --undo")]
    Drain(DrainOptions),
    /// Show the busiest tools, live; in a pipe, one table per interval
    #[command(after_help = "Examples:\n    urlproxyctl top --sort errors\n    urlproxyctl top --count 1 | head")]
    Top(TopOptions),
    /// Print a completion script; of this program, or another one of urlproxy
    #[command(
        after_help = "Examples:\n    urlproxyctl completions bash > /etc/bash_completion.d/urlproxyctl\n    urlproxyctl completions zsh kube2proxy"
    )]
    Completions {
        /// Shell
        shell: Shell,
        /// Program
        #[arg(value_parser = program_names())]
        program: Option<String>,
    },
    /// Print a man page in roff; of this program, or another one of urlproxy
    #[command(after_help = "Example:\n    urlproxyctl man proxylistener | man -l -")]
    Man {
        /// Program
        #[arg(value_parser = program_names())]
        program: Option<String>,
    },
}

/// Options of `list`.
#[derive(Debug, clap::Args)]
pub struct ListOptions {
    /// Only names that contain this text, in any case
    pub search: Option<String>,
    /// Only this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Option<KindName>,
    /// At most this number of records
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<usize>,
}

/// Options of `set`.
#[derive(Debug, clap::Args)]
pub struct SetOptions {
    /// Tool
    pub tool: String,
    /// Regular expression that is searched in the path after the tool's name; ".*" for all paths
    pub pattern: String,
    /// Backend, e.g. http://10.0.0.1:8000
    pub url: String,
    /// Redirect the tool's visitors to its own host, e.g. hello.toolforge.org
    #[arg(long, value_name = "HOST")]
    pub canonical: Option<String>,
    /// If another tool is routed to this backend, remove that route
    #[arg(long)]
    pub evict: bool,
}

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckOptions {
    /// Networks in nginx's allow_backend [default: any address except special ones]
    #[arg(long, value_name = "CIDR", num_args = 1.., value_parser = parse_network)]
    pub allow_backend: Vec<IpNet>,
    /// Size of nginx's zone, which limits the routes of one tool
    #[arg(long, value_name = "SIZE", default_value = "16m", value_parser = parse_zone)]
    pub zone: usize,
    /// Leave out findings of these kinds, e.g. order,end_anchor
    #[arg(long, value_name = "FINDING", value_delimiter = ',')]
    pub ignore: Vec<String>,
}

/// Options of `import`.
#[derive(Debug, clap::Args)]
pub struct ImportOptions {
    /// File of JSON lines, as printed by export; - for standard input
    pub file: PathBuf,
    /// Only print what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Also delete routes that these tools and domains have in Redis but not in the file
    #[arg(long)]
    pub replace: bool,
    /// Leave out invalid routes and lines, instead of writing nothing
    #[arg(long)]
    pub skip_invalid: bool,
}

/// Options of `drain`.
#[derive(Debug, clap::Args)]
pub struct DrainOptions {
    /// Back into service
    #[arg(long)]
    pub undo: bool,
    /// The file in drain_file of nginx's table; its directory must exist
    #[arg(long, value_name = "PATH", default_value = "/run/urlproxy/out-of-service")]
    pub file: PathBuf,
    /// Longest wait for nginx
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub wait: Duration,
}

/// Options of `top`.
#[derive(Debug, clap::Args)]
pub struct TopOptions {
    /// Order of the tools
    #[arg(long, value_name = "ORDER", default_value = "rate")]
    pub sort: Sort,
    /// Only names that contain this text, in any case
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub search: String,
    /// Time between two tables
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,
    /// End after this number of tables
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Tools per table, in a pipe
    #[arg(long, value_name = "NUMBER", default_value = "20", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
}

/// A kind of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KindName {
    /// Routes of a tool.
    Tool,
    /// Redirect of a tool to its own host.
    Redirect,
    /// Backends of a domain.
    Domain,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Tool => Self::Tool,
            KindName::Redirect => Self::Redirect,
            KindName::Domain => Self::Domain,
        }
    }
}

/// The order of `top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Requests per second.
    Rate,
    /// Responses 5xx per second.
    Errors,
    /// Mean latency.
    Latency,
    /// Name.
    Name,
}

impl Sort {
    /// The word in the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Name => "name",
        }
    }
}

/// The programs with command lines of their own.
pub const PROGRAMS: [&str; 9] = [
    "urlproxyctl",
    "proxylistener",
    "kube2proxy",
    "webservicemonitor",
    "webservice",
    "webservice-runner",
    "portgrabber",
    "portreleaser",
    "invisible-unicorn",
];

fn program_names() -> clap::builder::PossibleValuesParser {
    PROGRAMS.into()
}

fn parse_zone(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text).filter(|bytes| (32 << 10..=1 << 40).contains(bytes));
    bytes.ok_or_else(|| format!("invalid size {text:?}, expected e.g. \"16m\", at least \"32k\""))
}

/// The definition of the command line. The options of Redis may stand after the command, too.
pub fn definition() -> clap::Command {
    let is_global = |arg: clap::Arg| arg.global(true);
    Options::command().mut_arg("redis", is_global).mut_arg("redis_password_file", is_global)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let args = ["urlproxyctl"].into_iter().chain(line.split(' '));
        definition().try_get_matches_from(args).and_then(|matches| Options::from_arg_matches(&matches))
    }

    #[test]
    fn options_are_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn page_lists_every_command_with_its_options() {
        let page = include_str!("../../docs/urlproxyctl.md");
        for command in definition().get_subcommands() {
            let name = command.get_name();
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}")));
            let row = row.unwrap_or_else(|| panic!("docs/urlproxyctl.md has no row for {name}"));
            let own = command.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help");
            for option in own.filter_map(clap::Arg::get_long) {
                assert!(row.contains(&format!("--{option}")), "{name} --{option}");
            }
        }
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        for command in definition().get_subcommands().filter(|command| command.get_name() != "help") {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<_> = help.lines().filter_map(|line| line.trim().strip_prefix("urlproxyctl ")).collect();
            assert!(!examples.is_empty(), "{}", command.get_name());
            for example in examples {
                let own = example.split(['|', '>', '<']).next().unwrap().trim().replace('\'', "");
                assert!(parse(&own).is_ok() && own.starts_with(command.get_name()), "{example}");
            }
        }
    }

    #[test]
    fn common_options_stand_before_or_after_the_command() {
        for line in ["--json --redis redis://h list", "list --redis redis://h --json", "list --json x --kind tool"] {
            let options = parse(line).unwrap();
            assert!(options.common.json, "{line}");
            assert!(matches!(options.command, Command::List(_)), "{line}");
        }
    }

    #[test]
    fn invalid_values_are_refused() {
        for line in
            ["", "other", "set a b", "check --zone 1k", "top --count 0", "top --limit 1001", "completions csh", "man x"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
