//! What is the same for all daemons, as their operator meets it: the metrics, and what the documents say of them.

#[path = "common/http.rs"]
mod http;
#[path = "common/listener.rs"]
mod listener;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::{get, get_with, metric};
use listener::Daemon;
use tempfile::TempDir;

/// Each daemon's name in the names of its metrics.
const DAEMONS: [&str; 4] = ["proxylistener", "kube2proxy", "webservicemonitor", "invisible_unicorn"];
/// Nothing listens there.
const NO_REDIS: &str = "redis://127.0.0.1:1/0";

/// Starts one that finds nothing of what it needs, with these arguments too, and waits until it tells of itself.
fn start(daemon: &str, dir: &TempDir, extra_args: &[&str]) -> (Daemon, SocketAddr) {
    let path = |name: &str| dir.path().join(name).display().to_string();
    let configuration = path("kube2proxy.yaml");
    let master = "kubernetes:\n  master: http://127.0.0.1:1\n  token: secret\n";
    fs::write(&configuration, master).unwrap();
    let (database, state, manifests) = (path("domains.db"), path("state"), path("*/service.manifest"));
    let nowhere = path("nowhere");
    let mut command = match daemon {
        "proxylistener" => {
            vec![
                env!("CARGO_BIN_EXE_proxylistener"),
                "--listen",
                "127.0.0.1:0",
                "--project",
                "tools",
                "--redis",
                NO_REDIS,
            ]
        }
        "kube2proxy" => vec![env!("CARGO_BIN_EXE_kube2proxy"), "--config", &configuration, "--redis", NO_REDIS],
        "webservicemonitor" => vec![
            env!("CARGO_BIN_EXE_webservicemonitor"),
            "--project",
            "tools",
            "--distribution",
            "bookworm",
            "--list-url",
            "http://127.0.0.1:1/list",
            "--active-proxy-file",
            &nowhere,
            "--qstat",
            "false",
            "--state",
            &state,
            "--manifests",
            &manifests,
        ],
        "invisible_unicorn" => vec![
            env!("CARGO_BIN_EXE_invisible-unicorn"),
            "--listen",
            "127.0.0.1:0",
            "--database",
            &database,
            "--redis",
            NO_REDIS,
        ],
        other => panic!("no daemon {other}"),
    };
    command.extend(["--metrics-listen", "127.0.0.1:0"]);
    command.extend(extra_args);
    let process = Daemon::start(&command, &[]);
    let status = process.address_in("telling of itself");
    (process, status)
}

/// Names of families, with their types, and names of samples without labels, of the text format.
fn names(text: &str) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
    (families.map(|(name, kind)| (name.into(), kind.into())).collect(), samples.map(str::to_owned).collect())
}

/// README, docs and packaging.
fn documents() -> Vec<(PathBuf, String)> {
    fn collect(path: &Path, found: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), found));
        } else {
            found.push((path.to_owned(), fs::read_to_string(path).unwrap()));
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    ["README.md", "docs", "packaging"].iter().for_each(|name| collect(&root.join(name), &mut found));
    found
}

#[test]
fn metrics_follow_the_conventions_and_are_there_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for daemon in DAEMONS {
        let (_process, status) = start(daemon, &dir, &[]);
        let (code, text) = get(status, "/metrics");
        assert_eq!(code, 200);
        let (families, samples) = names(&text);
        assert_eq!(metric(status, &format!("{daemon}_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
        for (name, kind) in &families {
            let own = name.strip_prefix(&format!("{daemon}_"));
            let inner =
                own.or_else(|| name.strip_prefix("process_")).unwrap_or_else(|| panic!("{name} has another prefix"));
            assert!(!DAEMONS.iter().any(|other| inner.starts_with(other)), "{name} has two prefixes");
            assert_eq!(kind == "counter", inner.ends_with("_total"), "{name} is a {kind}");
            assert!(
                kind != "histogram" || ["_seconds", "_bytes"].iter().any(|unit| inner.ends_with(unit)),
                "{name}: unit"
            );
            for part in inner.split('_') {
                assert!(
                    !["ms", "milliseconds", "minutes", "hours", "kb", "mb"].contains(&part),
                    "{name}: no base unit"
                );
            }
            let sample = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
            assert!(samples.contains(&sample), "{name} has no sample at the start");
        }
        for name in ["cpu_seconds_total", "start_time_seconds", "resident_memory_bytes", "open_fds", "max_fds"] {
            assert!(metric(status, &format!("process_{name}")) > 0.0, "{daemon}: {name}");
        }
    }
}

#[test]
fn documents_name_metrics_that_exist_and_the_manual_names_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = BTreeSet::new();
    let mut families = BTreeSet::new();
    for daemon in DAEMONS {
        let (_process, status) = start(daemon, &dir, &[]);
        let (of_one, samples) = names(&get(status, "/metrics").1);
        families.extend(of_one.into_iter().map(|(name, _)| name));
        known.extend(samples);
    }
    known.extend(families.iter().cloned());
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut named = 0;
    for (path, text) in documents() {
        for word in text.split(|c| !is_name(c)) {
            let of_ours = DAEMONS.iter().chain(&["process"]).any(|prefix| word.starts_with(&format!("{prefix}_")));
            if of_ours {
                named += 1;
                assert!(known.contains(word), "{}: no daemon has a metric {word}", path.display());
            }
        }
    }
    assert!(named > 50, "only {named} names found: this test does not look where they are");
    let manual = include_str!("../README.md");
    for name in families {
        let is_listed = [format!("| `{name}`"), format!(", `{name}`")].iter().any(|cell| manual.contains(cell));
        let is_build = name.ends_with("_build_info") && manual.contains("`<daemon>_build_info`");
        assert!(is_listed || is_build, "the manual lacks {name}");
    }
}

#[test]
fn monitors_get_the_format_that_they_ask_for() {
    let dir = tempfile::tempdir().unwrap();
    let (_process, status) = start("kube2proxy", &dir, &[]);
    for (accept, kind, is_open_metrics) in [
        ("", "text/plain; version=0.0.4; charset=utf-8", false),
        ("Accept: text/plain\r\n", "text/plain; version=0.0.4; charset=utf-8", false),
        (
            "Accept: application/openmetrics-text;version=1.0.0\r\nAccept: text/plain;q=0.5\r\n",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            true,
        ),
    ] {
        let (head, body) = get_with(status, "/metrics", accept);
        assert!(head.contains(&format!("\r\ncontent-type: {kind}\r\n")), "{accept:?}: {head}");
        assert_eq!(body.ends_with("# EOF\n"), is_open_metrics, "{accept:?}");
        let family = if is_open_metrics { "kube2proxy_watch_failures" } else { "kube2proxy_watch_failures_total" };
        assert!(body.contains(&format!("# TYPE {family} counter\n")), "{accept:?}");
        assert!(body.contains("\nkube2proxy_watch_failures_total "), "{accept:?}");
    }
}
