"""Tables of the results, and their figures in target/bench.json."""
import subprocess
import sys
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).resolve().parents[1] / "common"))
import figures as bench

# Least ratio of the module's requests/s to each.
TARGETS = {"static": 0.97, "haproxy": 1.05}


def ratio(some, others):
    """Ratios round by round: median, minimum and maximum."""
    values = [one / other for one, other in zip(some, others)]
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratios(figures, name, other, kind="rates", which="rate"):
    return ratio(*([turn[which] for turn in figures[peer][kind]] for peer in (name, other)))


def cpu_ratio(figures, name, other):
    """Ratio of requests per second of CPU time, which other load on the machine affects least."""
    of = {peer: median(turn["cpu_us"] for turn in figures[peer]["rates"]) for peer in (name, other)}
    return of[other] / of[name]


def latency(figures, name, which):
    """Median of the rounds, in microseconds."""
    return median(turn[which] for turn in figures[name]["latencies"])


def show(found):
    return f"{found['median']:.2f} ({found['min']:.2f}-{found['max']:.2f})"


def row(*cells):
    widths = (22, 10, 17, 17, 8, 5, 7, 8, 8, 7)
    line = [f"{cells[0]:<{widths[0]}}"] + [f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:])]
    print(" | ".join(line), flush=True)


def workload_table(workload, figures, rate):
    print(f"\n{workload.name}; latencies in us at {rate:.0f} requests/s", flush=True)
    row("peer", "requests/s", "of static", "of haproxy", "CPU us", "busy", "p50", "p99", "p99.9", "failed")
    for name, figure in figures.items():
        of = [show(ratios(figures, name, other)) if other in figures and other != name else "" for other in TARGETS]
        middle = {what: median(turn[what] for turn in figure["rates"]) for what in ("rate", "cpu_us", "busy")}
        row(name, f"{middle['rate']:.0f}", *of, f"{middle['cpu_us']:.1f}", f"{middle['busy']:.0%}",
            *(f"{latency(figures, name, which):.0f}" for which in ("p50", "p99", "p999")),
            sum(turn["failed"] for turn in figure["latencies"]))


def summary(results):
    """Compares the module with its targets in all workloads with the necessary peers; returns rows for JSON."""
    rows = []
    for workload, figures, _ in results:
        if not {"module", *TARGETS} <= figures.keys():
            continue
        better = min(TARGETS, key=lambda other: latency(figures, other, "p99"))
        rows.append({
            "workload": workload.name,
            **{f"module/{other}": ratios(figures, "module", other) for other in TARGETS},
            **{f"module/{other} by CPU": cpu_ratio(figures, "module", other) for other in TARGETS},
            "others / static": ", ".join(f"{name} {ratios(figures, name, 'static')['median']:.2f}"
                                         for name in figures if name not in ("module", *TARGETS)),
            "p99 module / the better": {"better": better, **ratios(figures, "module", better, "latencies", "p99")},
        })
    if rows:
        line = "{:<48} | {:>17} | {:>17} | {:>15} | {:>19}"
        print("\n" + line.format("module against", "static", "haproxy", "both, by CPU", "p99, of the better"))
    for found in rows:
        print(line.format(found["workload"], *(show(found[f"module/{other}"]) for other in TARGETS),
                          " ".join(f"{found[f'module/{other} by CPU']:.2f}" for other in TARGETS),
                          show(found["p99 module / the better"])))
    if rows:
        print(line.format("target", *(f">= {target}" for target in TARGETS.values()), "", "<= 1"), flush=True)
    return rows


def versions(names):
    """The first line of each program's version output."""
    found = {}
    for name, command in {"nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"], "envoy": ["envoy", "--version"],
                          "caddy": ["caddy", "version"], "redis": ["redis-server", "--version"]}.items():
        path = names(command[0])
        if path:
            done = subprocess.run([path, *command[1:]], capture_output=True, text=True)
            found[name] = (done.stdout + done.stderr).strip().partition("\n")[0]
    return found


def add(path, part, columns, rows, targets=None, options=""):
    """Adds a part to the file of figures; rows are (what, figures, target)."""
    bench.add(f"site.{part}", f"python3 benches/site {part}{options}", columns, rows, targets, path)


def add_summary(path, rows):
    columns = {"module/static": "module / static", "module/haproxy": "module / HAProxy",
               "p99 module / the better": "p99, module / the better of static and HAProxy"}
    targets = {columns[f"module/{other}"]: f">= {target}" for other, target in TARGETS.items()}
    add(path, "table", [*columns.values(), "requests/s, other proxies / static"],
        [(found["workload"], [*(show(found[which]) for which in columns), found["others / static"]], "") for found in rows],
        {**targets, columns["p99 module / the better"]: "<= 1"})


def keep(path, **parts):
    """Keeps everything that was measured, every round, beside the figures."""
    figures = bench.load(path)
    figures["rounds"] = figures.get("rounds", {}) | parts
    bench.save(path, figures)
    print(f"\nall figures: {path}")
