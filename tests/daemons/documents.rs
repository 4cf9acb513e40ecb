//! Checks the documents against the code and against each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::redis::RedisServer;

/// Programs with a page of their own, `docs/<name>.md`.
const PROGRAMS: [(&str, &str); 9] = [
    ("proxylistener", env!("CARGO_BIN_EXE_proxylistener")),
    ("webservice-runner", env!("CARGO_BIN_EXE_webservice-runner")),
    ("portgrabber", env!("CARGO_BIN_EXE_portgrabber")),
    ("portreleaser", env!("CARGO_BIN_EXE_portreleaser")),
    ("kube2proxy", env!("CARGO_BIN_EXE_kube2proxy")),
    ("webservicemonitor", env!("CARGO_BIN_EXE_webservicemonitor")),
    ("invisible-unicorn", env!("CARGO_BIN_EXE_invisible-unicorn")),
    ("urlproxyctl", env!("CARGO_BIN_EXE_urlproxyctl")),
    ("webservice", env!("CARGO_BIN_EXE_webservice")),
];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Markdown files of the project, with their paths below its root.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found
}

pub fn page(name: &str) -> String {
    fs::read_to_string(root().join(format!("docs/{name}.md"))).unwrap()
}

/// The lines outside blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The anchors that GitHub derives from headings: lower case, dashes for spaces, no other punctuation, numbers for duplicates.
pub fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
        let slug: String = heading.chars().filter(is_kept).map(|c| if c == ' ' { '-' } else { c }).collect();
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let free = std::iter::once(slug.clone()).chain(numbered).find(|slug| !found.contains(slug));
        found.extend(free);
    }
    found
}

/// The targets of links, `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1));
    targets.filter_map(|rest| rest.split(')').next()).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let (mut followed, mut dead) = (0, Vec::new());
    for (path, text) in documents() {
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let target = root().join(target);
            let is_there = target.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(target).unwrap()).contains(anchor));
            followed += 1;
            if !is_there {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(followed > 30, "only {followed} links found");
    assert_eq!(dead, [""; 0]);
}

#[test]
fn readme_is_short_and_links_to_every_document() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 180, "{} lines", readme.lines().count());
    let linked: BTreeSet<_> = links(&readme).into_iter().filter_map(|link| link.split('#').next()).collect();
    for (path, _) in documents() {
        let path = path.to_str().unwrap();
        assert!(path == "README.md" || linked.contains(path), "README does not link to {path}");
    }
}

#[test]
fn redis_starts_with_the_examples_of_several_proxies() {
    let page = page("ha");
    let example = |of: &str| page.split("```").find(|block| block.starts_with("text\n") && block.contains(of)).unwrap();
    let content = |of: &str| example(of).strip_prefix("text\n").unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.acl");
    fs::write(&users, content("user default ")).unwrap();
    let configuration = content("min-replicas-to-write 1\n").replace("/etc/redis/users.acl", users.to_str().unwrap());
    let server = RedisServer::start_with(Some(&configuration), &[]);
    // `default` runs the transactions of the append-only file.
    for (user, command) in [
        ("default", "flushall"),
        ("replica", "psync ? -1"),
        ("sentinel", "slaveof no one"),
        ("sentinel", "config rewrite"),
    ] {
        let log_in = ["--user", "default", "--pass", "ADMIN_PASSWORD", "--no-auth-warning", "acl", "dryrun", user];
        let answer = server.cli(&log_in.into_iter().chain(command.split(' ')).collect::<Vec<_>>());
        assert_eq!(answer, "OK", "{user}: {command}");
    }
    RedisServer::start_with(Some(&content("sentinel monitor ")), &["--sentinel"]);
}

/// An option in the output of `--help`.
#[derive(Debug)]
struct Shown {
    /// As in a page, e.g. `--listen ADDR:PORT`.
    usage: String,
    default: Option<String>,
}

/// The options in `--help`, except `--help` and `--version`.
fn options(program: &str) -> Vec<Shown> {
    let output = Command::new(program).arg("--help").env_remove("URLPROXY_REDIS").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut found: Vec<Shown> = Vec::new();
    for line in help.lines() {
        let text = line.trim_start();
        // A short form such as `-h, ` comes first.
        let text = match text.as_bytes() {
            [b'-', _, b',', b' ', ..] => &text[4..],
            _ => text,
        };
        // Text after the list of options is indented less.
        if text.starts_with("--") && line.starts_with("  ") {
            let usage = text.split("  ").next().unwrap().replace(['<', '>'], "");
            found.push(Shown { usage, default: None });
        }
        // A short help has the variable on the same line.
        let text = text.rsplit_once(" [env: ").map_or(text, |(text, _)| text);
        let default = text.rsplit_once("[default: ").and_then(|(_, rest)| rest.strip_suffix(']'));
        if let (Some(default), Some(option)) = (default, found.last_mut()) {
            option.default = Some(default.trim_matches('"').to_owned());
        }
    }
    found.retain(|option| !["--help", "--version"].contains(&option.usage.as_str()));
    found
}

/// The first two cells of the rows about options. A row may have several options, with one default each.
fn rows(text: &str) -> Vec<(String, String)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `--"));
    rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        Some((format!("`--{}", cells.next()?), cells.next()?.to_owned()))
    })
    .collect()
}

#[test]
fn pages_and_help_have_the_same_options_with_the_same_defaults() {
    let common = page("operations");
    for (name, program) in PROGRAMS {
        let text = page(name);
        let (own, common) = (rows(&text), rows(&common));
        let shown = options(program);
        assert!(shown.len() >= 2, "{name}: {shown:?}");
        for Shown { usage, default } in &shown {
            let quoted = format!("`{usage}`");
            let row = own.iter().chain(&common).find(|(cell, _)| cell.contains(&quoted));
            let (_, value) = row.unwrap_or_else(|| panic!("docs/{name}.md has no row for {quoted}"));
            for part in default.iter().flat_map(|default| default.split(", ")) {
                let is_same = value.split('`').any(|span| span == part) || value.split(", ").any(|words| words == part);
                assert!(is_same, "docs/{name}.md: {usage} has the default {part:?}, not {value:?}");
            }
        }
        for (cell, _) in own {
            for quoted in cell.split('`').filter(|text| text.starts_with("--")) {
                let is_shown = shown.iter().any(|option| {
                    let named = option.usage.split(' ').next().unwrap();
                    quoted.split(' ').next() == Some(named)
                });
                assert!(is_shown, "docs/{name}.md: the program has no option {quoted}");
            }
        }
    }
}

/// The text of all Rust files in `src`, with continued strings joined, and `...` for each placeholder.
fn sources() -> String {
    fn collect(path: &Path, text: &mut String) {
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), text));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let mut text = String::new();
    collect(&root().join("src"), &mut text);
    // A backslash at the end of a line continues a string literal.
    let mut joined = String::new();
    let mut continued = text.split("\\\n");
    joined.push_str(continued.next().unwrap());
    continued.for_each(|part| joined.push_str(part.trim_start()));
    let mut plain = String::new();
    let mut rest = joined.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        plain.push_str(before);
        match after.split_once('}') {
            Some((inside, after)) if inside.len() < 40 && !inside.contains(['\n', '"']) => {
                plain.push_str("...");
                rest = after;
            }
            _ => {
                plain.push('{');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[test]
fn quoted_log_lines_exist_in_the_sources() {
    let sources = sources();
    let levels = ["ERROR ", "WARN ", "INFO ", "[emerg] ", "[error] ", "[warn] ", "[notice] ", "[info] "];
    let (mut quoted, mut unknown) = (0, Vec::new());
    for (path, text) in documents() {
        // README, CHANGELOG etc. may quote former lines.
        if !path.starts_with("docs") {
            continue;
        }
        for line in prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let Some(message) = levels.iter().find_map(|level| line.strip_prefix(level)) else { continue };
            // Before a `=` stands the name of a field, which is not part of the message.
            let (fields, last) = message.rsplit_once('=').unwrap_or(("", message));
            let texts = fields.split('=').map(|text| text.rsplit_once(' ').map_or("", |(text, _)| text)).chain([last]);
            // The sources do not contain values or their placeholders, and put messages together at punctuation.
            let pieces = texts.flat_map(|text| text.split(|c: char| "\"<>{}".contains(c) || c.is_ascii_digit()));
            let pieces = ["...", ", ", ": ", "; "].iter().fold(pieces.collect::<Vec<_>>(), |pieces, separator| {
                pieces.into_iter().flat_map(|piece| piece.split(separator)).collect()
            });
            let pieces = pieces.into_iter().map(|piece| piece.trim_matches([' ', ',', ';', ':', '.']));
            for piece in pieces.filter(|piece| piece.contains(' ')) {
                quoted += 1;
                if !sources.contains(piece) {
                    unknown.push(format!("{}: {piece}", path.display()));
                }
            }
        }
    }
    assert!(quoted > 40, "only {quoted} pieces of log lines found");
    assert_eq!(unknown, [""; 0]);
}

#[test]
fn benchmarks_are_what_the_published_figures_say() {
    let check = Command::new("python3").args(["benches/report", "check"]).current_dir(root()).output().unwrap();
    let said = [check.stdout, check.stderr].concat();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&said));
}
