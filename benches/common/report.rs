//! Prints a benchmark's figures, and adds them to target/bench.json, from which docs/benchmarks.md is made.
//!
//! benches/common/figures.py describes the file.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use serde_json::{Value, json};

/// What was measured, the figure, and what it should be.
pub fn row(what: &str, figure: &str, target: &str) {
    println!("{what:<62} | {figure:>10} | {target}");
    let path = PathBuf::from(env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into())).join("bench.json");
    let text = fs::read_to_string(&path).unwrap_or("{}".into());
    let mut figures: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    add(&mut figures["parts"][env!("CARGO_CRATE_NAME")], what, figure, target);
    let text = serde_json::to_string_pretty(&figures).unwrap_or_else(|e| panic!("{e}"));
    fs::write(&path, text + "\n").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn add(part: &mut Value, what: &str, figure: &str, target: &str) {
    let command = concat!("cargo bench --bench ", env!("CARGO_CRATE_NAME"));
    let row =
        json!({ "what": what, "figures": [figure.trim()], "target": target, "build": build(), "machine": machine() });
    if part.is_null() {
        *part = json!({ "command": command, "columns": ["figure"], "rows": [] });
    }
    let Some(rows) = part["rows"].as_array_mut() else { panic!("bench.json: {command} has no rows") };
    match rows.iter_mut().find(|row| row["what"] == what) {
        Some(old) => *old = row,
        None => rows.push(row),
    }
}

fn build() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or("unknown commit".into());
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|status| !status.is_empty());
    format!("{}, {commit}{}", env!("CARGO_PKG_VERSION"), if is_changed { "+" } else { "" })
}

fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores, {}", model.map_or("unknown processor", |(_, name)| name.trim()))
}
