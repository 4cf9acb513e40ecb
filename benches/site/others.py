"""Benchmarks of the module alone: the effect of changing routes and of scrapes on requests, and backends that are used once."""
import threading
import time
import urllib.request
from statistics import median

from machine import BenchError, cpu_seconds, free_port, resident_bytes
from report import add, ratio, show
from workloads import Workload, tool_name

CHANGES_PER_SECOND = 1000
CHANGING = Workload(backends=200, tools=100_000, distribution="zipf", connections=64)
# With its own requests: each tool once.
TOUCHED_ONCE = Workload(backends=50_000, tools=50_000, distribution="uniform", connections=8)
STEP = 5000
# Targets of the admin pages.
SIZES = {"/metrics": "<= 1000 KB"}
TIMES = {"/metrics": "<= 50 ms", "/api/tools?search=99": "<= 200 ms"}


class Changes:
    """Changes tools' backends at a constant rate until stopped."""

    def __init__(self, redis, workload, port):
        self.redis, self.workload, self.port = redis, workload, port
        self.stopping = threading.Event()
        self.made = 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        begun = time.monotonic()
        while not self.stopping.wait(0.01):
            due = int((time.monotonic() - begun) * CHANGES_PER_SECOND) - self.made
            numbers = [(self.made + i) * 7919 for i in range(due)]
            self.redis.send([["HSET", f"prefix:{tool_name(number % self.workload.tools)}", ".*", self.url(number)]
                             for number in numbers])
            self.made += due

    def url(self, number):
        # The next backend each time a tool is changed.
        backend = (number + number // self.workload.tools) % self.workload.backends
        return f"http://{self.workload.address_of(backend)}:{self.port}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()


def fetch(port, page):
    """Bytes and seconds of an admin page."""
    started = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=60) as answer:
        return len(answer.read()), time.monotonic() - started


class Scrapes:
    """Fetches what Prometheus and an open dashboard fetch, once a second until stopped."""

    PAGES = ("/metrics", "/api/status", "/api/tools")
    # Fetched once, without load.
    OTHERS = ("/api/tools?search=99", "/api/tools?sort=requests&limit=1000", "/api/routes", "/list")

    def __init__(self, port):
        self.port = port
        self.stopping = threading.Event()
        self.fetched = {page: [] for page in self.PAGES}
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stopping.is_set():
            begun = time.monotonic()
            for page in self.PAGES:
                self.fetched[page].append(fetch(self.port, page))
            self.stopping.wait(max(0, 1 - (time.monotonic() - begun)))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()


def disturbed(ground, proxy, disturb, label, target):
    """Latencies at a constant rate, alternating without and with a disturbance."""
    options = ground.options
    rate = median(proxy.rate(1, 0)["rate"] for _ in range(3)) * options.load / 100
    figures = {"without": [], "with": []}
    rounds = 2 * options.latency_rounds
    for number in range(2 * rounds):
        def measure():
            return proxy.latencies(rate, options.latency_seconds, number * 9973, requests="paths")
        if number % 4 in (0, 3):
            figures["without"].append(measure())
        else:
            with disturb():
                figures["with"].append(measure())
    print(f"\n{CHANGING.tools} tools, {rate:.0f} requests/s; latencies in us, medians of {rounds} rounds in turn")
    print(f"{label:<30} | {'p50':>7} | {'p99':>8} | {'p99.9':>8} | failed")
    for name in ("without", "with"):
        middle = {which: median(turn[which] for turn in figures[name]) for which in ("p50", "p99", "p999")}
        print(f"{name:<30} | {middle['p50']:>7.0f} | {middle['p99']:>8.0f} | {middle['p999']:>8.0f} |"
              f" {sum(turn['failed'] for turn in figures[name])}")
    found = ratio(*([turn["p99"] for turn in figures[name]] for name in ("with", "without")))
    print(f"p99 with / without: {show(found)}, target <= {target}", flush=True)
    return {"rate": rate, "ratio of p99": found, **figures}


def prepare_paths(ground, purpose):
    """The directory of the workload, with requests by path alone."""
    directory = ground.prepare(CHANGING, purpose)
    # The answering backend may change, so only paths are used.
    paths = [line.partition("\t")[0] for line in (directory / "requests").read_text().splitlines()]
    (directory / "paths").write_text("\n".join(paths) + "\n")
    return directory


def changing_routes(ground):
    """Latencies without and with constant changes of routes."""
    proxy = ground.start("module", CHANGING, prepare_paths(ground, " changes"), zone_mebibytes=64)
    made = []

    def changes():
        made.append(Changes(ground.redis, CHANGING, ground.backends.port))
        return made[-1]
    figures = disturbed(ground, proxy, changes, f"{CHANGES_PER_SECOND} routes changed per second", 1.1)
    proxy.stop()
    add(ground.options.json, "changes", ["figure"],
        [(f"p99, {CHANGES_PER_SECOND:,} changes a second / none", [show(figures["ratio of p99"])], "<= 1.1")])
    return {"changes": sum(changes.made for changes in made), **figures}


def scraped(ground):
    """Latencies without and with a scrape of the admin pages every second."""
    port = free_port()
    proxy = ground.start("module", CHANGING, prepare_paths(ground, " scrape"), zone_mebibytes=64, admin_port=port)
    made = []

    def scrapes():
        made.append(Scrapes(port))
        return made[-1]
    figures = disturbed(ground, proxy, scrapes, "admin pages fetched every second", 1.1)
    pages = {page: [fetched for scrapes in made for fetched in scrapes.fetched[page]] for page in Scrapes.PAGES}
    pages |= {page: [fetch(port, page) for _ in range(5)] for page in Scrapes.OTHERS}
    proxy.stop()
    rows = [("p99, admin pages fetched every second / never", [show(figures["ratio of p99"])], "<= 1.1")]
    print(f"{'page':<36} | {'bytes':>9} | ms, the first {len(Scrapes.PAGES)} under load")
    for page, fetched in pages.items():
        size, seconds = (median(turn[which] for turn in fetched) for which in (0, 1))
        print(f"{page:<36} | {size:>9.0f} | {seconds * 1000:.1f}")
        rows += [(f"{page}, size", [f"{size / 1000:.0f} KB"], SIZES.get(page, "")),
                 (f"{page}, time", [f"{seconds * 1000:.1f} ms"], TIMES.get(page, ""))]
    add(ground.options.json, "scrape", ["figure"], rows)
    return {"pages": pages, **figures}


def touched_once(ground):
    """Memory and CPU time as more and more backends have been used once."""
    workload = TOUCHED_ONCE
    directory = ground.prepare(workload)
    every_one = (f"/{tool_name(i)}/x\t{workload.address_of(workload.backend_of(i))}\n" for i in range(workload.tools))
    (directory / "requests").write_text("".join(every_one))
    proxy = ground.start("module", workload, directory, zone_mebibytes=64, checked=0)
    idle = proxy.open_connections() - 1  # the start-up check has used one
    print(f"\n{workload.backends} backends, each used once, {workload.connections} clients")
    print(f"{'backends used':>15} | {'requests/s':>10} | {'CPU us':>7} | {'memory MiB':>10} | connections")
    figures = []
    for asked in range(0, workload.backends, STEP):
        cpu = cpu_seconds(proxy.pids)
        report = proxy.closed(STEP, asked)
        if report["failed"]:
            raise BenchError(f"{report['failed']} of {STEP} requests failed")
        figures.append({"asked": asked + STEP, "rate": STEP / report["seconds"],
                        "cpu_us": (cpu_seconds(proxy.pids) - cpu) / STEP * 1e6, "memory": resident_bytes(proxy.pids[1:]),
                        "kept": proxy.open_connections() - idle})
        now = figures[-1]
        print(f"{now['asked']:>15} | {now['rate']:>10.0f} | {now['cpu_us']:>7.1f} | {now['memory'] / 2**20:>10.1f} |"
              f" {now['kept']}", flush=True)
    proxy.stop()
    first, last = figures[0], figures[-1]
    add(ground.options.json, "once", [f"first {STEP:,}", f"last {STEP:,}"], [
        ("memory of the worker", [f"{each['memory'] / 2**20:.1f} MiB" for each in (first, last)], "flat"),
        ("processor time per request", [f"{each['cpu_us']:.0f} us" for each in (first, last)], "flat")])
    return figures
