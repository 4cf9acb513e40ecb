"""Reads and writes figures of benchmarks: target/bench.json gets those of each run, docs/benchmarks/figures.json keeps the published ones.

A part is what one command measures:

    {"command": "...", "columns": ["cold", "warm"], "targets": {"cold": "<= 3 %"},
     "rows": [{"what": "...", "figures": ["4.8 %", "4.8 %"], "target": "<= 3 %", "build": "0.1.0, 645085c2cd9e", "machine": "2 cores, ..."}]}

A row is known by `what`: measured again, it replaces the older one. Targets of a whole column are in `targets`, which is optional.
The benchmarks in Rust write the same, benches/common/report.rs.
"""
import json
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEASURED = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "bench.json"
PUBLISHED = ROOT / "docs/benchmarks/figures.json"


def load(path):
    return json.loads(path.read_text()) if path.exists() else {"parts": {}}


def save(path, figures):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def build():
    """The version and the commit, with a `+` if the tree has changes."""
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None
    commit = git("rev-parse", "--short=12", "HEAD") or "unknown commit"
    return f"{version}, {commit}{'+' if git('status', '--porcelain', '--untracked-files=no') else ''}"


def machine():
    """What stays the same from run to run."""
    names = (line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    return f"{os.cpu_count()} cores, {next(names, 'unknown processor')}"


def merge(into, parts):
    """Adds parts to figures, row by row."""
    for name, part in parts.items():
        old = into["parts"].get(name, {"rows": []})
        # A row of other columns means something else.
        older = old["rows"] if old.get("columns") == part["columns"] else []
        measured = {row["what"] for row in part["rows"]}
        into["parts"][name] = {**part, "rows": part["rows"] + [row for row in older if row["what"] not in measured]}


def add(name, command, columns, rows, targets=None, path=MEASURED):
    """Adds a part to a file; rows are (what, figures, target)."""
    figures, by = load(path), {"build": build(), "machine": machine()}
    part = {"command": command, "columns": columns, **({"targets": targets} if targets else {}),
            "rows": [{"what": what, "figures": cells, "target": target, **by} for what, cells, target in rows]}
    figures.setdefault("parts", {})
    merge(figures, {name: part})
    save(path, figures)
