"""Benchmark of a site: a proxy with thousands of tools on many servers, beside other proxies.

    python3 benches/site                                  the main table, ten minutes
    python3 benches/site table --backends 2000 --peers module static
    python3 benches/site table --all                      every workload with every peer, some hours
    python3 benches/site changes once                     only the cost of changing routes and of backends used once

All proxies of a workload run at the same time on one core; they are measured in turn, round by round, every other round in
reverse order. The load, the backends and Redis have another core. Read ratios: each compares two figures of the same round,
shown as the median of all rounds and, in brackets, the minimum and maximum. CPU us is CPU time per request; busy below 95 %
means that something other than the proxy limited the rate. Latencies are at one constant rate for all proxies, and count from
the time at which each request was due.

A peer is some lines in peers.py, a workload is one line in workloads.py.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import others
import report
import workloads
from machine import CAN_PIN, BenchError, raise_open_files, stay_with_the_load
from measure import Ground, compare
from peers import PEERS, find

ROOT = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
MODULE = Path(os.environ.get("URLPROXY_MODULE") or BUILT / "release" / "liburlproxy.so")
PARTS = ("table", "changes", "scrape", "once")


def parse():
    parser = argparse.ArgumentParser(prog="benches/site", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}: default: all")
    chosen = parser.add_argument_group("contents of the table")
    chosen.add_argument("--all", action="store_true", help="every workload with every peer")
    chosen.add_argument("--backends", nargs="+", type=int, metavar="N", help="number of servers: 1 200 2000")
    chosen.add_argument("--tools", nargs="+", type=int, metavar="N", help="3000 20000")
    chosen.add_argument("--distribution", nargs="+", choices=["uniform", "zipf"], help="of requests among tools")
    chosen.add_argument("--connections", nargs="+", type=int, metavar="N", help="number of clients: 1 64 512")
    chosen.add_argument("--peers", nargs="+", choices=PEERS, metavar="PEER", help=" ".join(PEERS))
    length = parser.add_argument_group("duration")
    length.add_argument("--rounds", type=int, default=6, help="rounds of requests/s per peer (%(default)s)")
    length.add_argument("--seconds", type=int, default=1, help="seconds per round (%(default)s)")
    length.add_argument("--latency-rounds", type=int, default=5, help="rounds of latencies per peer (%(default)s)")
    length.add_argument("--latency-seconds", type=float, default=1.5, help="seconds per round (%(default)s)")
    parser.add_argument("--load", type=int, default=50, metavar="PERCENT",
                        help="rate of the latency rounds, in percent of the slowest of module, static and haproxy (%(default)s)")
    files = parser.add_argument_group("files")
    files.add_argument("--json", type=Path, default=BUILT / "bench.json", help="all figures (%(default)s)")
    files.add_argument("--module", type=Path, default=MODULE, help="%(default)s")
    files.add_argument("--load-program", help="the constant-rate load generator, load.rs; by default built by cargo")
    options = parser.parse_args()
    options.parts = options.parts or PARTS
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"unknown part {part!r}, expected {', '.join(PARTS)}")
    return options


def built_load():
    """Builds load.rs; returns the program's path."""
    command = ["cargo", "bench", "--quiet", "--bench", "load", "--no-run", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    messages = map(json.loads, done.stdout.splitlines())
    # Cargo lists the package's programs as well.
    programs = [message["executable"] for message in messages if message.get("target", {}).get("name") == "load"]
    if done.returncode or not programs:
        raise BenchError("cargo could not build benches/site/load.rs")
    return programs[-1]


def peers_of(workload, options):
    """The installed peers for a workload; peers named in the options must be installed."""
    if options.peers:
        missing = [name for name in options.peers if not PEERS[name].is_installed]
        if missing:
            raise BenchError(f"not installed: {' '.join(missing)}")
        return options.peers
    wanted = PEERS if workload.others or options.all else workloads.MAIN_PEERS
    # Without shared connections these two are equal.
    return [name for name, peer in PEERS.items() if name in wanted and peer.is_installed
            and (name != "module-owners" or workload.is_shared)]


def table(ground, options):
    results = []
    for workload in workloads.chosen(options):
        figures, rate = compare(ground, workload, peers_of(workload, options))
        report.workload_table(workload, figures, rate)
        results.append((workload, figures, rate))
    rows = report.summary(results)
    if rows:
        report.add_summary(options.json, rows)
    return {"summary": rows, "workloads": [{**asdict(workload), "latency_rate": rate, "peers": figures}
                                           for workload, figures, rate in results]}


def main():
    options = parse()
    # Exit normally, so that child processes are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_open_files()
    options.module = options.module.resolve()
    if not options.module.exists():
        raise BenchError(f"{options.module} does not exist; make bench builds it first")
    options.load_program = options.load_program or built_load()
    stay_with_the_load()
    missing = [name for name, peer in PEERS.items() if not peer.is_installed]
    if missing and "table" in options.parts:
        print(f"skipped, not installed (make bench-peers): {' '.join(missing)}")
    if not CAN_PIN:
        print("fewer than two cores: the load disturbs the proxies, and the figures are unreliable")
    options.directory = tempfile.mkdtemp(prefix="urlproxy-bench-")
    ground = None
    try:
        ground = Ground(options)
        parts = {"table": lambda: table(ground, options), "changes": lambda: others.changing_routes(ground),
                 "scrape": lambda: others.scraped(ground), "once": lambda: others.touched_once(ground)}
        figures = {part: parts[part]() for part in PARTS if part in options.parts}
        report.keep(options.json, versions=report.versions(find), **figures)
        shutil.rmtree(options.directory)
    finally:
        if ground:
            ground.processes.stop_all()


if __name__ == "__main__":
    try:
        main()
    except BenchError as e:
        sys.exit(f"benches/site: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
